"""The published text-nav files: a JSON list of games, or one game a line.

A game is an object with `text_history` (observation, command, ..., observation; texts without
outer white space), `rewards` and `dones` (one of each per command). The collector sets the last
`done` when it stops at its limit, too; only the text tells whether the game itself was over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envs.core import Episode, Segment
from envs.text_nav.house import EXITS, ROOMS

_GAME_OVER = ("*** The End ***", "*** You lost! ***")
_INVENTORY = "You are carrying"
_START_BY_EXITS = {frozenset(ways): ROOMS.index(room) for room, ways in EXITS.items()}


def read_published(path: str | Path) -> Iterator[Episode]:
    """The games of a file in its order; ValueError names file, place and field of a bad one.

    Lines are streamed; a list is read whole (the published one is small). `seed` is -1, `task_id`
    the start room as the first observation's exits tell it, or -1.
    """
    path = Path(path)
    for place, record in _records(path):
        try:
            yield _episode(record)
        except ValueError as error:
            raise ValueError(f"{path}, {place}: {error}") from error


def _records(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        first = lines.readline()
        if first.lstrip().startswith("["):
            try:
                records = json.loads(first + lines.read())
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from error
            yield from ((f"record {i}", record) for i, record in enumerate(records, start=1))
            return
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON: {error.msg}") from error
            yield f"line {number}", record


def _episode(record: Any) -> Episode:
    if not isinstance(record, dict):
        raise ValueError(f"a game is an object, found {type(record).__name__}")
    texts = _field(record, "text_history", str)
    rewards = _field(record, "rewards", int | float)
    dones = _field(record, "dones", bool)
    if len(texts) % 2 == 0:
        raise ValueError(f"text_history: {len(texts)} texts; an odd number begins and ends in one")
    commands = len(texts) // 2
    for name, values in (("rewards", rewards), ("dones", dones)):
        if len(values) != commands:
            raise ValueError(f"{name}: {len(values)} values for {commands} commands")
    over = any(mark in texts[-1] for mark in _GAME_OVER)
    observations = texts[::2]
    full = any(_INVENTORY in text for text in observations)
    return Episode(
        task="text-nav-fo" if full else "text-nav-po",
        segments=tuple(
            Segment(f"{text.strip()}\n", bool(i % 2), float(rewards[i // 2]) if i % 2 else 0.0)
            for i, text in enumerate(texts)
        ),
        terminated=over,
        truncated=bool(dones) and dones[-1] and not over,
        success=bool(rewards) and rewards[-1] > 0,
        seed=-1,
        task_id=_start_room(texts[0]),
        simulator="engine",
        policy="published",
    )


def _field(record: dict[str, Any], name: str, kind: Any) -> list[Any]:
    values = record.get(name)
    if not isinstance(values, list):
        raise ValueError(f"{name}: expected a list, found {values!r:.60}")
    for i, value in enumerate(values):
        if not isinstance(value, kind):
            raise ValueError(f"{name}[{i}]: found {value!r:.60}")
    return values


def _start_room(observation: str) -> int:
    commands = observation.rpartition(":")[2].strip().split(", ")
    exits = frozenset(c.removeprefix("go ") for c in commands if c.startswith("go "))
    return _START_BY_EXITS.get(exits, -1)
