"""The buyers: 1,000 people with a wish, a budget and a temper, drawn once and for all.

Personality, brand, type, features and budget are drawn as in LMRL-Gym (uniform, one to four
features), except that a buyer is drawn again whose budget is out of all proportion to the list price
of the wished car, and that each budget occurs equally often. How far a buyer goes, and how long it
takes, follow from the record: they are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final, Literal

import numpy as np

from envs.car_dealer.cars import BRANDS, FEATURES, TYPES, Car, round_down, with_article

BUDGETS: Final = (10_000, 30_000, 50_000, 70_000, 90_000)
NUM_BUYERS: Final = 1000
NUM_TRAIN: Final = 800
"""Buyers 0 ... 799 are for training; the others are held out, and speak held-out sentences."""
_SEED: Final = 20_311
_PLAUSIBLE_BUDGET: Final = (65, 135)
"""Percent of the wished car's list price."""
_KEENNESS: Final = (90, 110)
_MISSING_FEATURE: Final = 8
_UNWANTED_FEATURE: Final = 2


@dataclass(frozen=True, slots=True)
class Temper:
    """How someone of a personality bargains."""

    opening: int
    """Percent of the reservation price that is the limit before the seller has come down at all."""
    rounds: int
    """Concessions by the seller after which the limit is the reservation price itself."""
    patience: int
    """Turns without progress that are borne; one more, and the buyer walks out."""
    candour: Literal["open", "low", "closed"]
    """Asked for the budget: tells it, names 80 % of it, or refuses."""
    names_prices: bool = True
    """Answers an offer with a counter-offer."""


PERSONALITIES: Final = {
    "abusive": Temper(opening=70, rounds=10, patience=2, candour="closed"),
    "angry": Temper(opening=80, rounds=7, patience=2, candour="low"),
    "insulting": Temper(opening=72, rounds=9, patience=3, candour="low"),
    "polite": Temper(opening=85, rounds=6, patience=5, candour="open"),
    "respectful": Temper(opening=85, rounds=6, patience=5, candour="open"),
    "rude": Temper(opening=75, rounds=9, patience=3, candour="low"),
    "sarcastic": Temper(opening=78, rounds=8, patience=4, candour="low"),
    "talkative": Temper(opening=82, rounds=7, patience=6, candour="open"),
    "toxic": Temper(opening=70, rounds=10, patience=2, candour="closed"),
    "uncommunicative": Temper(80, rounds=7, patience=3, candour="closed", names_prices=False),
}


@dataclass(frozen=True)
class Buyer:
    """One buyer's record: what LMRL-Gym draws, and how keen the buyer is on the wished car."""

    personality: str
    wish: Car
    budget: int
    keenness: int
    """Percent of the list price that the wished car is worth to the buyer."""
    held_out: bool = False

    @cached_property
    def temper(self) -> Temper:
        return PERSONALITIES[self.personality]

    @cached_property
    def reservation(self) -> int:
        """Dollars above which the wished car is never bought; at most the budget."""
        return round_down(min(self.budget, self.wish.msrp * self.keenness // 100))

    def limit(self, car: Car, concessions: int) -> int:
        """The most that is paid for `car` after so many concessions; 0 for a car not wanted.

        Rises with `concessions` from the opening to the reservation price. A wished feature that is
        not there costs 8 % of it, one that nobody asked for 2 %.
        """
        return self.limit_at(self.fit(car), concessions)

    def limit_at(self, fit: int, concessions: int) -> int:
        """`limit` of a car with that `fit`."""
        temper = self.temper
        done = min(concessions, temper.rounds)
        progress = temper.opening * temper.rounds + (100 - temper.opening) * done
        return round_down(self.reservation * progress * fit // (10_000 * temper.rounds))

    def fit(self, car: Car) -> int:
        """Percent of the wished car's worth that `car` has; 0 for another brand or type."""
        if car.brand != self.wish.brand or car.type != self.wish.type:
            return 0
        right = len(self.wish.features & car.features)
        missing, unwanted = len(self.wish.features) - right, len(car.features) - right
        return 100 - _MISSING_FEATURE * missing - _UNWANTED_FEATURE * unwanted

    def secrets(self) -> dict[str, Any]:
        """The record as plain values: for experts and critics, not for the seller."""
        return {
            "buyer": self.information,
            "brand": self.wish.brand,
            "type": self.wish.type,
            "features": [name for name in FEATURES if name in self.wish.features],
            "budget": self.budget,
            "msrp": self.wish.msrp,
            "reservation": self.reservation,
            "rounds": self.temper.rounds,
            "patience": self.temper.patience,
        }

    @property
    def information(self) -> str:
        """The line that a language model playing this buyer is given, in the published format."""
        features = ", ".join(feature for feature in FEATURES if feature in self.wish.features)
        wish = with_article(f"{self.wish.brand} {self.wish.type}")
        return f"Personality: {self.personality}. Prefers {wish} with {features}. Budget: ${self.budget:,}\n"


@lru_cache(maxsize=1)
def all_buyers() -> tuple[Buyer, ...]:
    """The `NUM_BUYERS` buyers, the same ones on every machine; no record occurs twice."""
    rng = np.random.default_rng(_SEED)
    buyers: dict[str, Buyer] = {}
    while len(buyers) < NUM_BUYERS:
        number = len(buyers)
        buyer = _draw_buyer(rng, BUDGETS[number % len(BUDGETS)], held_out=number >= NUM_TRAIN)
        buyers.setdefault(buyer.information, buyer)
    return tuple(buyers.values())


def _draw_buyer(rng: np.random.Generator, budget: int, held_out: bool) -> Buyer:
    personality = list(PERSONALITIES)[int(rng.random() * len(PERSONALITIES))]
    keenness = _KEENNESS[0] + int(rng.random() * (_KEENNESS[1] - _KEENNESS[0] + 1))
    low, high = _PLAUSIBLE_BUDGET
    while True:
        wish = _draw_car(rng)
        if low * wish.msrp <= 100 * budget <= high * wish.msrp:
            return Buyer(personality, wish, budget, keenness, held_out)


def _draw_car(rng: np.random.Generator) -> Car:
    brand = list(BRANDS)[int(rng.random() * len(BRANDS))]
    kind = list(TYPES)[int(rng.random() * len(TYPES))]
    count = 1 + int(rng.random() * 4)
    order = np.argsort(rng.random(len(FEATURES)))
    names = list(FEATURES)
    return Car(brand, kind, frozenset(names[int(i)] for i in order[:count]))
