"""Chess endgames: positions, exact distances to mate, and the players of both chess tasks."""

import json
from collections import Counter

import chess
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.chess import positions
from envs.chess.env import EndgamesEnv, parse_move
from envs.chess.make_test_positions import draw_test_positions, is_easy
from envs.chess.mates import NEVER, distances, moves_to_mate
from envs.chess.text import read_fen, write_fen
from envs.registry import get_task

TASKS = ("chess", "chess-endgames")


# Endgames


def test_there_are_645_test_positions_of_the_four_kinds():
    fens = positions.test_positions()
    assert len(set(fens)) == len(fens) == len(get_task("chess-endgames").eval_tasks) == 645
    kinds = Counter("".join(sorted(filter(str.isalpha, fen.split()[0]))) for fen in fens)
    assert sorted(kinds.values()) == [161, 161, 161, 162]
    assert set(kinds) == {"".join(sorted(pieces)) for pieces in positions.PIECE_SETS}


def test_every_test_position_is_legal_with_white_to_move_and_not_in_check():
    for fen in positions.test_positions():
        board = chess.Board(fen)
        assert board.is_valid()
        assert board.turn == chess.WHITE
        assert not board.is_check()


def test_no_test_position_is_easy_and_the_script_makes_them_again():
    assert is_easy("7k/8/5K2/8/8/8/8/Q7 w - - 0 1")
    assert not any(map(is_easy, positions.test_positions()))
    assert tuple(draw_test_positions(40)) == positions.test_positions()[:40]


def mates_in(board: chess.Board, moves: int) -> bool:
    """Brute force: whether White, to move, mates in at most so many moves."""
    for move in list(board.legal_moves):
        board.push(move)
        mated = board.is_checkmate() or (
            moves > 1
            and not board.is_stalemate()
            and all(_still_mates(board, reply, moves - 1) for reply in list(board.legal_moves))
        )
        board.pop()
        if mated:
            return True
    return False


def _still_mates(board: chess.Board, reply: chess.Move, moves: int) -> bool:
    board.push(reply)
    found = mates_in(board, moves)
    board.pop()
    return found


def test_distances_to_mate_agree_with_brute_force():
    rng = np.random.default_rng(0)
    seen = Counter()
    while min(seen[d] for d in (1, 2, 3)) < 4:
        pieces = positions.PIECE_SETS[seen.total() % 4]
        board = chess.Board(positions.random_position(pieces, rng))
        distance = moves_to_mate(board)
        seen[distance] += 1
        assert mates_in(board, 1) == (distance <= 1)
        if seen[distance] <= 4 and 2 <= distance <= 3:
            assert mates_in(board, 2) == (distance <= 2)


def test_the_longest_mates_are_the_known_ones():
    """Ten moves with a queen and sixteen with a rook, as any endgame manual says."""
    table = distances("QR")
    queen, rook = table[:, :64, 64], table[:, 64, :64]
    assert queen[queen != NEVER].max() == 10
    assert rook[rook != NEVER].max() == 16


def test_an_ending_of_other_pieces_has_no_distance_to_mate():
    for fen in (chess.STARTING_FEN, "8/8/8/8/8/1k6/8/KQQ5 w - - 0 1", "k7/8/K7/8/8/8/8/8 w - - 0 1"):
        with pytest.raises(ValueError, match="none of the endgames"):
            moves_to_mate(chess.Board(fen))


def test_black_who_takes_the_last_piece_or_is_stalemated_has_not_lost():
    table = distances("QR")
    captured = 64
    assert table[chess.A1, captured, chess.E5, chess.E4] == NEVER
    assert table[chess.E1, chess.B6, captured, chess.A8] == NEVER
    assert table[chess.E5, captured, chess.E4, chess.E3] < NEVER  # the king guards the rook


def test_no_training_position_is_a_test_position():
    first = positions.training_position(0, excluded=())
    assert positions.training_position(0, excluded={first}) != first
    env = EndgamesEnv(opponent="random")
    tests = set(positions.test_positions())
    for seed in range(300):
        observation, info = env.reset(seed=seed)
        assert info["task_id"] >= positions.NUM_TEST
        assert read_fen(observation) not in tests


@settings(deadline=None)
@given(st.integers(0, positions.NUM_TRAINING - 1))
def test_a_training_position_is_legal_and_determined_by_its_number(number):
    fen = positions.training_position(number, excluded=())
    board = chess.Board(fen)
    assert board.is_valid()
    assert not board.is_check()
    assert fen == positions.training_position(number, excluded=())


def test_a_task_id_selects_its_position():
    env = EndgamesEnv(opponent="random")
    for task_id in (0, 644):
        observation, _ = env.reset(seed=task_id, options={"task_id": task_id})
        assert read_fen(observation) == positions.test_positions()[task_id]
    observation, _ = env.reset(options={"task_id": 645 + 7})
    assert read_fen(observation) == positions.training_position(7, excluded=())


def test_the_published_test_positions_can_be_used_instead(tmp_path):
    other = [positions.training_position(n, excluded=()) for n in range(645)]
    path = tmp_path / "test_positions.jsonl"
    path.write_text("".join(f"{json.dumps(fen)}\n" for fen in other))
    env = EndgamesEnv(test_positions=path, opponent="random")
    assert read_fen(env.reset(options={"task_id": 3})[0]) == other[3]
    path.write_text(json.dumps(other[0]))
    with pytest.raises(ValueError, match="holds 1 positions"):
        EndgamesEnv(test_positions=path)
    path.write_text(f"{other[0]}\nnot a position\n")
    with pytest.raises(ValueError, match=r"test_positions.jsonl, line 2: no FEN"):
        EndgamesEnv(test_positions=path)


@pytest.mark.parametrize("fen", ["8/8/8/8/8/8/8/KQk5 b - - 0 1", "8/8/8/8/8/8/8/KQ6 w - - 0 1"])
def test_a_test_position_is_a_legal_one_with_white_to_move(tmp_path, fen):
    path = tmp_path / "test_positions.jsonl"
    path.write_text(f"{json.dumps(fen)}\n" * 645)
    with pytest.raises(ValueError, match="line 1: no legal position with White to move"):
        EndgamesEnv(test_positions=path)


# Policies


def test_the_best_baselines_win_and_random_does_not():
    spec = get_task("chess-endgames")
    wins = Counter()
    for name in ("random", "optimal"):
        for task_id in range(8):
            wins[name] += spec.play(spec.make(), spec.baseline(name), 0, task_id).success
    assert wins == {"optimal": 8, "random": 0}
    chess_task = get_task("chess")
    assert chess_task.play(chess_task.make(), chess_task.baseline("expert"), 0).success


def test_the_optimal_policy_mates_in_the_distance_against_the_best_defence():
    fen = positions.test_positions()[1]
    board, policy = chess.Board(fen), get_task("chess-endgames").baseline("optimal")
    policy.begin(EndgamesEnv(opponent="random"), write_fen(fen), np.random.default_rng(0))
    for left in range(moves_to_mate(board), 0, -1):
        assert moves_to_mate(board) == left
        board.push(parse_move(board, policy.act(write_fen(board.fen()))))
        if left > 1:
            board.push(max(board.legal_moves, key=lambda reply: after(board, reply)))
    assert board.is_checkmate()


def after(board: chess.Board, reply: chess.Move) -> int:
    following = board.copy(stack=False)
    following.push(reply)
    return moves_to_mate(following)


@pytest.mark.parametrize("task", TASKS)
def test_data_episodes_hold_legal_moves_only_and_end(task):
    spec = get_task(task)
    for seed in range(3):
        episode = spec.data_episode(spec.make(), seed)
        assert all(segment.valid for segment in episode.segments)
        assert episode.terminated or episode.truncated
        assert episode.total_return in (-1.0, 0.0, 1.0)
        assert episode.simulator == "engine"


def test_endgame_data_look_like_the_published_ones():
    """Table 1: success .59, length 11.9 ± 12.0; of 80 games the mean is within 3 standard errors."""
    spec = get_task("chess-endgames")
    env = spec.make()
    episodes = [spec.data_episode(env, seed) for seed in range(80)]
    assert np.mean([e.success for e in episodes]) == pytest.approx(0.59, abs=0.165)
    assert np.mean([e.length for e in episodes]) == pytest.approx(11.9, abs=4.0)


def test_the_behaviour_of_chess_draws_a_strength_for_each_game():
    policy, drawn = get_task("chess").baseline("behaviour"), Counter()
    for seed in range(400):
        policy.begin(EndgamesEnv(opponent="random"), "", np.random.default_rng(seed))
        drawn[policy.player().elo] += 1
    assert min(drawn) == 1350
    assert 1590 < max(drawn) <= 1600
    assert drawn[1350] / 400 == pytest.approx(551 / 801, abs=0.07)
