"""Text-nav, fully and partially observed: a house, a fridge and some stale food."""

from envs.registry import PaperRow, Scale, TaskSpec, register

_BASELINES = {
    "random": "envs.text_nav.behaviour:RandomPlayer",
    "behaviour": "envs.text_nav.behaviour:HalfOptimalPlayer",
    "optimal": "envs.text_nav.behaviour:OptimalPlayer",
}
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
