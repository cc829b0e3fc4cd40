"""Scripted players: the mixed crowd that makes the data set, a random one, and an expert.

A player keeps the set of objects that are still possible (a bit set, see `knowledge`) and asks
what splits it well. Ours differ in how well they choose, how often they lose an answer from
memory and how early they guess, so that their games have the spread of the published data.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np

from envs.core import ScriptedPolicy, TextEnv
from envs.twenty_questions.env import MAX_QUESTIONS, TwentyQuestionsEnv
from envs.twenty_questions.knowledge import Attribute, Split, knowledge
from envs.twenty_questions.meaning import wordings
from envs.twenty_questions.oracle import NO, UNSURE, YES
from envs.twenty_questions.parser import Guess, parse

_GUESSES = ("Is it {}?", "Is the object {}?", "Could it be {}?", "I think it is {}.")
OFF_THE_TABLE = (
    "Does its name start with a vowel?",
    "Was it invented in the last hundred years?",
    "Is it made in only one country?",
    "Is it something most people own?",
    "Have I seen one today?",
    "Is it more popular than it was ten years ago?",
)
"""Sensible questions that the table cannot answer: people ask these too."""
_KEEN = 0.26
"""Share of the crowd that plays well. The numbers of a player's skill are fitted to the published
success rate and mean return (docs/tasks/twenty_questions.md)."""
_EXPERT_GUESSES_AT = 3
"""With three objects left a guess is at least as good as any question that splits them in two."""


class Random(ScriptedPolicy):
    """Names a random object or asks a random question, with equal chance, and learns nothing."""

    name = "random"

    def act(self, observation: str) -> str:
        if self.rng.random() < 0.5:
            return _guess(int(self.rng.random() * len(knowledge().things)), "Is it {}?")
        texts = _texts("all")
        choices = texts[int(self.rng.random() * len(texts))]
        return choices[int(self.rng.random() * len(choices))]


class Behaviour(ScriptedPolicy):
    """One of a crowd: at each game its skill is drawn anew.

    Args:
        paraphrases: which wordings it uses; the last one of each attribute is held out. None for
            those of the environment's split.
    """

    name = "behaviour"

    def __init__(self, paraphrases: Split | None = None) -> None:
        self._paraphrases = paraphrases

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        split = env.split if isinstance(env, TwentyQuestionsEnv) else "all"
        self._texts = _texts(self._paraphrases or split)
        skill = 0.8 + 0.2 * rng.random() if rng.random() < _KEEN else 0.5 * rng.random()
        self._choices = 1 + int(32 * skill)  # questions that it weighs up against each other
        self._lapses = 1.0 - skill  # chance of asking just anything, and of forgetting an answer
        self._names_at = 1 + int(5 * rng.random())  # objects left when it starts to name them
        self._possible = knowledge().everything
        self._asked: Attribute | None = None
        self._left = MAX_QUESTIONS

    def act(self, observation: str) -> str:
        self._remember(observation.rstrip("\n"))
        self._left -= 1
        self._asked = None
        random = self.rng.random
        if random() < 0.03:
            return f"{OFF_THE_TABLE[int(random() * len(OFF_THE_TABLE))]}\n"
        count = self._possible.bit_count()
        if count <= self._names_at or self._left == 0 or random() < 0.02:
            return self._name_one(count)
        attribute = self._choose()
        self._asked = knowledge().attributes[attribute]
        texts = self._texts[attribute]
        return texts[int(random() * len(texts))]

    def _remember(self, answer: str) -> None:
        if self._asked is None or self.rng.random() < self._lapses:
            return
        if answer in (YES, NO):  # unlike the expert, nobody makes anything of "I'm not sure."
            left = self._possible & _consistent(self._asked, answer)
            self._possible = left or knowledge().everything  # where an oracle contradicts the table

    def _choose(self) -> int:
        """The attribute that splits the possible objects best, of a few drawn at random."""
        attributes = knowledge().attributes
        drawn = [int(self.rng.random() * len(attributes)) for _ in range(self._choices)]
        if self.rng.random() < self._lapses:
            return drawn[0]
        possible = self._possible

        def smaller_part(index: int) -> int:
            attribute = attributes[index]
            return min((possible & attribute.yes).bit_count(), (possible & attribute.no).bit_count())

        return max(drawn, key=smaller_part)

    def _name_one(self, count: int) -> str:
        object_id = _nth(self._possible, int(self.rng.random() * count))
        if count > 1:  # with one left it may have forgotten an answer: it repeats itself
            self._possible &= ~(1 << object_id)
        return _guess(object_id, _GUESSES[int(self.rng.random() * len(_GUESSES))])


class Expert(ScriptedPolicy):
    """Asks what tells most about the object (entropy of the answer), and knows the table.

    An oracle that contradicts the table leaves it with what it has not named yet.
    """

    name = "expert"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._unnamed = self._possible = knowledge().everything
        self._asked: Attribute | Guess | None = None

    def act(self, observation: str) -> str:
        told_something = True
        if isinstance(self._asked, Guess):  # a wrong one, or the game were over
            self._possible &= ~(1 << self._asked.object_id)
            self._unnamed &= ~(1 << self._asked.object_id)
        elif self._asked is not None:
            left = self._possible & _consistent(self._asked, observation.rstrip("\n"))
            told_something = left != self._possible
            self._possible = left
        self._possible = self._possible or self._unnamed
        if not told_something or self._possible.bit_count() <= _EXPERT_GUESSES_AT:
            return self._name_one()
        index = _most_telling(self._possible)
        self._asked = knowledge().attributes[index]
        return _texts("all")[index][0]

    def played(self, action: str) -> None:
        self._asked = parse(action)

    def _name_one(self) -> str:
        object_id = _nth(self._possible, 0)
        self._asked = Guess(object_id)
        return _guess(object_id, "Is it {}?")


@lru_cache(maxsize=4096)
def _most_telling(possible: int) -> int:
    """The attribute whose answer (yes, no or unsure) has the most entropy over a set."""
    attributes = knowledge().attributes

    def entropy(index: int) -> float:
        yes = (possible & attributes[index].yes).bit_count()
        no = (possible & attributes[index].no).bit_count()
        parts = (yes, no, possible.bit_count() - yes - no)
        return -sum(n * math.log(n) for n in parts if n)

    return max(range(len(attributes)), key=entropy)


def _consistent(asked: Attribute, answer: str) -> int:
    """The objects for which the table gives this answer; all of them for any other answer."""
    debatable = knowledge().everything & ~asked.yes & ~asked.no
    answers = {YES: asked.yes, NO: asked.no, UNSURE: debatable}
    return answers.get(answer, knowledge().everything)


@cache
def _texts(paraphrases: Split) -> tuple[tuple[str, ...], ...]:
    """By attribute, the actions that ask for it: each wording, of "it" and of "the object"."""
    part = {"all": slice(None), "train": slice(None, -1), "held-out": slice(-1, None)}[paraphrases]
    return tuple(
        tuple(
            f"{text}\n"
            for wording in wordings()[attribute.id][part]
            for text in dict.fromkeys((wording, wording.replace(" it ", " the object ", 1)))
        )
        for attribute in knowledge().attributes
    )


def _guess(object_id: int, wording: str) -> str:
    return f"{wording.format(_names()[object_id])}\n"


@cache
def _names() -> tuple[str, ...]:
    """The objects as they are named in a guess: "an apple"."""
    names = [thing.name.lower() for thing in knowledge().things]
    return tuple(f"{'an' if name[0] in 'aeio' else 'a'} {name}" for name in names)


def _nth(members: int, n: int) -> int:
    """The n-th smallest element of a bit set."""
    for _ in range(n):
        members &= members - 1
    return (members & -members).bit_length() - 1
