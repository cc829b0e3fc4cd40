"""Who answers: an `Oracle`. The one of this package looks the question up in its table.

Others (a language model in its own process) implement the same protocol and are handed to the
environment. Whether a guess wins is never up to the oracle.
"""

from __future__ import annotations

from typing import Protocol

from envs.twenty_questions.parser import Guess, parse

YES = "Yes."
NO = "No."
UNSURE = "I'm not sure."
"""The question is understood, and people would argue about the answer."""
NOT_UNDERSTOOD = "I can't answer that."
ANSWERS = frozenset({YES, NO, UNSURE, NOT_UNDERSTOOD})


class Oracle(Protocol):
    """Answers questions about an object that it knows by its number in the published list."""

    kind: str
    """What answers, for the records: kb (this table), lm or api. The last two are asked by several threads
    at a time."""

    def answer(self, object_id: int, question: str) -> str:
        """One of `ANSWERS`; the environment takes anything else for `NOT_UNDERSTOOD`."""
        ...


class KnowledgeOracle:
    """Answers from the hand-written table; what it does not understand or know, it says."""

    kind = "kb"

    def answer(self, object_id: int, question: str) -> str:
        """See `Oracle`. Any string is accepted as a question."""
        asked = parse(question)
        if asked is None:
            return NOT_UNDERSTOOD
        if isinstance(asked, Guess):
            return YES if asked.object_id == object_id else NO
        holds = asked.holds(object_id)
        if holds is None:
            return UNSURE
        return YES if holds else NO
