"""Twenty Questions: find the object that is thought of by asking what can be answered yes or no.

Rules after LMRL-Gym: 158 everyday objects, 20 questions; each costs 1, the one that names the
object costs nothing and wins. Where theirs asks a fine-tuned FLAN-T5-XL and a part-of-speech
tagger, ours asks a table and wins by a whole-phrase match of one of the object's aliases.
"""

from __future__ import annotations

from typing import Any

from envs.core import Outcome, State, TextEnv
from envs.twenty_questions.knowledge import Split, knowledge, split_ids
from envs.twenty_questions.oracle import ANSWERS, NOT_UNDERSTOOD, YES, KnowledgeOracle, Oracle
from envs.twenty_questions.parser import Guess, parse

PROMPT = "Questions:\n"
MAX_QUESTIONS = 20
NUM_OBJECTS = 158


class TwentyQuestionsEnv(TextEnv):
    """The game; `task_id` is the object's number in the published list.

    Args:
        oracle: who answers; the hand-written table by default.
        split: the part of the list from which `reset` draws ("all", "train", "held-out"); an
            object asked for by `task_id` may be any.
    """

    num_tasks = NUM_OBJECTS
    simulator = KnowledgeOracle.kind

    def __init__(self, oracle: Oracle | None = None, split: Split = "all") -> None:
        super().__init__()
        self._oracle: Oracle = oracle or KnowledgeOracle()
        self.split = split
        self.split_tasks = None if split == "all" else split_ids(split)
        self.simulator = self._oracle.kind

    def privileged(self) -> dict[str, Any]:
        """The object: its aliases, and its number in the published list."""
        thing = knowledge().things[self._task_id]
        return {"secret": list(thing.aliases), "object_id": self._task_id}

    def _reset(self, task_id: int) -> str:
        return PROMPT

    def _step(self, action: str) -> Outcome:
        if parse(action) == Guess(self._task_id):
            return Outcome(f"{YES}\n", 0.0, terminated=True, success=True)
        answer = self._oracle.answer(self._task_id, action)
        if answer not in ANSWERS:  # an oracle's free text could give the object away
            answer = NOT_UNDERSTOOD
        # Twenty questions are the rule of the game, not a limit on its length: it is over.
        used_up = self._turn >= MAX_QUESTIONS
        return Outcome(f"{answer}\n", -1.0, terminated=used_up, valid=answer != NOT_UNDERSTOOD)

    def _get_state(self) -> State:
        return {}  # the object is the task, and the questions asked are the turn

    def _set_state(self, state: State) -> None:
        return
