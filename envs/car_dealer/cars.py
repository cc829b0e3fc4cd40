"""The cars: brands, types, features, and what each lists for (MSRP).

Brands, types and features are those of LMRL-Gym's car dealer. Its MSRPs were made up by a language
model during each conversation; ours come from a small price table, so that a car has one price.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

BRANDS: Final = {
    "Volkswagen": 80,
    "Lexus": 130,
    "Ford": 70,
    "Mazda": 65,
    "Hyundai": 60,
    "Toyota": 75,
    "Mercedes-Benz": 160,
    "BMW": 150,
    "Audi": 140,
    "Subaru": 80,
    "Honda": 75,
    "Porsche": 200,
    "Tesla": 150,
}
"""Price level of a brand, in percent."""

TYPES: Final = {
    "luxury": 44_000,
    "sedan": 18_000,
    "convertible": 36_000,
    "truck": 27_000,
    "electric": 35_000,
    "SUV": 25_000,
}
"""Dollars for a car of the type from a brand of level 100, without features."""

FEATURES: Final = {
    "backup camera": 1,
    "navigation system": 2,
    "heated seats": 2,
    "leather seats": 4,
    "third-row seating": 4,
    "blind spot monitoring": 2,
    "sunroof": 3,
    "Apple CarPlay": 2,
}
"""Percent that a feature adds to the price."""

_COUNTED_FEATURES: Final = ("backup camera", "navigation system", "sunroof")
_SAID_WITH_AN: Final = ("Audi", "electric", "SUV")

PRICE_STEP: Final = 100
"""Dollars to which list prices and buyers' limits are rounded down."""


@dataclass(frozen=True)
class Car:
    """A car that someone wants or offers."""

    brand: str
    type: str
    features: frozenset[str]

    @cached_property
    def msrp(self) -> int:
        """List price in dollars, a multiple of `PRICE_STEP`."""
        percent = 100 + sum(FEATURES[feature] for feature in self.features)
        return round_down(TYPES[self.type] * BRANDS[self.brand] * percent // 10_000)

    @property
    def name(self) -> str:
        """Brand and type as one says them: "Lexus sedan", "Tesla electric car"."""
        return f"{self.brand} {type_noun(self.type)}"


def type_noun(kind: str) -> str:
    return f"{kind} car" if kind in ("luxury", "electric") else kind


def with_article(name: str) -> str:
    """ "a Lexus sedan", "an electric car"; `name` begins with a brand or a type."""
    return f"{'an' if name.startswith(_SAID_WITH_AN) else 'a'} {name}"


def listed(features: Iterable[str]) -> str:
    """ "heated seats, a sunroof and Apple CarPlay", in the order of `FEATURES`."""
    wanted = set(features)
    names = [feature_noun(feature) for feature in FEATURES if feature in wanted]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def feature_noun(feature: str) -> str:
    """ "a sunroof", "heated seats"."""
    return f"a {feature}" if feature in _COUNTED_FEATURES else feature


def round_down(dollars: int) -> int:
    return dollars // PRICE_STEP * PRICE_STEP
