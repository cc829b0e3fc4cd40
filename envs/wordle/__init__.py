"""Wordle (LMRL-Gym, "Wordle")."""

from envs.registry import PaperRow, Scale, TaskSpec, register

register(
    TaskSpec(
        id="wordle",
        family="wordle",
        description="Find a hidden word of five letters in six tries.",
        entry="envs.wordle.env:WordleEnv",
        observation="partial",
        horizon=6,
        window=None,
        scale=Scale(minimum=-6.0, average=-4.12, maximum=-1.94),
        max_action_tokens=16,
        baselines={
            "random": "envs.wordle.behaviour:RandomWord",
            "behaviour": "envs.wordle.behaviour:Behaviour",
            "expert": "envs.wordle.behaviour:Expert",
        },
        best_baseline="expert",
        data_episodes=1_000_000,
        reader_entry="envs.wordle.published:read_published",
        table1={
            "mean_length": 4.82,
            "std_length": 1.27,
            "success_rate": 0.70,
            "mean_return": -4.12,
            "std_return": 1.59,
        },
        paper={
            "bc": PaperRow(-2.81, 79.9),
            "filtered-bc": PaperRow(-2.85, 79.1),
            "mc": PaperRow(-2.16, 94.9),
            "ilql": PaperRow(-2.04, 97.7),
            "ppo": PaperRow(-2.63, 84.2),
            "online-filtered-bc": PaperRow(-2.15, 95.2),
            "gpt-4": PaperRow(-5.42, 15.4),
        },
        quick_episodes=256,
        paper_episodes=4096,
    )
)
