"""Stockfish as the opponent of the chess tasks: how strong it is, and that it lives and dies well."""

import os
import select
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import chess
import numpy as np
import pytest

import envs
from envs.chess.engine import Engine, EngineError, EngineNotFoundError, Line, shared_engine
from envs.chess.env import ChessEnv
from envs.chess.simulator import EnginePlayer, pick, skill_level
from envs.registry import get_task

OPEN_GAME = "r1bqkbnr/pppp1ppp/2n5/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R w KQkq - 2 3"


@pytest.fixture
def engine():
    engine = Engine()
    yield engine
    engine.close()


def gone_within(pid: int, seconds: float) -> bool:
    """Wait for a process that need not be our child to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


# The opponent


@pytest.mark.parametrize("elo", [1350, 1600])
def test_our_weakening_chooses_like_stockfish_at_that_elo(elo):
    """Chi-square on 400 choices each, in a position where the candidates are close."""
    rng, board, player = np.random.default_rng(0), chess.Board(OPEN_GAME), EnginePlayer(elo)
    options = {"UCI_LimitStrength": "true", "UCI_Elo": elo}
    ours = Counter(player.choose(board, rng).uci() for _ in range(400))
    theirs = Counter(shared_engine().ask(OPEN_GAME, "nodes 400", options).best for _ in range(400))
    moves = ours | theirs
    assert len(moves) == 4
    distance = sum((ours[m] - theirs[m]) ** 2 / (ours[m] + theirs[m]) for m in moves)
    assert distance < 27  # 3 degrees of freedom: one in 100,000


def test_the_choice_follows_the_published_rule():
    lines = [Line("a1a2", 100, None), Line("a1a3", 0, None), Line("a1a4", None, -2)]
    chosen = Counter(pick(lines, 0.0, np.random.default_rng(s)) for s in range(500))
    assert chosen["a1a4"] == 0  # a pawn of noise never makes up for a mate
    assert chosen["a1a2"] > chosen["a1a3"] > 0
    assert pick(lines[:1], 0.0, np.random.default_rng(0)) == "a1a2"


def test_skill_levels_are_those_of_stockfish():
    assert skill_level(1350) == pytest.approx(0.0096, abs=1e-3)
    assert skill_level(2850) == pytest.approx(18.46, abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"opponent_elo": 1200}, "elo: 1200 is not in"),
        ({"opponent_elo": 2851}, "elo: 2851 is not in"),
        ({"nodes": 0}, "nodes: 0"),
        ({"movetime_ms": 0}, "movetime_ms: 0"),
        ({"opponent": "gnuchess"}, "opponent: 'gnuchess'"),
    ],
)
def test_an_opponent_that_does_not_exist_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChessEnv(**arguments)


@pytest.mark.parametrize("arguments", [{"movetime_ms": 5, "opponent_elo": None}, {"opponent": "engine-uci"}])
def test_the_clock_and_stockfishs_own_weakening_are_options(arguments):
    env = ChessEnv(**arguments)
    env.reset(seed=0)
    assert env.step("e 4\n")[4]["valid"]


@pytest.mark.parametrize("policy", ["expert", "behaviour"])
def test_nobody_elses_search_clears_the_hash_that_stockfishs_own_weakening_keeps(policy, monkeypatch):
    asked = {True: set(), False: set()}
    ask = Engine.ask

    def record(engine, *args, fresh=True):
        asked[fresh].add(id(engine))
        return ask(engine, *args, fresh=fresh)

    monkeypatch.setattr(Engine, "ask", record)
    spec = get_task("chess")
    spec.play(ChessEnv(opponent="engine-uci", nodes=200, max_moves=3), spec.baseline(policy), seed=0)
    assert len(asked[False]) == len(asked[True]) == 1
    assert asked[False].isdisjoint(asked[True])


def test_the_record_says_who_answered():
    assert get_task("chess").simulator == ChessEnv().simulator == "engine"
    assert ChessEnv(opponent="random").simulator == "rule"
    assert ChessEnv().privileged()["engine"].startswith("Stockfish")


# The engine's life


def test_a_missing_engine_is_an_error_that_says_how_to_install_it(monkeypatch):
    shared_engine().close()
    monkeypatch.setenv("LMRL_STOCKFISH", "no-such-program")
    with pytest.raises(EngineNotFoundError, match=r"no-such-program.*apt-get install stockfish"):
        ChessEnv().reset(seed=0)
    monkeypatch.delenv("LMRL_STOCKFISH")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(EngineNotFoundError, match="apt-get install stockfish"):
        ChessEnv().reset(seed=0)
    ChessEnv(opponent="random").reset(seed=0)


def test_one_engine_serves_every_game_of_the_process():
    first, second = ChessEnv(), ChessEnv()
    first.reset(seed=0)
    pid = shared_engine().pid
    second.reset(seed=1)
    first.step("e 4\n")
    second.step("d 4\n")
    assert shared_engine().pid == pid


def test_an_engine_that_died_is_replaced_and_the_game_goes_on_as_it_would_have():
    def game(kill: bool) -> tuple:
        env = ChessEnv()
        env.reset(seed=5)
        env.step("e 4\n")
        if kill:
            os.kill(shared_engine().pid, signal.SIGKILL)
        return env.step("d 4\n")

    assert game(kill=True) == game(kill=False)


def test_a_game_whose_engine_failed_is_over(monkeypatch):
    env = ChessEnv()
    env.reset(seed=0)

    def fail(*_):
        raise EngineError("it failed twice")

    with monkeypatch.context() as patch:
        patch.setattr(EnginePlayer, "_choose", fail)
        with pytest.raises(EngineError):
            env.step("e 4\n")
    with pytest.raises(RuntimeError, match="no episode is running"):  # it is Black's move there
        env.step("e 5\n")


def test_an_engine_that_always_fails_is_an_error_and_not_a_hang(monkeypatch, tmp_path, engine):
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nread line\necho uciok\nexit 0\n")
    broken.chmod(0o755)
    monkeypatch.setenv("LMRL_STOCKFISH", str(broken))
    with pytest.raises(EngineError, match="failed twice"):
        engine.ask(chess.STARTING_FEN, "nodes 10")
    assert engine.pid is None


def test_an_engine_that_falls_silent_is_given_up(monkeypatch, tmp_path, engine):
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nread line\necho uciok\nexec sleep 60\n")
    mute.chmod(0o755)
    monkeypatch.setenv("LMRL_STOCKFISH", str(mute))
    monkeypatch.setattr("envs.chess.engine._PATIENCE_S", 0.2)
    with pytest.raises(EngineError, match="silent"):
        engine.ask(chess.STARTING_FEN, "nodes 10")


def test_a_search_that_was_interrupted_does_not_answer_the_next_question(monkeypatch, engine):
    expected = engine.ask(OPEN_GAME, "depth 3")

    def interrupt(**_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_answer", interrupt)
        with pytest.raises(KeyboardInterrupt):
            engine.ask(chess.STARTING_FEN, "depth 3")
    assert engine.ask(OPEN_GAME, "depth 3") == expected


SEARCH_FOR_EVER = "e._send(['go nodes 4000000000']); os.read(e._process.stdout.fileno(), 1);"


@pytest.mark.parametrize("busy", ["", SEARCH_FOR_EVER], ids=["idle", "searching"])
def test_the_engine_dies_with_an_owner_that_is_killed(busy):
    code = (
        "import os, signal; from envs.chess.engine import shared_engine;"
        f"e = shared_engine(); e.start(); {busy} print(e.pid, flush=True); signal.pause()"
    )
    root = Path(envs.__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        assert not gone_within(pid, seconds=0)
        owner.kill()
    assert gone_within(pid, seconds=5)


def test_a_forked_child_gets_an_engine_of_its_own():
    shared_engine().start()
    parent = shared_engine().pid
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        reply = shared_engine().ask(chess.STARTING_FEN, "depth 1")
        os.write(writable, f"{shared_engine().pid} {reply.best}".encode())
        os._exit(0)
    os.close(writable)
    os.waitpid(child, 0)
    pid, move = os.read(readable, 100).decode().split()
    os.close(readable)
    assert int(pid) != parent
    assert gone_within(int(pid), seconds=5)
    assert shared_engine().ask(chess.STARTING_FEN, "depth 1").best == move
    assert shared_engine().pid == parent
