"""Reader of the published maze data, fully or partially observed: one JSON value per line.

Fully observed: a list of steps {"state", "action", "reward", "done"}. Partially observed: an object
{"text_history", "rewards", "dones"}, three lists by the same index, with the actions at the odd
indices. (LMRL-Gym's `fully_observed_maze_data.jsonl`, `partially_observed_maze_data.jsonl`.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from envs.core import Episode, Segment
from envs.maze.env import FAILURE, SUCCESS, describe
from envs.maze.layout import DOUBLE_T, MOVES, Cell

_POSITION = re.compile(r"position is at position ([\d ]+), ([\d ]+)\.")


class _Step(NamedTuple):
    """An observation, what was done there, and what came of it."""

    observation: str
    action: str
    reward: float
    done: bool


def read_published(path: str | Path) -> Iterator[Episode]:
    """The episodes of a published file, one at a time; each line tells its own format.

    Where a record ends with an action, the observation after it is not in the file. It is filled in
    by the rules: "Success" after a done action with reward 0, "Failure" after another done action,
    the next cell's text where the record stops in the paper's maze before the game is done. Where
    that is unknown (partially observed, not done), the last action is left out.

    A record that is not done is neither terminated nor truncated. The task id is the start cell
    where it is told, otherwise -1; the seed is -1. ValueError names the file, the line, the field
    and what was found.
    """
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _Record(f"{path}: line {number}").episode(line)


class _Record:
    """The parsing of one line; errors name its place."""

    def __init__(self, place: str) -> None:
        self._place = place

    def episode(self, line: bytes) -> Episode:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self._place}: not JSON: {error}") from None
        if isinstance(value, list):
            steps = self._full(value)
            if _position(steps[0].observation) is None:  # chess has records of the same form
                raise self._wrong("step 0 state", "a position in the maze", steps[0].observation)
            return _episode("maze-fo", steps, last=None)
        record = self._typed(value, dict, "the line")
        history = self._typed(record.get("text_history"), list, "text_history")
        last = self._text(history[-1], "text_history") if len(history) % 2 else None
        return _episode("maze-po", self._partial(record, history), last)

    def _full(self, steps: list[Any]) -> list[_Step]:
        found = []
        for i, value in enumerate(steps):
            step = self._typed(value, dict, f"step {i}")
            found.append(
                _Step(
                    self._text(step.get("state"), f"step {i} state"),
                    self._text(step.get("action"), f"step {i} action"),
                    self._number(step.get("reward"), f"step {i} reward"),
                    self._typed(step.get("done"), bool, f"step {i} done"),
                )
            )
        return self._checked(found)

    def _partial(self, record: dict[str, Any], history: list[Any]) -> list[_Step]:
        rewards = self._typed(record.get("rewards"), list, "rewards")
        dones = self._typed(record.get("dones"), list, "dones")
        for name, values in (("rewards", rewards), ("dones", dones)):
            if len(values) != len(history):
                raise self._wrong(name, f"{len(history)} entries, as in text_history", len(values))
        return self._checked(
            [
                _Step(
                    self._text(history[i - 1], f"text_history[{i - 1}]"),
                    self._text(history[i], f"text_history[{i}]"),
                    self._number(rewards[i], f"rewards[{i}]"),
                    self._typed(dones[i], bool, f"dones[{i}]"),
                )
                for i in range(1, len(history), 2)
            ]
        )

    def _checked(self, steps: list[_Step]) -> list[_Step]:
        if not steps:
            raise self._wrong("the record", "at least one action", "none")
        for i, step in enumerate(steps[:-1]):
            if step.done:
                raise self._wrong(f"action {i} done", "false before the last action", True)
        return steps

    def _text(self, value: object, field: str) -> str:
        return str(self._typed(value, str, field)).rstrip("\n") + "\n"

    def _number(self, value: Any, field: str) -> float:
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not -1e300 < value < 1e300:
            raise self._wrong(field, "a finite number", value)
        return float(value)

    def _typed(self, value: Any, kind: type, field: str) -> Any:
        if not isinstance(value, kind):
            raise self._wrong(field, f"a {kind.__name__}", value)
        return value

    def _wrong(self, field: str, expected: str, found: object) -> ValueError:
        return ValueError(f"{self._place}: {field}: expected {expected}, found {str(found)[:80]!r}")


def _episode(task: str, steps: list[_Step], last: str | None) -> Episode:
    end = steps[-1]
    start = _position(steps[0].observation)
    if last is None:
        last = _text_after(end)
    if last is None:
        last, steps = end.observation, steps[:-1]
    segments = []
    for text, action, reward, _ in steps:
        segments.append(Segment(text, is_action=False))
        segments.append(Segment(action, is_action=True, reward=reward, valid=action in MOVES))
    success = end.done and end.reward == 0
    return Episode(
        task=task,
        segments=(*segments, Segment(last, is_action=False)),
        terminated=end.done,
        truncated=False,
        success=success,
        seed=-1,
        task_id=DOUBLE_T.starts.index(start) if start in DOUBLE_T.starts else -1,
        simulator="rule",
        policy="published",
    )


def _text_after(step: _Step) -> str | None:
    """What must have been seen after a record's last step; None when it cannot be known."""
    if step.done:
        return SUCCESS if step.reward == 0 else FAILURE
    cell = _position(step.observation)
    if cell not in DOUBLE_T.starts:
        return None
    after = DOUBLE_T.after(cell, step.action) if step.action in MOVES else cell
    return SUCCESS if after == DOUBLE_T.goal else describe(DOUBLE_T, after, "full")


def _position(text: str) -> Cell | None:
    match = _POSITION.search(text)
    if match is None:
        return None
    row, column = (int(number.replace(" ", "") or -1) for number in match.groups())
    return row, column
