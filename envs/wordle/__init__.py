"""Wordle (LMRL-Gym, "Wordle")."""

from envs.registry import PaperRow, Scale, TaskSpec, register
from envs.wordle.rules import load_vocabulary

_RULES = f"""\
Find a hidden word of five letters in at most six guesses. A guess is one of the words listed below (no
other word is legal), in lower case; its letters may be written with spaces between them. Each guess is
answered by five marks, one for each letter: g, the letter is right and in the right place; y, the letter
is in the word, at another place; b, the letter is not in the word. Each position is marked by itself: a
letter that the word holds once is marked y at both places of a guess that holds it twice. A guess that is
not in the list is answered by an empty line: it tells nothing and uses up a try. Each guess costs 1, but
the one that is the word costs nothing and ends the game. The hidden word is one of the list, all equally
likely:
{" ".join(load_vocabulary())}"""

register(
    TaskSpec(
        id="wordle",
        family="wordle",
        description="Find a hidden word of five letters in six tries.",
        entry="envs.wordle.env:WordleEnv",
        instructions=_RULES,
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
