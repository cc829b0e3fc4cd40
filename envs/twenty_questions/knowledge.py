"""What the oracle knows: 158 objects by some 250 attributes, each yes, no or unknown.

`objects.csv` was written by hand for this project (a row an object, a column an attribute, cells
`y`, `n`, `?`); "unknown" stands wherever people would argue. `size_cm` is the square root of the
area that an ordinary one covers, seen from its largest side. The words, their order and their
aliases are those of LMRL-Gym's Twenty Questions.

Sets of objects are ints used as bit sets (bit i for object i): a player that narrows its
candidates down does so with `&`, and counts them with `int.bit_count`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

Split = Literal["all", "train", "held-out"]
HELD_OUT_EVERY = 5
"""Every fifth object of the list is held out, so that each category is in both parts."""
_FIXED_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Thing:
    """An object to be guessed; the first alias is its name."""

    name: str
    aliases: tuple[str, ...]
    category: str
    size: float | None
    """Centimetres; None where it may be of any size."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """What a question asks, with the objects for which it holds and does not, as bit sets.

    An object in neither set is one for which the answer is unknown.
    """

    id: str
    yes: int
    no: int

    def holds(self, object_id: int) -> bool | None:
        """True or False for the object, None where it is unknown."""
        if self.yes >> object_id & 1:
            return True
        return False if self.no >> object_id & 1 else None

    def opposite(self) -> Attribute:
        return Attribute(f"not {self.id}", self.no, self.yes)

    def __and__(self, other: Attribute) -> Attribute:
        return Attribute(f"{self.id} and {other.id}", self.yes & other.yes, self.no | other.no)

    def __or__(self, other: Attribute) -> Attribute:
        return Attribute(f"{self.id} or {other.id}", self.yes | other.yes, self.no & other.no)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The table: `things` in the published order, `attributes` in the order of the columns."""

    things: tuple[Thing, ...]
    attributes: tuple[Attribute, ...]

    @property
    def everything(self) -> int:
        """The set of all objects."""
        return (1 << len(self.things)) - 1


@cache
def knowledge() -> Knowledge:
    """The table of objects and attributes, read once. ValueError for a cell that is not y, n, ?."""
    with resources.files(__package__).joinpath("objects.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    things = tuple(
        Thing(name, tuple(aliases.split(";")), category, None if size == "?" else float(size))
        for name, aliases, category, size, *_ in rows
    )
    columns = list(zip(*(row[_FIXED_COLUMNS:] for row in rows), strict=True))
    attributes = []
    for attribute_id, cells in zip(header[_FIXED_COLUMNS:], columns, strict=True):
        wrong = sorted(set(cells) - {"y", "n", "?"})
        if wrong:
            raise ValueError(f"objects.csv: {attribute_id}: found {wrong[0]!r}; want y, n or ?")
        yes, no = (bit_set(i for i, cell in enumerate(cells) if cell == value) for value in "yn")
        attributes.append(Attribute(attribute_id, yes, no))
    return Knowledge(things, tuple(attributes))


def bit_set(object_ids: Iterable[int]) -> int:
    """The set of these objects."""
    return sum(1 << object_id for object_id in object_ids)


def split_ids(split: Split) -> tuple[int, ...]:
    """The object ids of a part of the list. ValueError for an unknown part."""
    if split not in ("all", "train", "held-out"):
        raise ValueError(f"split: found {split!r}; want 'all', 'train' or 'held-out'")
    ids = range(len(knowledge().things))
    held_out = {i for i in ids if i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1}
    return tuple(i for i in ids if split == "all" or (i in held_out) == (split == "held-out"))
