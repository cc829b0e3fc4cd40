"""The maze, fully and partially observed (LMRL-Gym, "Maze")."""

from envs.registry import PaperRow, Scale, TaskSpec, register

_SHARED_BASELINES = {
    "random": "envs.maze.baselines:RandomPolicy",
    "behaviour": "envs.maze.behaviour:BehaviourPolicy",
}
_TABLE1 = {
    "mean_length": 19.7,
    "std_length": 24.5,
    "success_rate": 0.11,
    "mean_return": -19.7,
    "std_return": 24.5,
}
_ACTIONS = ("move left\n", "move right\n", "move up\n", "move down\n")
_MOVES = """\
There are four legal actions, to be written exactly so: "move left", "move right", "move up", "move down".
A move into a wall leaves you where you are, and counts as a move. Each move costs 1; the one that reaches the
goal costs nothing and ends the game. Any other text costs 4 and changes nothing. After 100 moves the game is
lost."""
_FULL_RULES = f"""\
You are in a maze and have to reach its goal in as few moves as possible. Each observation tells the position
of the goal, your own position, and on which sides of you there is a wall. A position is "row, column": rows
are counted from the top, columns from the left. So "move down" adds 1 to your row and "move up" takes 1 from
it; "move right" adds 1 to your column and "move left" takes 1 from it. The digits of a number are written
apart: "1 0" is ten.
{_MOVES}"""
_PARTIAL_RULES = f"""\
You are in a maze and have to reach its goal in as few moves as possible. Neither your position nor the goal's
is told: each observation only tells on which sides of you there is a wall. You have to find out where you are
from the walls that you have seen and the moves that you have made.
{_MOVES}"""

register(
    TaskSpec(
        id="maze-fo",
        family="maze",
        description="Find the goal of a maze; the goal, the position and the walls are told.",
        entry="envs.maze.env:MazeEnv",
        kwargs={"observe": "full"},
        observation="full",
        horizon=101,
        window=1,
        forget_on_invalid=True,
        scale=Scale(minimum=-101.0, average=-83.0, maximum=-6.84),
        max_action_tokens=8,
        instructions=_FULL_RULES,
        actions=_ACTIONS,
        baselines=_SHARED_BASELINES | {"optimal": "envs.maze.baselines:OptimalFullPolicy"},
        best_baseline="optimal",
        data_episodes=1_240,
        data_entry="envs.maze.behaviour:data_episode",
        reader_entry="envs.maze.published:read_published",
        table1=_TABLE1,
        paper={
            "bc": PaperRow(-72.1, 58.2),
            "filtered-bc": PaperRow(-56.4, 68.9),
            "mc": PaperRow(-48.1, 75.0),
            "ilql": PaperRow(-6.97, 99.9),
            "ppo": PaperRow(-37.7, 79.7),
            "online-filtered-bc": PaperRow(-71.7, 57.4),
            "gpt-4": PaperRow(-39.7, 78.2),
        },
        eval_tasks=tuple(range(25)),
        world_arguments=("layout", "goal"),
        quick_episodes=100,
        paper_episodes=800,
    )
)

register(
    TaskSpec(
        id="maze-po",
        family="maze",
        description="Find the goal of a maze; only the walls next to the player are told.",
        entry="envs.maze.env:MazeEnv",
        kwargs={"observe": "partial"},
        observation="partial",
        horizon=101,
        window=40,
        forget_on_invalid=True,
        scale=Scale(minimum=-101.0, average=-83.0, maximum=-25.75),
        max_action_tokens=8,
        instructions=_PARTIAL_RULES,
        actions=_ACTIONS,
        baselines=_SHARED_BASELINES | {"optimal": "envs.maze.baselines:OptimalPartialPolicy"},
        best_baseline="optimal",
        data_episodes=1_240,
        data_entry="envs.maze.behaviour:data_episode",
        reader_entry="envs.maze.published:read_published",
        table1=_TABLE1,
        paper={
            "bc": PaperRow(-79.5, 53.1),
            "filtered-bc": PaperRow(-82.9, 50.1),
            "mc": PaperRow(-80.3, 52.4),
            "ilql": PaperRow(-52.9, 76.3),
            "ppo": PaperRow(-91.7, 42.4),
            "online-filtered-bc": PaperRow(-79.5, 53.1),
            "gpt-4": PaperRow(-88.0, 60.4),
        },
        eval_tasks=tuple(range(25)),
        world_arguments=("layout", "goal"),
        quick_episodes=100,
        paper_episodes=800,
    )
)
