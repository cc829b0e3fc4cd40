"""The published conversations: a JSON list of {"lines", "correct", "word"}, as LMRL-Gym stores it.

A line is a question and its answer ("Is it alive? Yes."), `word` the list of the object's aliases.
The files hold 100,000 conversations: they are decoded one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.core import Episode, Segment
from envs.json_list import read_json_list
from envs.twenty_questions.env import MAX_QUESTIONS, PROMPT
from envs.twenty_questions.knowledge import knowledge


def read_published(path: str | Path) -> Iterator[Episode]:
    """The episodes of a published file, in order.

    An unwon conversation of fewer than 20 lines was cut off: it is neither terminated nor
    truncated. ValueError names the file, the line, the record and the field that is wrong.
    """
    with open(path, encoding="utf-8") as file:
        for number, (line, record) in enumerate(read_json_list(file, str(path))):
            try:
                yield _episode(record, number)
            except ValueError as error:
                raise ValueError(f"{path}: line {line}: record {number}: {error}") from None


def _episode(record: Any, number: int) -> Episode:
    lines = _field(record, "lines", list)
    correct = _field(record, "correct", bool)
    word = _field(record, "word", list)
    if not lines:
        raise ValueError("lines: found none; want at least one")
    segments = [Segment(PROMPT, is_action=False)]
    for index, line in enumerate(lines):
        question, mark, answer = line.rpartition("? ") if isinstance(line, str) else ("", "", "")
        if not mark:
            raise ValueError(f"lines[{index}]: found {line!r}; want a question, '? ', an answer")
        won = correct and index == len(lines) - 1
        question, answer = " ".join(question.split()), " ".join(answer.split())  # each is one line of text
        segments.append(Segment(f"{question}?\n", is_action=True, reward=0.0 if won else -1.0))
        segments.append(Segment(f"{answer}\n", is_action=False))
    return Episode(
        task="twenty-questions",
        segments=tuple(segments),
        terminated=correct or len(lines) >= MAX_QUESTIONS,
        truncated=False,
        success=correct,
        seed=number,
        task_id=_object_id(word),
        simulator="lm",
        policy="published",
    )


def _field(record: Any, name: str, kind: type) -> Any:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"{name}: found {value!r}; want a {kind.__name__}")
    return value


def _object_id(word: list[Any]) -> int:
    ids = {thing.name.lower(): i for i, thing in enumerate(knowledge().things)}
    found = ids.get(str(word[0]).lower()) if word else None
    if found is None:
        raise ValueError(f"word: found {word!r}; want the aliases of one of the {len(ids)} objects")
    return found
