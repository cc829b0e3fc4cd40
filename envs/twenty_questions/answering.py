"""Twenty Questions answered by a language model: what it is asked, and what counts as an answer.

The prompt is LMRL-Gym's (four lines, the object with all its names, decoded greedily) except that "not
sure" and "cannot answer" are answers too.
"""

from __future__ import annotations

from collections.abc import Iterator

from envs.answering import OtherSide, Request, TextModel, Turn
from envs.core import Episode
from envs.twenty_questions.knowledge import knowledge
from envs.twenty_questions.oracle import ANSWERS, NO, NOT_UNDERSTOOD, UNSURE, YES

INSTRUCTION = f"""\
You answer questions about a secret object, truthfully, for someone who must find out what it is.
Reply with exactly one of these lines and nothing else:
{YES}
{NO}
{UNSURE}  (people would argue about the answer)
{NOT_UNDERSTOOD}  (it is not one question that can be answered with yes or no)
Never name the object."""
MAX_TOKENS = 16
_LONGEST_QUESTION = 200
"""Characters that are shown to a model."""
_BARE = {answer.lower().rstrip("."): answer for answer in ANSWERS}


class ModelOracle:
    """An oracle that asks a model. Another answer than the four is left to the environment to refuse."""

    def __init__(self, model: TextModel) -> None:
        self.kind = model.kind
        self._model = model

    def answer(self, object_id: int, question: str) -> str:
        """The model's line; letter case and the full stop do not matter."""
        line = self._model.complete(Request(INSTRUCTION, prompt(object_id, question), MAX_TOKENS)).strip()
        return _BARE.get(line.lower().rstrip("."), line)


def prompt(object_id: int, question: str) -> str:
    names = ", ".join(knowledge().things[object_id].aliases)
    asked = " ".join(question[:_LONGEST_QUESTION].split())
    return (
        f"Answer the question about the object truthfully.\nobject: ({names})\nquestion: {asked}\nanswer:\n"
    )


def turns(episode: Episode) -> Iterator[Turn]:
    """Every question with its answer."""
    if not 0 <= episode.task_id < len(knowledge().things):
        return
    for question, answer in zip(episode.segments[1::2], episode.segments[2::2], strict=False):
        yield Turn(question.text, prompt(episode.task_id, question.text), answer.text)


SIDE = OtherSide(
    arguments=lambda model: {"oracle": ModelOracle(model)},
    turns=turns,
    window=1,
    agrees=lambda task_id, turn, answer: answer.strip() == turn.answer.strip(),
    max_tokens=MAX_TOKENS,
    greedy=True,
)
