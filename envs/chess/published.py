"""Readers of the data files that LMRL-Gym publishes for chess and for the endgames.

A line of `train_bc.jsonl` and its kin is one step, an object with `from_state` and `action` (plain
FEN and SAN) and perhaps `reward` and `done`. A line of `train_trajectories.jsonl` or `train.jsonl`
is a game, a list of objects with `state`, `action`, `reward` and `done`, spaced already. Either
becomes an episode in our own wire format.

No file tells the board after the last move. A game that is done ends with it; of one that is not, it is
left out, so that the episode ends with the board that a value may be learnt of. A single step is kept
though it is not done, because that is all it has: such an episode ends with an action in the middle of a
game, and is for behavioural cloning alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

from envs.chess.text import read_fen, read_san, write_fen, write_san
from envs.core import Episode, Segment

_FEN_FIELDS: Final = 6
_ENDGAME_PIECES: Final = 4
_UNKNOWN_TASK: Final = -1
"""A published endgame starts from none of our numbered positions."""


def read_published(path: str | PathLike[str]) -> Iterator[Episode]:
    """Full games, or single steps of them. ValueError names the line and field that is wrong."""
    return _read(Path(path), "chess", task_id=0)


def read_published_endgames(path: str | PathLike[str]) -> Iterator[Episode]:
    """Endgames, or single steps of them. ValueError names the line and field that is wrong."""
    return _read(Path(path), "chess-endgames", _UNKNOWN_TASK)


def _read(path: Path, task: str, task_id: int) -> Iterator[Episode]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield _episode(json.loads(line), task, task_id, seed=number)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error


def _episode(record: Any, task: str, task_id: int, seed: int) -> Episode:
    steps = record if isinstance(record, list) else [record]
    if not steps:
        raise ValueError("a game of no steps")
    segments: list[Segment] = []
    done = False
    for number, step in enumerate(steps):
        if not isinstance(step, Mapping):
            raise ValueError(f"step {number}: found {step!r} where an object should be")
        if done:
            raise ValueError(f"step {number}: follows a step that is done")
        done = _done(step)
        segments += _segments(step, done)
    if task == "chess-endgames":
        _check_pieces(segments[0].text)
    if isinstance(record, list) and not done:
        del segments[-1]  # what came of it is not in the file
    return Episode(
        task=task,
        segments=tuple(segments),
        terminated=done,
        truncated=False,
        success=segments[-1].reward > 0,
        seed=seed,
        task_id=task_id,
        simulator="engine",
        policy="published",
    )


def _segments(step: Mapping[str, Any], done: bool) -> tuple[Segment, Segment]:
    state = "state" if "state" in step else "from_state"
    fen = read_fen(_field(step, state, str))
    if len(fen.split(" ")) != _FEN_FIELDS:
        raise ValueError(f"{state}: found {fen!r}, which is no FEN of {_FEN_FIELDS} fields")
    san = read_san(_field(step, "action", str))
    if not san:
        raise ValueError("action: found an empty move")
    reward = float(_field(step, "reward", (int, float), default=0.0))
    valid = done or reward >= 0  # what costs without ending the game is an illegal move
    return Segment(write_fen(fen), False), Segment(write_san(san), True, reward, valid)


def _check_pieces(board: str) -> None:
    """The files of both tasks have one form, and a whole game may end with as few pieces as an endgame."""
    pieces = sum(c.isalpha() for c in read_fen(board).partition(" ")[0])
    if pieces > _ENDGAME_PIECES:
        raise ValueError(
            f"state: found a board of {pieces} pieces, an endgame has at most {_ENDGAME_PIECES}; import chess"
        )


def _done(step: Mapping[str, Any]) -> bool:
    """LMRL-Gym's environment says 1 where White mates and 0 after an illegal move, else true or false."""
    done = step.get("done", False)
    if done not in (0, 1):
        raise ValueError(f"done: found {done!r} where true or false should be")
    return bool(done)


def _field(step: Mapping[str, Any], name: str, kind: Any, default: Any = None) -> Any:
    value = step.get(name, default)
    if not isinstance(value, kind):
        raise ValueError(f"{name}: found {value!r}; fields are {', '.join(map(str, step))}")
    return value
