"""Reader of the published Wordle data (`train_data.jsonl`, `eval_data.jsonl`).

One JSON object a line: `sequence`, a list of [text, is_action] that begins with "Wordle:\\n" and
takes turns; `reward`, one number for each entry but the first; `done`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.core import Episode, Segment
from envs.wordle.rules import INVALID_FEEDBACK, WIN_FEEDBACK

UNKNOWN = -1
"""Task id of a published episode: the file does not tell the hidden word."""


def read_published(path: str | Path) -> Iterator[Episode]:
    """The episodes of a file, one at a time; `seed` is the line's position, counted from 0.

    ValueError names the file, the line, the field and what was found.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines):
            if line.strip():
                try:
                    yield _episode(line, seed=number)
                except (ValueError, OverflowError) as error:
                    raise ValueError(f"{path}: line {number + 1}: {error}") from error


def _episode(line: bytes, seed: int) -> Episode:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _wrong("the line", "an object", record)
    segments = _segments(record.get("sequence"), record.get("reward"))
    done = record.get("done")
    if not isinstance(done, bool):
        raise _wrong("done", "true or false", done)
    return Episode(
        task="wordle",
        segments=segments,
        terminated=done,
        truncated=False,
        success=segments[-1].text == WIN_FEEDBACK,
        seed=seed,
        task_id=UNKNOWN,
        simulator="rule",
        policy="published",
    )


def _segments(sequence: Any, rewards: Any) -> tuple[Segment, ...]:
    if not isinstance(sequence, list) or len(sequence) < 3 or len(sequence) % 2 == 0:
        raise _wrong("sequence", "a list of an opening, then guesses and feedback", sequence)
    if not isinstance(rewards, list) or len(rewards) != len(sequence) - 1:
        raise _wrong("reward", f"a list of {len(sequence) - 1} numbers", rewards)
    texts = [_text(i, entry) for i, entry in enumerate(sequence)]
    segments = [Segment(texts[0], is_action=False)]
    for i, (text, reward) in enumerate(zip(texts[1:], rewards, strict=True), start=1):
        is_action = i % 2 == 1
        _check_reward(i - 1, reward, is_action)
        valid = not is_action or texts[i + 1] != INVALID_FEEDBACK
        segments.append(Segment(text, is_action, float(reward), valid))
    return tuple(segments)


def _text(i: int, entry: Any) -> str:
    """The text of `sequence[i]`; observations stand at the even places, actions at the odd."""
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise _wrong(f"sequence[{i}]", "[text, is_action]", entry)
    text: str = entry[0]
    is_action = entry[1]
    if is_action != i % 2:
        raise _wrong(f"sequence[{i}]", f"is_action {i % 2}", is_action)
    if not text.endswith("\n"):
        raise _wrong(f"sequence[{i}]", "a text that ends in a newline", text)
    return text


def _check_reward(i: int, reward: Any, is_action: bool) -> None:
    if not isinstance(reward, int | float) or not math.isfinite(reward):
        raise _wrong(f"reward[{i}]", "a finite number", reward)
    if reward and not is_action:
        raise _wrong(f"reward[{i}]", "0, since it belongs to feedback", reward)


def _wrong(field: str, expected: str, found: object) -> ValueError:
    return ValueError(f"{field}: expected {expected}, found {str(found)[:80]!r}")
