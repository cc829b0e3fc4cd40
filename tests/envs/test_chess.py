"""Chess: the contract of a task, the wire format, the rules, determinism, the published files."""

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import chess
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.chess.engine import shared_engine
from envs.chess.env import ChessEnv, parse_move
from envs.chess.published import read_published, read_published_endgames
from envs.chess.text import read_fen, read_san, write_fen, write_san
from envs.conformance import check_env
from envs.registry import get_task

FIXTURES = Path(__file__).parents[1] / "fixtures" / "chess"
TASKS = ("chess", "chess-endgames")
OPEN_GAME = "r1bqkbnr/pppp1ppp/2n5/4p3/4P3/5N2/PPPP1PPP/RNBQKB1R w KQkq - 2 3"
MATE_IN_ONE = "6k1/5ppp/8/8/8/8/8/R3K3 w - - 0 1"
STALEMATE_IN_ONE = "k7/8/2Q5/8/8/8/8/4K3 w - - 0 1"
ONE_ROOK_LEFT = "8/8/8/8/8/1k6/8/K1R5 w - - 0 1"


def at(fen: str, **arguments) -> ChessEnv:
    """An environment that stands in a position of our choice."""
    env = ChessEnv(**{"opponent": "random", **arguments})
    env.reset(seed=0)
    env.set_state({**env.get_state(), "task": {"start": fen, "moves": []}})
    return env


def fen_after(moves: str) -> str:
    board = chess.Board()
    for san in moves.split():
        board.push_san(san)
    return board.fen()


# The contract


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
def test_it_satisfies_the_contract_of_every_task(task):
    check_env(task)


@pytest.mark.parametrize("task", TASKS)
def test_it_satisfies_the_contract_with_a_random_opponent(task):
    check_env(task, opponent="random")


def test_naming_the_tasks_does_not_load_python_chess():
    code = "import sys, envs.chess; print('chess' in sys.modules)"
    root = Path(envs.__file__).parents[1]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert out.stdout == "False\n"


# The wire format


def test_the_board_and_the_moves_are_spelt_out():
    observation, _ = ChessEnv(opponent="random").reset(seed=0)
    assert observation.startswith("r n b q k b n r / p p p p p p p p / 8 / ")
    assert observation.endswith(" / R N B Q K B N R   w   K Q k q   -   0   1\n")
    assert write_san("exd8=Q+") == "e x d 8 = Q +\n"


@given(st.integers(0, 2**32 - 1))
def test_what_is_spaced_can_be_read_back(seed):
    rng = np.random.default_rng(seed)
    board = chess.Board()
    for _ in range(rng.integers(0, 60)):
        moves = list(board.legal_moves)
        if not moves:
            break
        move = moves[rng.integers(len(moves))]
        assert parse_move(board, write_san(board.san(move))) == move
        board.push(move)
    assert read_fen(write_fen(board.fen())) == board.fen() == read_fen(board.fen())


@pytest.mark.parametrize("action", ["N f 3\n", "Nf3", " N  f 3 \n", "N f 3 +\n"])
def test_spaces_and_check_marks_in_a_move_do_not_matter(action):
    env = at(chess.STARTING_FEN)
    assert env.step(action)[4]["valid"]


# Rules and rewards


@pytest.mark.parametrize(
    "action",
    ["e 5\n", "N d 4\n", "- -\n", "0 0 0 0\n", "\n", "", "Q", "O - O\n", "e 2 e 9\n", "\x00", "\ud800"],
)
def test_an_illegal_move_costs_one_and_changes_nothing(action):
    env = at(chess.STARTING_FEN)
    observation, reward, terminated, truncated, info = env.step(action)
    assert observation == write_fen(chess.STARTING_FEN)
    assert (reward, terminated, truncated, info["valid"]) == (-1.0, False, False, False)
    assert env.step("e 4\n")[4]["valid"]


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="NBRQKabcdefgh12345678x=+#O0- @\n", max_size=12))
def test_any_string_is_a_legal_move_or_costs_one(action):
    env = at(OPEN_GAME)
    before = env.privileged()["fen"]
    observation, reward, *_, info = env.step(action)
    assert reward == (0.0 if info["valid"] else -1.0)
    assert (read_fen(observation) == before) == (not info["valid"])


def test_mate_earns_one_and_is_success():
    observation, reward, terminated, truncated, info = at(MATE_IN_ONE).step("R a 8 #\n")
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    assert read_fen(observation) == "R5k1/5ppp/8/8/8/8/8/4K3 b - - 1 1"


def test_being_mated_costs_one():
    env = at(fen_after("f3 e5"), opponent_elo=None, opponent="engine", nodes=500)
    _, reward, terminated, _, info = env.step("g 4\n")
    assert (reward, terminated, info["success"], info["valid"]) == (-1.0, True, False, True)


@pytest.mark.parametrize(
    ("fen", "action"),
    [
        (STALEMATE_IN_ONE, "Q b 6\n"),
        (ONE_ROOK_LEFT, "R c 3 +\n"),  # Black may only take: two kings are left, or steps aside
        ("k7/8/8/8/8/8/8/K1R5 w - - 149 150", "R c 2\n"),
    ],
    ids=["stalemate", "two kings", "seventy-five moves"],
)
def test_a_draw_earns_nothing_and_ends_the_game(fen, action):
    for seed in range(20):
        env = at(fen)
        env.np_random = np.random.default_rng(seed)
        _, reward, terminated, _, info = env.step(action)
        if terminated:
            break
    assert (reward, terminated, info["success"]) == (0.0, True, False)


def test_fivefold_repetition_ends_the_game_also_after_a_snapshot():
    env = at(chess.STARTING_FEN)
    back_and_forth = ["g1f3", "g8f6", "f3g1", "f6g8"] * 4
    state = env.get_state()
    state["task"] = {"start": chess.STARTING_FEN, "moves": back_and_forth[:-1]}
    env.set_state(json.loads(json.dumps(state)))
    env._board.push_uci(back_and_forth[-1])
    assert env._board.outcome().termination == chess.Termination.FIVEFOLD_REPETITION


def test_the_game_is_cut_off_at_the_move_cap_and_illegal_moves_count():
    env = ChessEnv(opponent="random", max_moves=3)
    env.reset(seed=0)
    steps = [env.step("?\n") for _ in range(3)]
    assert [s[3] for s in steps] == [False, False, True]
    assert not steps[-1][2]
    assert get_task("chess").horizon == ChessEnv(opponent="random")._max_moves


@pytest.mark.parametrize("max_moves", [0, -1, "ten", 2.5, True, None])
@pytest.mark.parametrize("task", TASKS)
def test_a_move_cap_that_is_none_is_refused(task, max_moves):
    with pytest.raises(ValueError, match=f"max_moves: found {max_moves!r}; give .* from 1 on"):
        envs.make(task, opponent="random", max_moves=max_moves)


def test_a_mate_on_the_last_move_is_no_truncation():
    _, reward, terminated, truncated, _ = at(MATE_IN_ONE, max_moves=1).step("R a 8\n")
    assert (reward, terminated, truncated) == (1.0, True, False)


# Determinism


def transcript(env: ChessEnv, seed: int, moves: int = 12) -> list[str]:
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(moves):
        board = chess.Board(env.privileged()["fen"])
        legal = [board.san(m) for m in board.legal_moves]
        observation, _, terminated, *_ = env.step(write_san(legal[rng.integers(len(legal))]))
        texts.append(observation)
        if terminated:
            break
    return texts


def test_a_game_depends_on_its_seed_and_not_on_what_the_engine_did_before():
    expected = transcript(ChessEnv(), seed=3)
    shared_engine().ask(OPEN_GAME, "nodes 5000")
    again = transcript(ChessEnv(), seed=3)
    shared_engine().close()
    assert again == expected == transcript(ChessEnv(), seed=3)
    assert transcript(ChessEnv(), seed=4) != expected


def test_full_strength_answers_the_same_at_a_node_limit():
    answers = {shared_engine().ask(OPEN_GAME, "nodes 3000") for _ in range(5)}
    assert len(answers) == 1


def test_a_copy_goes_on_like_the_original():
    env = ChessEnv()
    env.reset(seed=1)
    env.step("e 4\n")
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    expected = env.step("d 4\n")
    assert [twin.step("d 4\n") for twin in twins] == [expected, expected]


# Readers of the published files


def test_published_games_become_episodes_in_our_format():
    won, broken_off = read_published(FIXTURES / "games.jsonl")
    assert won.text.startswith(write_fen(chess.STARTING_FEN) + "e 4\n")
    assert (won.success, won.terminated, won.length, won.total_return) == (True, True, 5, 0.0)
    assert [s.valid for s in won.segments if s.is_action] == [True, True, False, True, True]
    assert (broken_off.success, broken_off.terminated, broken_off.truncated) == (False,) * 3


def test_a_published_game_that_is_not_done_ends_with_a_board():
    _, broken_off = read_published(FIXTURES / "games.jsonl")
    boards = [chess.Board(read_fen(s.text)) for s in broken_off.segments if not s.is_action]
    assert [s.is_action for s in broken_off.segments] == [False, True, False]
    assert parse_move(boards[0], broken_off.segments[1].text)
    assert boards[1].fullmove_number == boards[0].fullmove_number + 1


def test_published_steps_become_episodes_of_one_action():
    first, mate = read_published(FIXTURES / "steps.jsonl")
    assert first.text == write_fen(chess.STARTING_FEN) + "N f 3\n"
    assert (mate.success, mate.terminated, mate.task) == (True, True, "chess")


def test_published_endgames_start_from_none_of_our_positions(tmp_path):
    path = tmp_path / "train_bc.jsonl"
    path.write_text('{"from_state": "8/8/8/8/8/8/k1K5/1Q6 w - - 0 1", "action": "Qb3"}\n')
    (step,) = read_published_endgames(path)
    assert (step.task, step.task_id) == ("chess-endgames", -1)


@pytest.mark.parametrize(("done", "terminated"), [("1", True), ("0", False), ("true", True)])
def test_a_published_step_is_done_in_the_environment_s_numbers_too(tmp_path, done, terminated):
    path = tmp_path / "train.jsonl"
    path.write_text(f'{{"state": "{chess.STARTING_FEN}", "action": "e4", "reward": 1, "done": {done}}}\n')
    assert next(read_published(path)).terminated is terminated


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1"),
        ("[]", "line 1: a game of no steps"),
        ("[3]", "step 0: found 3"),
        ('{"from_state": "8/8 w", "action": "Kd4"}', "from_state: found '8/8 w'"),
        ('{"from_state": 3, "action": "Kd4"}', "from_state: found 3"),
        ('{"from_state": "8/8/8/8/8/8/8/8 w - - 0 1"}', "action: found None"),
        ('{"state": "8/8/8/8/8/8/8/8 w - - 0 1", "action": " \\n"}', "action: found an empty"),
        ('{"state": "8/8 w - - 0 1", "action": "a", "reward": "x"}', "reward: found 'x'"),
        ('{"state": "8/8 w - - 0 1", "action": "a", "done": 2}', "done: found 2"),
    ],
)
def test_a_bad_published_line_names_the_line_and_the_field(tmp_path, line, message):
    path = tmp_path / "train.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match=rf"train\.jsonl, line 1.*{message.split('line 1')[-1]}"):
        list(read_published(path))


def test_a_file_of_whole_games_is_none_of_endgames():
    with pytest.raises(ValueError, match=r"line 1: state: found a board of 32 pieces.*; import chess"):
        list(read_published_endgames(FIXTURES / "games.jsonl"))


def test_space_reading_is_the_inverse_for_moves():
    assert read_san(" O - O - O \n") == "O-O-O"
