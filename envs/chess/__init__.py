"""Chess against Stockfish: full games from the first move, and endgames won with best play.

Source: LMRL-Gym, section 4 and appendices C.4 and C.5. Importing this package loads neither
python-chess nor the engine; a task's modules do, when the task is first used.
"""

from __future__ import annotations

from envs.registry import PaperRow, Scale, TaskSpec, register

_TEST_POSITIONS = 645
_RULES = """\
Each observation is the board as FEN with a space between all characters; White is to move, and White is you.
Black's reply is already on the board. An action is one legal move of White in standard algebraic notation
(SAN), e.g. "Nf3", "exd5", "Rae1", "e8=Q", "O-O" or "O-O-O"; it may be written with spaces between the
characters ("N f 3"), and the signs for check and mate may be left out. Every move that the rules of chess
allow is a legal action. A move that is illegal, or not written as a move, costs 1 and leaves the board as it
is. Giving mate earns 1, being mated costs 1, a draw is 0. After 400 turns the game is cut off."""

CHESS = register(
    TaskSpec(
        id="chess",
        family="chess",
        description="Play White against Stockfish at Elo 1350; an illegal move costs 1.",
        instructions=f"You play a game of chess against an engine and have to win it.\n{_RULES}",
        entry="envs.chess.env:ChessEnv",
        observation="full",
        horizon=400,
        window=1,
        scale=Scale(minimum=-401.0, average=0.21, maximum=1.0),
        max_action_tokens=16,
        baselines={
            "random": "envs.chess.behaviour:RandomPolicy",
            "behaviour": "envs.chess.behaviour:LimitedPolicy",
            "expert": "envs.chess.behaviour:ExpertPolicy",
        },
        best_baseline="expert",
        data_episodes=625_000,
        table1={
            "mean_length": 46.7,
            "std_length": 18.16,
            "success_rate": 0.60,
            "mean_return": 0.210,
            "std_return": 0.970,
        },
        paper={
            "bc": PaperRow(-22.3, 47.2),
            "filtered-bc": PaperRow(-56.5, 42.9),
            "mc": PaperRow(-28.2, 46.5),
            "ilql": PaperRow(-21.4, 47.3),
            "ppo": PaperRow(-16.0, 48.0),
            "online-filtered-bc": PaperRow(-22.3, 47.2),
            "gpt-4": PaperRow(-81.3, 0.0),
        },
        reader_entry="envs.chess.published:read_published",
        quick_episodes=32,
        paper_episodes=1000,
    )
)

ENDGAMES = register(
    TaskSpec(
        id="chess-endgames",
        family="chess",
        description="Win a chess endgame (queen, rook, or both) against Stockfish at Elo 1350.",
        instructions=(
            "You play a chess endgame against an engine: you have a king and a queen, a rook, both, or two "
            f"rooks against a lone king, and have to give mate.\n{_RULES}"
        ),
        entry="envs.chess.env:EndgamesEnv",
        observation="full",
        horizon=400,
        window=1,
        scale=Scale(minimum=-1.0, average=0.586, maximum=1.0),
        max_action_tokens=16,
        baselines={
            "random": "envs.chess.behaviour:RandomPolicy",
            "behaviour": "envs.chess.behaviour:NoisyOptimalPolicy",
            "expert": "envs.chess.behaviour:ExpertPolicy",
            "optimal": "envs.chess.behaviour:OptimalPolicy",
        },
        best_baseline="optimal",
        data_episodes=97_756,
        table1={
            "mean_length": 11.9,
            "std_length": 12.0,
            "success_rate": 0.59,
            "mean_return": 0.586,
            "std_return": 0.492,
        },
        paper={
            "bc": PaperRow(0.112, 35.1),
            "filtered-bc": PaperRow(-0.439, 17.7),
            "mc": PaperRow(0.588, 50.2),
            "ilql": PaperRow(0.452, 45.8),
            "ppo": PaperRow(0.814, 77.5),
            "online-filtered-bc": PaperRow(0.112, 36.2),
            "gpt-4": PaperRow(-22.87, 0.0),
        },
        reader_entry="envs.chess.published:read_published_endgames",
        eval_tasks=tuple(range(_TEST_POSITIONS)),
        quick_episodes=64,
        paper_episodes=_TEST_POSITIONS,
    )
)
