"""A UCI client for Stockfish: an engine a process, reused, restarted, never left behind.

A search starts with `ucinewgame` on one thread and a fixed hash, so that under a depth or node
limit its answer is a function of the position alone: games that share the engine cannot disturb
one another, and a game restored from a snapshot goes on identically. It costs 0.6 ms a search.
Who wants the hash kept between searches has a second engine, which those of the first cannot clear.

The engine reads its orders from a pipe. However its owner ends, kill -9 included, the system closes
the pipe and Stockfish quits at the end of its input.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import subprocess
import threading
from collections.abc import Mapping
from typing import Final, NamedTuple

_VARIABLE: Final = "LMRL_STOCKFISH"
_DEBIAN_PATH: Final = "/usr/games/stockfish"  # where Debian's package puts it, often not on PATH
_HASH_MB: Final = 1  # cleared before every search: a bigger one costs time and gains nothing here
_PATIENCE_S: Final = 60.0
"""How long it may say nothing; while it thinks for long, it reports."""

_RESTING_OPTIONS: Final[dict[str, str | int]] = {
    "Threads": 1,
    "Hash": _HASH_MB,
    "MultiPV": 1,
    "UCI_LimitStrength": "false",
}


class EngineNotFoundError(RuntimeError):
    """There is no Stockfish on this machine, or not where the variable says."""


class EngineError(RuntimeError):
    """The engine died or fell silent, twice in a row."""


class Line(NamedTuple):
    """A candidate move and its score for the side to move; one of the two scores is None."""

    move: str
    """In UCI notation, e.g. "e2e4"."""
    centipawns: int | None
    mate: int | None
    """Moves to mate, negative when it is the side to move that is mated."""


class Reply(NamedTuple):
    """The engine's move and its candidates, best first."""

    best: str
    lines: tuple[Line, ...]


class _Dead(Exception):
    """The engine's process ended or does not answer."""


class Engine:
    """A Stockfish process, started when it is first asked and started again when it has died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""
        self._options: dict[str, str | int] = {}
        self._name = ""

    @property
    def name(self) -> str:
        """What the engine calls itself, e.g. "Stockfish 15.1". Starts it where necessary."""
        self.start()
        return self._name

    @property
    def pid(self) -> int | None:
        """The process id, None while no engine runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the engine unless it runs. Raises EngineNotFoundError or EngineError."""
        with self._lock:
            try:
                self._ensure_started()
            except (_Dead, OSError) as error:
                self._kill()
                raise EngineError(f"Stockfish does not start: {error}") from error

    def ask(
        self,
        fen: str,
        limit: str,
        options: Mapping[str, str | int] | None = None,
        *,
        fresh: bool = True,
    ) -> Reply:
        """Search a position.

        `limit` is what follows UCI's `go` ("nodes 1000", "depth 1", "movetime 100"); `options` are
        UCI options for this search only; unless `fresh`, the engine keeps what earlier searches
        left in its hash. EngineNotFoundError without a Stockfish; EngineError when it has failed
        twice.
        """
        orders = ["ucinewgame"] * fresh + [f"position fen {fen}", f"go {limit}"]
        failure: Exception | None = None
        with self._lock:
            for _ in range(2):
                try:
                    return self._search(orders, options or {})
                except (_Dead, OSError) as error:
                    failure = error
        raise EngineError(
            f"Stockfish failed twice on position {fen!r} with limit {limit!r}: {failure}"
        ) from failure

    def close(self) -> None:
        """Stop the engine; the next question starts another."""
        with self._lock:
            self._kill()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's engine, which the child must not talk to."""
        self._lock = threading.Lock()
        if self._process is not None:
            _close_pipes(self._process)
            self._process.returncode = 0  # not our child: nobody here may wait for it
            self._process = None

    def _search(self, orders: list[str], options: Mapping[str, str | int]) -> Reply:
        try:
            self._ensure_started()
            self._send([*self._set({**_RESTING_OPTIONS, **options}), *orders])
            *report, best = self._answer(until="bestmove")
        except BaseException:  # a search that was left half-way would answer the next question
            self._kill()
            raise
        lines: dict[int, Line] = {}
        for words in report:
            if "multipv" in words and "upperbound" not in words and "lowerbound" not in words:
                lines[int(words[words.index("multipv") + 1])] = _line(words)
        return Reply(best[1], tuple(lines[rank] for rank in sorted(lines)))

    def _set(self, options: Mapping[str, str | int]) -> list[str]:
        changed = {name: v for name, v in options.items() if self._options.get(name) != v}
        self._options.update(changed)
        return [f"setoption name {name} value {value}" for name, value in changed.items()]

    def _ensure_started(self) -> None:
        if self._process is not None:
            return
        self._process = subprocess.Popen(
            [find_stockfish()],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for us; we then close the pipe
        )
        self._unread = b""
        self._options = {}
        self._send(["uci"])
        for words in self._answer(until="uciok"):
            if words[:2] == ["id", "name"]:
                self._name = " ".join(words[2:])

    def _send(self, commands: list[str]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(("\n".join(commands) + "\n").encode())

    def _answer(self, until: str) -> list[list[str]]:
        """The words of every line up to and with the one that begins with `until`."""
        assert self._process is not None
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        answer: list[list[str]] = []
        while True:
            *complete, self._unread = self._unread.split(b"\n")
            for raw in complete:
                words = raw.decode(errors="replace").split()
                if words:
                    answer.append(words)
                    if words[0] == until:
                        return answer
            if not poll.poll(_PATIENCE_S * 1000):
                raise _Dead(f"silent for {_PATIENCE_S:g} s")
            chunk = os.read(output, 65536)
            if not chunk:
                raise _Dead("its process ended")
            self._unread += chunk

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            _close_pipes(self._process)
            self._process.wait()
            self._process = None


def find_stockfish() -> str:
    """The path of the binary: LMRL_STOCKFISH, else on PATH, else Debian's place."""
    chosen = os.environ.get(_VARIABLE)
    path = shutil.which(chosen or "stockfish") or (None if chosen else shutil.which(_DEBIAN_PATH))
    if path is None:
        found = f"{_VARIABLE} is {chosen!r}, which is no program" if chosen else "found none"
        raise EngineNotFoundError(
            f"chess needs the Stockfish engine: {found}. Install it (apt-get install stockfish), "
            f"or set {_VARIABLE} to its binary, or choose opponent='random', which needs none"
        )
    return path


def shared_engine() -> Engine:
    """The engine of this process for searches that start with an empty hash."""
    return _SHARED


def remembering_engine() -> Engine:
    """The engine of this process for searches that keep the hash (`fresh=False`), and for no others."""
    return _REMEMBERING


def _line(words: list[str]) -> Line:
    score = words.index("score")
    kind, value = words[score + 1], int(words[score + 2])
    move = words[words.index("pv") + 1]
    return Line(move, value if kind == "cp" else None, value if kind == "mate" else None)


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


_SHARED, _REMEMBERING = Engine(), Engine()
for _engine in (_SHARED, _REMEMBERING):
    atexit.register(_engine.close)
    os.register_at_fork(after_in_child=_engine.abandon)
