"""Reader of the published conversations, in both of their forms: one JSON list of records.

    {"lines": [...], "correct": bool, "word": "lima,peru"}        LMRL-Gym's train.json, eval.json
    {"conversation": [...], "done": bool, "word": "lima,peru"}    what its generator writes

A line is a question and its answer, "Is it big? Yes, it is.". It is parted after the first question
mark, since answers are sentences that may ask back. The list is decoded record by record.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.core import Episode, Segment
from envs.guess_my_city.env import FIRST_OBSERVATION, MAX_QUESTIONS
from envs.guess_my_city.facts import load_cities
from envs.guess_my_city.lexicon import fold
from envs.json_list import read_json_list

_FORMS = (("lines", "correct"), ("conversation", "done"))


def read_published(path: str | Path) -> Iterator[Episode]:
    """The episodes of a published file, in order.

    A lost conversation of fewer than twenty questions was cut off: it is neither terminated nor
    truncated. The task id is -1 for a city that is none of ours, and the seed is -1. ValueError
    names the file, the line, the field and what was found; so does a file in which no city is ours: it
    is another task's.
    """
    known, word = False, None
    with open(path, encoding="utf-8") as file:
        for line, value in read_json_list(file, str(path)):
            try:
                episode = _episode(value)
            except ValueError as error:
                raise ValueError(f"{path}: line {line}: {error}") from None
            known, word = known or episode.task_id >= 0, value["word"]
            yield episode
    if word is not None and not known:
        raise ValueError(f"{path}: word: found {word!r}, and no city of ours in the whole file")


def _episode(value: Any) -> Episode:
    if not isinstance(value, dict):
        raise ValueError(f"the record: expected an object, found {str(value)[:80]!r}")
    form = next((form for form in _FORMS if form[0] in value), _FORMS[0])
    lines, success = _typed(value, form[0], list), _typed(value, form[1], bool)
    if not lines:
        raise ValueError(f"{form[0]}: expected at least one line, found none")
    segments = [Segment(FIRST_OBSERVATION, is_action=False)]
    for i, line in enumerate(lines):
        won = success and i == len(lines) - 1
        question, answer = _parts(line, f"{form[0]}[{i}]")
        segments.append(Segment(question, is_action=True, reward=0.0 if won else -1.0))
        segments.append(Segment(answer, is_action=False))
    return Episode(
        task="guess-my-city",
        segments=tuple(segments),
        terminated=success or len(lines) >= MAX_QUESTIONS,
        truncated=False,
        success=success,
        seed=-1,
        task_id=_task_id(value.get("word")),
        simulator="lm",
        policy="published",
    )


def _parts(line: Any, field: str) -> tuple[str, str]:
    """The question and the answer, each as one line of text."""
    question, mark, answer = line.partition("? ") if isinstance(line, str) else ("", "", "")
    if not mark or not answer.strip():
        raise ValueError(f"{field}: expected 'question? answer', found {str(line)[:80]!r}")
    return f"{' '.join(question.split())}?\n", f"{' '.join(answer.split())}\n"


def _task_id(word: Any) -> int:
    """By the name before the comma; `word` is "city,country" or a list of names."""
    names = word if isinstance(word, list) else [word]
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"word: expected a str or a list of str, found {str(word)[:80]!r}")
    wanted = {fold(name.partition(",")[0]) for name in names}
    cities = enumerate(load_cities())
    return next((i for i, city in cities if wanted & {fold(name) for name in city.names}), -1)


def _typed(record: dict[str, Any], field: str, kind: type) -> Any:
    value = record.get(field)
    if not isinstance(value, kind):
        raise ValueError(f"{field}: expected a {kind.__name__}, found {str(value)[:80]!r}")
    return value
