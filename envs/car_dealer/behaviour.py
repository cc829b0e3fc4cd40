"""Scripted sellers: random, the mixed-skill one that makes the data set, and the best there can be.

The behaviour policy sees no more than a learner does. Each episode draws a skill: how much it asks,
how high it begins, how fast it comes down, how far, and how often it stalls. The mixture is chosen so
that the data have the success rate, length and spread of LMRL-Gym's table 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from envs.car_dealer.cars import (
    BRANDS,
    FEATURES,
    TYPES,
    Car,
    feature_noun,
    listed,
    round_down,
    with_article,
)
from envs.car_dealer.hearing import hear
from envs.car_dealer.voice import dollars, pick, read_lines
from envs.core import ScriptedPolicy, TextEnv

_SHORT_PRICE_RATE: Final = 0.15
"""How often a price is said as "$32.5k"."""


class _Seller(ScriptedPolicy):
    """Puts what a seller wants to say into words."""

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._lines: dict[str, list[str]] = read_lines("seller_lines.json")

    def _say(self, intent: str, **slots: Any) -> str:
        return pick(self._lines[intent], self.rng).format_map(slots)

    def _say_price(self, intent: str, price: int) -> str:
        short = price % 100 == 0 and self.rng.random() < _SHORT_PRICE_RATE
        return self._say(intent, price=f"${price / 1000:g}k" if short else dollars(price))

    def _show(self, car: Car) -> str:
        return self._say("pitch", a_car=with_article(car.name), features=listed(car.features))

    def _some_car(self) -> Car:
        features = frozenset({self._one_of(FEATURES), self._one_of(FEATURES)})
        return Car(self._one_of(BRANDS), self._one_of(TYPES), features)

    def _one_of(self, names: dict[str, int]) -> str:
        return pick(list(names), self.rng)

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()


class RandomSeller(_Seller):
    """Says anything that a seller might say, about any car and at any price."""

    name = "random"

    def act(self, observation: str) -> str:
        car = self._some_car()
        intent = pick(list(self._lines), self.rng)
        if intent == "pitch":
            return f"{self._show(car)}\n"
        price = round_down(int(self._between(5_000, 100_000)))
        feature = feature_noun(self._one_of(FEATURES))
        return f"{self._say(intent, price=dollars(price), feature=feature)}\n"


class _Range(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Skill:
    """How well a seller bargains. Prices are fractions of the car's list price."""

    asks: float
    """Probability of asking for each of wish, features and budget."""
    details: int
    """Most features that it asks about one by one."""
    stalls: float
    """Probability of small talk instead of a lower price."""
    first: _Range
    """The first price."""
    step: _Range
    """The fraction by which it comes down each time."""
    floor: _Range
    """The price below which it does not go."""
    yields: float
    """Probability, at each counter-offer that is near, of taking it."""


_NOVICE: Final = _Skill(
    asks=0.85,
    details=4,
    stalls=0.14,
    first=_Range(0.8, 1.2),
    step=_Range(0.015, 0.035),
    floor=_Range(0.7, 1.0),
    yields=0.35,
)
_AVERAGE: Final = _Skill(
    asks=0.9,
    details=3,
    stalls=0.11,
    first=_Range(1.0, 1.25),
    step=_Range(0.02, 0.04),
    floor=_Range(0.7, 1.0),
    yields=0.25,
)
_SKILLED: Final = _Skill(
    asks=1.0,
    details=3,
    stalls=0.03,
    first=_Range(1.1, 1.3),
    step=_Range(0.025, 0.035),
    floor=_Range(0.65, 0.95),
    yields=0.1,
)
_NEAR: Final = 0.93
"""A counter-offer of this fraction of the own price is near."""


def _draw_skill(rng: np.random.Generator) -> _Skill:
    """Two episodes in five are a novice's, as many an average seller's, the fifth a skilled one's."""
    point = rng.random()
    return _NOVICE if point < 0.4 else _AVERAGE if point < 0.8 else _SKILLED


class BehaviourSeller(_Seller):
    """A seller of a skill drawn for each episode, who listens to what the buyer says."""

    name = "behaviour"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        self._skill = _draw_skill(rng)
        self._brand: str | None = None
        self._type: str | None = None
        self._features: set[str] = set()
        self._unasked = [list(FEATURES)[int(i)] for i in rng.permutation(len(FEATURES))]
        self._counter: int | None = None
        self._price: int | None = None
        self._shown: Car | None = None
        self._agenda = self._plan()

    def _plan(self) -> list[str]:
        """What to say before the first price, in order."""
        wish = ["ask_wish"] if self.rng.random() < 0.6 else ["ask_brand", "ask_type"]
        questions = [*wish, "ask_features", "ask_budget"]
        asked = [question for question in questions if self.rng.random() < self._skill.asks]
        single = ["ask_feature"] * int(self._between(0, self._skill.details + 1))
        return ["greet", *asked, *single, "pitch"]

    def act(self, observation: str) -> str:
        self._listen(observation)
        intent = self._agenda.pop(0) if self._agenda else "bargain"
        if intent == "pitch" or (intent == "bargain" and self._shown != self._car()):
            self._shown = self._car()
            return f"{self._show(self._shown)}\n"
        if intent == "bargain":
            return f"{self._bargain()}\n"
        if intent != "ask_feature":
            return f"{self._say(intent)}\n"
        return f"{self._say(intent, feature=feature_noun(self._next_feature()))}\n"

    def _next_feature(self) -> str:
        """A feature that it has not asked about, and the buyer has not mentioned if possible."""
        self._unasked.sort(key=self._features.__contains__)
        return self._unasked.pop(0)

    def _listen(self, observation: str) -> None:
        heard = hear(observation)
        self._brand = min(heard.brands, default=self._brand)  # of several the same one in every process
        self._type = min(heard.types, default=self._type)
        self._features |= heard.features | heard.asked_features | heard.lacking
        if self._price is not None:
            self._counter = max(heard.prices, default=self._counter)

    def _car(self) -> Car:
        """The car that it believes is wanted; guesses what it was not told."""
        guess = self._some_car()
        self._brand = self._brand or guess.brand
        self._type = self._type or guess.type
        self._features = self._features or set(guess.features)
        return Car(self._brand, self._type, frozenset(self._features))

    def _bargain(self) -> str:
        skill, msrp = self._skill, self._car().msrp
        if self._price is None:
            self._floor = round_down(int(msrp * self._between(*skill.floor)))
            self._price = round_down(int(msrp * self._between(*skill.first)))
            return self._say_price("offer", self._price)
        if self.rng.random() < skill.stalls:
            return self._say("chat")
        near = self._counter is not None and self._counter >= _NEAR * self._price
        if near and self.rng.random() < skill.yields:
            return self._say("take")
        lower = round_down(int(self._price * (1 - self._between(*skill.step))))
        if lower < self._floor:
            return self._say_price("insist", self._price)
        self._price = lower
        return self._say_price("lower" if self.rng.random() < 0.7 else "meet", lower)


class BestSeller(_Seller):
    """Knows the buyer: shows the wished car at once, and comes down to the last dollar it is worth."""

    name = "expert"

    def begin(self, env: TextEnv, observation: str, rng: np.random.Generator) -> None:
        super().begin(env, observation, rng)
        secrets = env.privileged()
        self._wish = Car(secrets["brand"], secrets["type"], frozenset(secrets["features"]))
        self._opening = True
        self._prices = [secrets["reservation"]]
        for _ in range(secrets["rounds"]):
            self._prices.append(self._prices[-1] * 100 // 99 + 1)

    def act(self, observation: str) -> str:
        self._before = (self._opening, list(self._prices))
        price = dollars(self._prices.pop() if len(self._prices) > 1 else self._prices[0])
        if self._opening:
            self._opening = False
            return f"{self._show(self._wish)} {self._say('offer', price=price)}\n"
        return f"{self._say('lower', price=price)}\n"

    def played(self, action: str) -> None:
        self._opening, prices = self._before
        offer = min(hear(action).prices, default=prices[-1] * 2)
        self._prices = [price for price in prices if price * 100 <= offer * 99] or prices[:1]
