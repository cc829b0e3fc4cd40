"""The sentences that buyers and scripted sellers choose from: several for each thing to say.

Every list of a buyer's sentences has a part that only held-out buyers use, so that an evaluation on
them meets sentences that no training episode has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np

from envs.car_dealer.buyers import Buyer
from envs.car_dealer.cars import Car, listed, type_noun, with_article

_TERSE: Final = "uncommunicative"
_SILENCES: Final = 8
"""Ways to say nothing besides, for each of which an aside counts one: 5 asides are heard 5 times in 13."""


@dataclass(frozen=True, slots=True)
class Voice:
    """The sentences of one personality, by intent, and what it likes to say before them."""

    lines: dict[str, list[str]]
    asides: list[str]

    def say(self, intent: str, slots: dict[str, str], rng: np.random.Generator) -> str:
        """One sentence for the intent, with the slots filled in."""
        lines = self.lines[intent]
        draw = rng.random() * len(lines)  # one number chooses both: a call costs half a microsecond
        number = int(draw)
        aside = self.asides[int((draw - number) * len(self.asides))]
        return aside + lines[number].format_map(slots)


def voice_of(buyer: Buyer) -> Voice:
    return _voice(buyer.personality, "held-out" if buyer.held_out else "train")


@cache
def _voice(personality: str, split: str) -> Voice:
    book = read_lines("buyer_lines.json")
    lines = {intent: choices[split] for intent, choices in book["lines"].items()}
    if personality == _TERSE:
        lines |= {intent: choices[split] for intent, choices in book["terse"].items()}
    asides = [f"{aside} " for aside in book["asides"].get(personality, {split: []})[split]]
    return Voice(lines, asides + [""] * _SILENCES)


@cache
def read_lines(name: str) -> dict[str, Any]:
    """A file of sentences that lies in this package."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    book: dict[str, Any] = json.loads(text)
    return book


def pick(choices: list[str], rng: np.random.Generator) -> str:
    return choices[int(rng.random() * len(choices))]


def dollars(amount: int) -> str:
    return f"${amount:,}"


@cache
def slots_of(wish: Car) -> dict[str, str]:
    """What the sentences may say of the wished car. The result is shared: do not change it."""
    slots = {
        "wish": wish.name,
        "a_wish": with_article(wish.name),
        "brand": wish.brand,
        "a_brand": with_article(wish.brand),
        "type": type_noun(wish.type),
        "a_type": with_article(type_noun(wish.type)),
        "features": listed(wish.features),
    }
    capitalised = {
        f"{name}_cap": text[0].upper() + text[1:] for name, text in slots.items() if name.startswith("a_")
    }
    return slots | capitalised
