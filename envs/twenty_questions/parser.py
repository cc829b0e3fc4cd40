"""From a question's text to what it asks: a guess, an attribute of the table, or nothing we know.

A guess is the whole of what is asked: "Is it a cat?" names the cat; "Is it a cat or a dog?" and
"Is it a cat that flies?" name nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache

from envs.twenty_questions.knowledge import Attribute, knowledge
from envs.twenty_questions.meaning import understand
from envs.twenty_questions.phrases import MAX_QUESTION, clean


@dataclass(frozen=True, slots=True)
class Guess:
    """A direct guess of one object."""

    object_id: int


_GUESS = re.compile(
    r"^(?:(?:i (?:think|guess|believe|would say)|my guess is|would you say|do you think)"
    r"(?: that)? )?"
    r"(?:(?:is|are|was|could|would|can|might) (?:it|this|that|they)(?: be)? "
    r"|(?:it|this|that|they) (?:is|are|must be) |are you thinking (?:of|about) )?"
    r"(?:by any chance |maybe |perhaps |possibly |actually |simply |just |called )?"
    r"(?:(?:a |the |some )?(?:kind|type|sort) of )?"
    r"(?P<article>(?:a|an|the|some|any) )?(?P<name>[a-z ]+)$"
)
_COLOURS = frozenset({"orange"})
"""Names that without an article are a colour: "Is it orange?" """


def parse(question: str) -> Guess | Attribute | None:
    """What the question asks; None where it cannot be understood. Any string is accepted."""
    if len(question) > MAX_QUESTION:  # keeps long texts out of the cache
        return None
    return _parse(question)


@lru_cache(maxsize=1 << 16)
def _parse(question: str) -> Guess | Attribute | None:
    text = clean(question)
    if text is None:
        return None
    guess = _GUESS.match(text)
    if guess is not None and (guess["article"] or guess["name"] not in _COLOURS):
        object_id = _names().get(guess["name"])
        if object_id is not None:
            return Guess(object_id)
    return understand(text)


@cache
def _names() -> dict[str, int]:
    """Object ids by alias, in lower case."""
    return {
        alias.lower(): object_id
        for object_id, thing in enumerate(knowledge().things)
        for alias in thing.aliases
    }
