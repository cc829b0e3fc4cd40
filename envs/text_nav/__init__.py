"""Text-nav, fully and partially observed: a house, a fridge and some stale food."""

from envs.registry import PaperRow, Scale, TaskSpec, register
from envs.text_nav.house import ROOMS, THINGS

_BASELINES = {
    "random": "envs.text_nav.behaviour:RandomPlayer",
    "behaviour": "envs.text_nav.behaviour:HalfOptimalPlayer",
    "optimal": "envs.text_nav.behaviour:OptimalPlayer",
}
_COMMANDS = f"""\
The commands are:
go north, go south, go east, go west
take THING (from the floor), take THING from table, take THING from chest, take THING from fridge
put THING on table, insert THING into chest, insert THING into fridge, drop THING
open chest, open fridge, close chest, close fridge
eat stale food, eat fresh food, eat fruit
A THING is one of: {", ".join(THINGS)}.
Each observation ends in the list of those that can be carried out now; choose one of the list and write it
exactly as it stands there. Anything else does nothing and uses up a turn. You have 15 commands. Closing the
fridge with the stale food in it wins (1 point). Eating the stale food loses the game (0 points), and so does
using up the commands."""
_FULL_RULES = f"""\
You are in a house of eight rooms: {", ".join(ROOMS)}.
Somewhere lies stale food: it has to be put into the fridge, and the fridge has to be closed. Each
observation tells what came of your last command (after a walk: what the room holds and where it leads), then
which room you are in and what you carry.
{_COMMANDS}"""
_PARTIAL_RULES = f"""\
You are in a house of eight rooms. Somewhere lies stale food: it has to be put into the fridge, and the fridge
has to be closed. Each observation tells what came of your last command (after a walk: what the room holds and
where it leads). No room is ever named and what you carry is not told again: remember it.
{_COMMANDS}"""
_TABLE1 = {
    "mean_length": 12.2,
    "std_length": 8.77,
    "success_rate": 0.26,
    "mean_return": 0.258,
    "std_return": 0.424,
}

register(
    TaskSpec(
        id="text-nav-fo",
        family="text_nav",
        description="Put the stale food into the fridge; the room and the inventory are told.",
        entry="envs.text_nav.env:TextNav",
        kwargs={"observation": "full"},
        instructions=_FULL_RULES,
        observation="full",
        horizon=15,
        window=None,
        scale=Scale(minimum=0.0, average=0.26, maximum=1.0),
        max_action_tokens=24,
        baselines=_BASELINES,
        best_baseline="optimal",
        data_episodes=2_500,
        reader_entry="envs.text_nav.published:read_published",
        table1=_TABLE1,
        paper={
            "bc": PaperRow(0.39, 53.7),
            "filtered-bc": PaperRow(0.54, 65.1),
            "mc": PaperRow(0.63, 71.9),
            "ilql": PaperRow(0.88, 91.8),
            "ppo": PaperRow(0.81, 87.1),
            "online-filtered-bc": PaperRow(0.62, 74.5),
            "gpt-4": PaperRow(0.52, 67.5),
        },
        eval_tasks=tuple(range(8)),
        quick_episodes=104,
        paper_episodes=1000,
    )
)

register(
    TaskSpec(
        id="text-nav-po",
        family="text_nav",
        description="Put the stale food into the fridge; no room is named, no inventory told.",
        entry="envs.text_nav.env:TextNav",
        kwargs={"observation": "partial"},
        instructions=_PARTIAL_RULES,
        observation="partial",
        horizon=15,
        window=None,
        scale=Scale(minimum=0.0, average=0.26, maximum=1.0),
        max_action_tokens=24,
        baselines=_BASELINES,
        best_baseline="optimal",
        data_episodes=2_500,
        reader_entry="envs.text_nav.published:read_published",
        table1=_TABLE1,
        paper={
            "bc": PaperRow(0.25, 49.7),
            "filtered-bc": PaperRow(0.49, 60.5),
            "mc": PaperRow(0.58, 71.6),
            "ilql": PaperRow(0.76, 83.7),
            "ppo": PaperRow(0.80, 85.5),
            "online-filtered-bc": PaperRow(0.53, 68.4),
            "gpt-4": PaperRow(0.21, 40.2),
        },
        eval_tasks=tuple(range(8)),
        quick_episodes=104,
        paper_episodes=1000,
    )
)
