"""Guess My City (LMRL-Gym, "Guess My City")."""

from envs.registry import PaperRow, Scale, TaskSpec, register

_RULES = """\
The other one is from one of a hundred large or well-known cities of the world; find out which, with as
few questions as possible and at most twenty. An action is one short question, open ("What language is
spoken in your city?") or answered by yes or no ("Is your city in Europe?", "Is it on the sea?"). What the
other one does not know is answered "I can't say.". To guess, name one city, e.g. "Are you from Lima?": if
it is the right one you have won. Name one city at a time, and ask one question at a time. Each action
costs 1, whatever the answer; the one that names the city costs nothing. Legal actions are all questions;
use the twentieth for a guess."""

register(
    TaskSpec(
        id="guess-my-city",
        family="guess_my_city",
        description="Find out by at most twenty questions which city the other one is from.",
        entry="envs.guess_my_city.env:GuessMyCityEnv",
        instructions=_RULES,
        observation="dialogue",
        horizon=20,
        window=None,
        scale=Scale(minimum=-20.0, average=-18.8, maximum=-8.56),
        max_action_tokens=48,
        baselines={
            "random": "envs.guess_my_city.behaviour:Random",
            "behaviour": "envs.guess_my_city.behaviour:Behaviour",
            "expert": "envs.guess_my_city.behaviour:Expert",
        },
        best_baseline="expert",
        data_episodes=100_000,
        reader_entry="envs.guess_my_city.published:read_published",
        other_side="envs.guess_my_city.answering:SIDE",
        table1={
            "mean_length": 18.8,
            "std_length": 4.57,
            "success_rate": 0.53,
            "mean_return": -18.8,
            "std_return": 4.12,
        },
        paper={
            "bc": PaperRow(-17.0, 30.0),
            "filtered-bc": PaperRow(-15.2, 48.0),
            "mc": PaperRow(-11.2, 88.0),
            "ilql": PaperRow(-12.5, 75.0),
            "ppo": PaperRow(-15.1, 49.9),
            "online-filtered-bc": PaperRow(-19.2, 31.6),
            "gpt-4": PaperRow(-10.13, 92.3),
        },
        eval_tasks=tuple(range(100)),
        quick_episodes=100,
        paper_episodes=500,
    )
)
