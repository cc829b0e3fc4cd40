"""Chess as a text game: the agent is White and reads the board, writes a move, and so on.

An observation is the spaced FEN after the opponent's reply, an action a spaced move in SAN. White
gets 1 for giving mate and -1 for being mated; a draw is 0. A move that is illegal or no move at all
costs 1 and leaves the board as it is; the game goes on. After 400 turns it is cut off. Draws by
threefold repetition and by the fifty-move rule must be claimed and nobody claims them here; those
by fivefold repetition and the seventy-five-move rule end the game.

Source: LMRL-Gym, section 4 and its `llm_rl_scripts/chess/env`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import chess

from envs.chess import positions
from envs.chess.simulator import LOWEST_ELO, EnginePlayer, Player, RandomPlayer
from envs.chess.text import read_san, write_fen
from envs.core import Outcome, State, TextEnv

Opponent = Literal["engine", "engine-uci", "random"]

_ILLEGAL_REWARD = -1.0


class ChessEnv(TextEnv):
    """Full games from the first move.

    `opponent`: "engine" is Stockfish, weakened to `opponent_elo` with the environment's generator;
    "engine-uci" leaves the weakening to Stockfish, as the paper did, and is not reproducible;
    "random" needs no engine. `opponent_elo=None` is full strength. `nodes`, or `movetime_ms` by the
    clock, limit one reply. ValueError for values that do not exist.
    """

    simulator = "engine"

    def __init__(
        self,
        opponent: Opponent = "engine",
        opponent_elo: int | None = LOWEST_ELO,
        nodes: int = 10_000,
        movetime_ms: int | None = None,
        max_moves: int = 400,
    ) -> None:
        super().__init__()
        self._opponent: Player
        if opponent == "random":
            self._opponent = RandomPlayer()
            self.simulator = "rule"
        elif opponent in ("engine", "engine-uci"):
            native = opponent == "engine-uci"
            self._opponent = EnginePlayer(opponent_elo, nodes, movetime_ms, native)
        else:
            raise ValueError(f"opponent: {opponent!r} is none of engine, engine-uci, random")
        if not isinstance(max_moves, int) or isinstance(max_moves, bool) or max_moves < 1:
            raise ValueError(
                f"max_moves: found {max_moves!r}; give the most turns of a game, an int from 1 on"
            )
        self._max_moves = max_moves
        self._board = chess.Board()

    def privileged(self) -> dict[str, Any]:
        """The board as a plain FEN, and who answers."""
        engine = self._opponent.engine.name if isinstance(self._opponent, EnginePlayer) else None
        return {"fen": self._board.fen(), "opponent": repr(self._opponent), "engine": engine}

    def _start_fen(self, task_id: int) -> str:
        return chess.STARTING_FEN

    def _reset(self, task_id: int) -> str:
        if isinstance(self._opponent, EnginePlayer):
            self._opponent.engine.start()  # a missing engine shows before the first move
        self._board = chess.Board(self._start_fen(task_id))
        return write_fen(self._board.fen())

    def _step(self, action: str) -> Outcome:
        move = parse_move(self._board, action)
        if move is None:
            return self._outcome(None, reward=_ILLEGAL_REWARD, valid=False)
        self._board.push(move)
        ended = self._board.outcome()
        if ended is None:
            self._board.push(self._opponent.choose(self._board, self.np_random))
            ended = self._board.outcome()
        return self._outcome(ended)

    def _outcome(self, ended: chess.Outcome | None, reward: float = 0.0, valid: bool = True) -> Outcome:
        winner = None if ended is None else ended.winner
        if winner is not None:
            reward = 1.0 if winner == chess.WHITE else -1.0
        return Outcome(
            observation=write_fen(self._board.fen()),
            reward=reward,
            terminated=ended is not None,
            truncated=ended is None and self._turn >= self._max_moves,
            success=winner == chess.WHITE,
            valid=valid,
        )

    def _get_state(self) -> State:
        return {
            "start": self._board.root().fen(),
            "moves": [move.uci() for move in self._board.move_stack],
        }

    def _set_state(self, state: State) -> None:
        self._board = chess.Board(state["start"])
        for move in state["moves"]:
            self._board.push_uci(move)


class EndgamesEnv(ChessEnv):
    """Endgames that White wins with best play.

    Task ids 0 to 644 are the test positions, the rest training positions. A reset that names no
    task draws a training position, so that nothing is trained on the test. `test_positions` is a
    file that holds 645 others, such as the published `test_positions.jsonl`.
    """

    num_tasks = positions.NUM_TEST + positions.NUM_TRAINING

    def __init__(self, test_positions: str | os.PathLike[str] | None = None, **game: Any) -> None:
        super().__init__(**game)
        self._test = (
            positions.test_positions()
            if test_positions is None
            else positions.read_positions(Path(test_positions))
        )
        if len(self._test) != positions.NUM_TEST:
            raise ValueError(
                f"test_positions: {test_positions} holds {len(self._test)} positions; "
                f"the task has {positions.NUM_TEST}"
            )

        self._excluded = frozenset(self._test)

    def _requested_task(self, options: Any) -> int:
        requested = super()._requested_task(options)
        if requested is not None:
            return requested
        return positions.NUM_TEST + int(self.np_random.random() * positions.NUM_TRAINING)

    def _start_fen(self, task_id: int) -> str:
        if task_id < positions.NUM_TEST:
            return self._test[task_id]
        return positions.training_position(task_id - positions.NUM_TEST, self._excluded)


def parse_move(board: chess.Board, text: str) -> chess.Move | None:
    """The legal move that a text names in SAN, spaced or not; None where there is none."""
    try:
        move = board.parse_san(read_san(text))
    except ValueError:
        return None
    return move or None  # a null move ("--") is parsed, but nobody may pass
