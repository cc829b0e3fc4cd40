"""Who the seller talks to: the seam for any buyer, and the rule-based one that is used by default.

The rules, in short. A buyer pays at most a limit for the wished car, less where a feature is missing.
The limit begins well below the reservation price and rises by one step each time the seller comes
down by 1 % or more; nothing else moves it. An offer within the limit is accepted at once, at the
price offered. Turns that bring nothing new (small talk, questions asked twice, a price repeated, the
wrong car, noise) use up patience; when it is gone the buyer walks out. At the last turn the buyer
takes the standing offer if it is within the reservation price, and leaves otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from envs.car_dealer.buyers import Buyer
from envs.car_dealer.cars import Car, feature_noun, listed, round_down
from envs.car_dealer.deal import LEAST_PRICE, Decision
from envs.car_dealer.hearing import Heard, hear
from envs.car_dealer.voice import dollars, slots_of, voice_of
from envs.core import State

_LONGEST_LINE: Final = 600
"""Characters that a buyer listens to; a longer line is not understood at all."""
_ABSURD: Final = 150
"""Percent of the list price above which an offer is no basis for talks."""
_STEP_DOWN: Final = 99
"""Percent of the standing offer that a new one may be at most to count as a concession."""
_COUNTER: Final = 96
"""Percent of the limit that a counter-offer names."""
_UNDERSTATED: Final = 80
"""Percent of the budget that a buyer names who does not tell the truth about it."""


class Reply(NamedTuple):
    """A buyer's answer; with a decision it is the last one."""

    text: str
    """One line, without its newline."""
    decision: Decision | None = None
    valid: bool = True
    """Whether the seller's line was understood."""


class BuyerSimulator(Protocol):
    """Anything that can play a buyer; one instance serves one environment."""

    kind: str
    """rule, lm or api: stands in every record. The last two are asked by several threads at a time."""

    def begin(self, buyer: Buyer) -> None:
        """A new conversation, as this buyer."""

    def reply(self, line: str, rng: np.random.Generator, *, last: bool) -> Reply:
        """Answer the seller's line; when it is the `last` one, with a decision."""

    def privileged(self) -> dict[str, Any]:
        """What the seller must not see, JSON-able."""

    def get_state(self) -> State:
        """A JSON-able snapshot of the conversation."""

    def set_state(self, state: State) -> None:
        """Continue from a snapshot, after `begin` with the same buyer."""


@dataclass(slots=True)
class _Talks:
    """How far a conversation has come. Prices in dollars."""

    brand: str | None = None
    type: str | None = None
    features: list[str] = field(default_factory=list)
    """Brand, type and features of the car that is talked about."""
    told: list[str] = field(default_factory=list)
    """Topics and features that the buyer has told."""
    greeted: bool = False
    standing: int | None = None
    """The seller's lowest offer."""
    counter: int | None = None
    """What the buyer last offered to pay."""
    concessions: int = 0
    wasted: int = 0
    """Turns without progress."""
    why: str = ""
    """The reason of the latest reply."""


class _Answer(NamedTuple):
    """What to say, before it is put into words."""

    intent: str
    progress: bool
    price: int | None = None
    features: frozenset[str] = frozenset()
    misses: str | None = None
    """A feature to ask for in addition."""
    valid: bool = True


class RuleBuyer:
    """A buyer that follows rules; see the head of this file."""

    kind = "rule"

    def begin(self, buyer: Buyer) -> None:
        self._buyer = buyer
        self._talks = _Talks()
        self._table: Car | None = None
        self._slots = slots_of(buyer.wish)
        self._voice = voice_of(buyer)

    def reply(self, line: str, rng: np.random.Generator, *, last: bool) -> Reply:
        talks, patience = self._talks, self._buyer.temper.patience
        answer = self._answer(hear(line) if len(line) <= _LONGEST_LINE else Heard())
        if answer.intent != "accept":
            talks.why = answer.intent
            talks.wasted += not answer.progress
            if talks.wasted > patience:
                talks.why = f"{talks.wasted} turns without progress, patience {patience}"
                answer = answer._replace(intent="leave", misses=None)
            elif last:
                answer = self._last_word(answer.valid)
        text = self._put_into_words(answer, rng)
        return Reply(text, self._decision(answer), answer.valid)

    def privileged(self) -> dict[str, Any]:
        buyer, car = self._buyer, self._car()
        limit = buyer.limit(car or buyer.wish, self._talks.concessions)
        return {**buyer.secrets(), "limit": limit, "talks": self.get_state()}

    def get_state(self) -> State:
        return asdict(self._talks)

    def set_state(self, state: State) -> None:
        self._talks = _Talks(**state | {key: list(state[key]) for key in ("features", "told")})
        self._table = None

    def _answer(self, heard: Heard) -> _Answer:
        """What to say to a line, in order of weight: price, deal, question, car, small talk."""
        if not heard.understood:
            return _Answer("confused", progress=False, valid=False)
        if len(heard.prices) > 1 or len(heard.brands) > 1 or len(heard.types) > 1:
            return _Answer("unclear", progress=False, valid=False)
        is_new = self._look_at(heard)
        for price in heard.prices:
            return self._consider(price)
        if heard.takes:
            return self._hold_to(self._talks.counter)
        if heard.asked_features:
            wanted = heard.asked_features & self._buyer.wish.features
            progress = self._tell(*heard.asked_features)
            return _Answer("yes_feature" if wanted else "no_feature", progress, features=wanted)
        if heard.topics:
            return self._answer_topics(heard.topics)
        if heard.names_car:
            return self._judge_car(is_new)
        first, self._talks.greeted = not self._talks.greeted, True
        return _Answer("hello" if first else "chat", progress=first)

    def _look_at(self, heard: Heard) -> bool:
        """Put what was named on the table. Returns whether something wished for is new there."""
        talks, wish = self._talks, self._buyer.wish
        if not heard.names_car:
            return False
        self._table = None
        before = (talks.brand, talks.type, len(wish.features.intersection(talks.features)))
        for brand in heard.brands:
            talks.brand, talks.features = brand, talks.features if talks.brand == brand else []
        for kind in heard.types:
            talks.type, talks.features = kind, talks.features if talks.type == kind else []
        features = heard.features | set(talks.features)
        if heard.everything:
            features |= wish.features.intersection(talks.told)
        talks.features = sorted(features - heard.lacking)
        after = (talks.brand, talks.type, len(wish.features.intersection(talks.features)))
        return (
            (before[0] != after[0] == wish.brand)
            or (before[1] != after[1] == wish.type)
            or before[2] < after[2]
        )

    def _car(self) -> Car | None:
        """The car on the table, built once for as long as it stays the same."""
        talks = self._talks
        if self._table is None and talks.brand is not None and talks.type is not None:
            self._table = Car(talks.brand, talks.type, frozenset(talks.features))
            self._fit = self._buyer.fit(self._table)
            self._missing = self._buyer.wish.features - self._table.features
        return self._table

    def _consider(self, price: int) -> _Answer:
        """Answer the offer of the car on the table at a price."""
        talks, car = self._talks, self._car()
        if car is None:
            return _Answer("which_car", progress=False)
        limit = self._buyer.limit_at(self._fit, talks.concessions)
        if not limit:
            self._tell("brand", "type")
            return _Answer("wrong_car", progress=False)
        if price < LEAST_PRICE and price != talks.counter:  # its own counter-offer it does understand
            return _Answer("unclear", progress=False, valid=False)
        if price > limit and price * 100 > car.msrp * _ABSURD:
            return _Answer("absurd", progress=False)
        conceded = talks.standing is not None and price * 100 <= talks.standing * _STEP_DOWN
        if price > limit and conceded:
            talks.concessions += 1
            limit = self._buyer.limit_at(self._fit, talks.concessions)
        if price <= limit:
            talks.why = f"{price} <= limit {limit} after {talks.concessions} concessions"
            return _Answer("accept", progress=True, price=price)
        if talks.standing is not None and not conceded:
            return _Answer("unmoved", progress=False)
        talks.standing = price
        return self._bargain(limit)

    def _bargain(self, limit: int) -> _Answer:
        """Refuse a price, and ask for a feature that nobody has spoken of yet."""
        talks, temper = self._talks, self._buyer.temper
        misses = min(self._missing.difference(talks.told), default=None) if self._missing else None
        if misses:
            self._tell(misses)
        if not temper.names_prices:
            return _Answer("too_high", progress=True, misses=misses)
        talks.counter = round_down(limit * _COUNTER // 100)
        return _Answer("counter", progress=True, price=talks.counter, misses=misses)

    def _hold_to(self, counter: int | None) -> _Answer:
        """The seller takes the buyer's own offer, if there is one (and the car is still worth it)."""
        car = self._car()
        if counter is None or car is None:
            return _Answer("no_price", progress=False)
        return self._consider(counter)

    def _answer_topics(self, topics: frozenset[str]) -> _Answer:
        talks = self._talks
        if "budget" in topics or ("offer" in topics and talks.standing is None):
            return self._answer_budget()
        if "offer" in topics:
            known = talks.counter is not None
            return _Answer("counter" if known else "too_high", progress=False, price=talks.counter)
        if "features" in topics:
            wanted = self._buyer.wish.features
            return _Answer("tell_features", self._tell("features", *wanted), features=wanted)
        if len(topics & {"brand", "type"}) == 1:
            topic = "brand" if "brand" in topics else "type"
            return _Answer(f"tell_{topic}", self._tell(topic))
        return _Answer("tell_wish", self._tell("brand", "type"))

    def _answer_budget(self) -> _Answer:
        progress, candour = self._tell("budget"), self._buyer.temper.candour
        if candour == "closed":
            return _Answer("hide_budget", progress)
        percent = 100 if candour == "open" else _UNDERSTATED
        return _Answer("tell_budget", progress, price=round_down(self._buyer.budget * percent // 100))

    def _judge_car(self, is_new: bool) -> _Answer:
        """Answer a car that is shown without a price."""
        talks, wish = self._talks, self._buyer.wish
        if talks.brand not in (None, wish.brand) or talks.type not in (None, wish.type):
            return _Answer("wrong_car", self._tell("brand", "type"))
        if talks.brand is None:
            return _Answer("tell_brand", self._tell("brand") or is_new)
        if talks.type is None:
            return _Answer("tell_type", self._tell("type") or is_new)
        return _Answer("ask_price", is_new)

    def _tell(self, *topics: str) -> bool:
        """Note what is told; a brand or a type that is told is what the talk is about.

        Returns whether any of it is new to the seller.
        """
        talks, wish = self._talks, self._buyer.wish
        news = [topic for topic in topics if topic not in talks.told]
        talks.told += sorted(news)
        if "brand" in news:
            talks.brand, self._table = talks.brand or wish.brand, None
        if "type" in news:
            talks.type, self._table = talks.type or wish.type, None
        return bool(news)

    def _last_word(self, valid: bool) -> _Answer:
        talks, car = self._talks, self._car()
        most = self._buyer.limit(car, self._buyer.temper.rounds) if car else 0
        if talks.standing is not None and talks.standing <= most:
            talks.why = f"last turn: standing offer {talks.standing} <= {most}"
            return _Answer("accept", progress=True, price=talks.standing, valid=valid)
        talks.why = f"last turn: no standing offer within {most}"
        return _Answer("leave", progress=False, valid=valid)

    def _decision(self, answer: _Answer) -> Decision | None:
        if answer.intent == "leave":
            return Decision(accepted=False, msrp=self._buyer.wish.msrp)
        if answer.intent != "accept" or (car := self._car()) is None:
            return None
        return Decision(accepted=True, msrp=car.msrp, price=answer.price)

    def _put_into_words(self, answer: _Answer, rng: np.random.Generator) -> str:
        slots, voice = self._slots, self._voice
        if answer.price is not None:
            slots = {**slots, "price": dollars(answer.price)}
        if answer.features:
            slots = {**slots, "features": listed(answer.features)}
        text = voice.say(answer.intent, slots, rng)
        if answer.misses is not None:
            slots = {"feature": answer.misses, "a_feature": feature_noun(answer.misses)}
            text = f"{text} {voice.say('missing', slots, rng)}"
        return text
