"""A car buyer played by a language model: it talks, bargains and decides; the rules say what counts.

Its view is LMRL-Gym's: "Start", the line of information about the buyer, the dialogue. Its last line
ends in "Output: Decision=Accept" or "Output: Decision=Reject", which the seller does not see. An accept
is a sale only at the price that was last named between the two, and within the budget; a price or list
price that the model states itself counts for nothing (prices are the seller's, list prices the table's).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from envs.answering import OtherSide, Request, TextModel, Turn
from envs.car_dealer.buyers import Buyer, all_buyers
from envs.car_dealer.cars import Car
from envs.car_dealer.deal import LEAST_PRICE, Decision
from envs.car_dealer.hearing import Heard, hear
from envs.car_dealer.simulator import Reply
from envs.core import Episode, State

INSTRUCTION: Final = """\
You play a customer who talks to a car dealer. The conversation begins with a line about you: your
personality, the car that you want and your budget. You do not tell more of it than you would in a shop, and
you want to pay as little as you can. Reply with the customer's next line and nothing else.
When you accept the price that was last named, end your line with: Output: Decision=Accept
When you leave for good without buying, end your line with: Output: Decision=Reject"""
MAX_TOKENS: Final = 96
_LONGEST_LINE: Final = 600
_VERDICT: Final = re.compile(r"\s*Output: Decision=(Accept|Reject)\b.*$")
_SAYS_NOTHING: Final = "..."


def split_verdict(line: str) -> tuple[str, bool | None]:
    """A buyer's line as the seller sees it, and whether its suffix accepts (None: there is no suffix).

    The suffix may go on as in the published data, " MSRP=$27,000 Buy Price=$25,500".
    """
    found = _VERDICT.search(line)
    return (line, None) if found is None else (line[: found.start()], found[1] == "Accept")


@dataclass(slots=True)
class _Talks:
    """What was said so far. Prices in dollars."""

    lines: list[str] = field(default_factory=list)
    brand: str | None = None
    type: str | None = None
    features: list[str] = field(default_factory=list)
    """Brand, type and features of the car that the seller talks about."""
    offer: int | None = None
    """The price that a deal would be made at: the seller's last, or the buyer's that the seller took."""
    counter: int | None = None
    """What the buyer last offered to pay."""
    why: str = ""


class ModelBuyer:
    """A `BuyerSimulator` whose lines are a model's."""

    def __init__(self, model: TextModel) -> None:
        self.kind = model.kind
        self._model = model

    def begin(self, buyer: Buyer) -> None:
        self._buyer = buyer
        self._talks = _Talks()

    def reply(self, line: str, rng: np.random.Generator, *, last: bool) -> Reply:
        talks, heard = self._talks, hear(line[:_LONGEST_LINE])
        self._take_in(heard)
        talks.lines.append(_one_line(line))
        prompt = "".join([opening(self._buyer), *talks.lines])
        request = Request(INSTRUCTION, prompt, MAX_TOKENS, seed=int(rng.integers(2**31)))
        text, accepts = split_verdict(" ".join(self._model.complete(request).split()))
        text = text or _SAYS_NOTHING
        prices = hear(text).prices
        talks.counter = min(prices) if prices else talks.counter
        talks.lines.append(f"{text}\n")
        return Reply(text, self._decision(accepts, last), heard.understood)

    def privileged(self) -> dict[str, Any]:
        return {**self._buyer.secrets(), "talks": self.get_state()}

    def get_state(self) -> State:
        return asdict(self._talks)

    def set_state(self, state: State) -> None:
        self._talks = _Talks(**state | {key: list(state[key]) for key in ("lines", "features")})

    def _take_in(self, heard: Heard) -> None:
        """Note what the seller talks about; of several brands, types or prices none is meant for sure."""
        talks = self._talks
        if len(heard.brands) == 1:
            (brand,) = heard.brands
            talks.features = talks.features if brand == talks.brand else []
            talks.brand = brand
        if len(heard.types) == 1:
            (kind,) = heard.types
            talks.features = talks.features if kind == talks.type else []
            talks.type = kind
        wished = self._buyer.wish.features if heard.everything else frozenset()
        talks.features = sorted((heard.features | wished | set(talks.features)) - heard.lacking)
        if len(heard.prices) == 1:
            (price,) = heard.prices
            talks.offer = price if price >= LEAST_PRICE else talks.offer
        elif heard.takes and talks.counter is not None:
            talks.offer = talks.counter

    def _decision(self, accepts: bool | None, last: bool) -> Decision | None:
        talks, wish = self._talks, self._buyer.wish
        if accepts and talks.offer is not None and talks.offer <= self._buyer.budget:
            car = Car(talks.brand or wish.brand, talks.type or wish.type, frozenset(talks.features))
            talks.why = f"accepts {talks.offer}"
            return Decision(accepted=True, msrp=car.msrp, price=talks.offer)
        if accepts:
            talks.why = f"accepts what is no deal: offer {talks.offer}, budget {self._buyer.budget}"
        if accepts is False or last:
            talks.why = "leaves" if accepts is False else f"last turn: {talks.why or 'undecided'}"
            return Decision(accepted=False, msrp=wish.msrp)
        return None


def opening(buyer: Buyer) -> str:
    """What the buyer knows before the seller speaks."""
    return f"Start\n{buyer.information}"


def turns(episode: Episode) -> Iterator[Turn]:
    """Every line of the seller with the buyer's; none for a published buyer, who is none of ours."""
    if not 0 <= episode.task_id < len(all_buyers()):
        return
    before = opening(all_buyers()[episode.task_id])
    lines = [_one_line(segment.text) for segment in episode.segments[1:]]
    for at in range(0, len(lines) - 1, 2):
        answer = lines[at + 1]
        if episode.terminated and at + 2 == len(lines):
            verdict = "Accept" if episode.success else "Reject"
            answer = f"{answer.rstrip()} Output: Decision={verdict}\n"
        yield Turn(lines[at], before + lines[at], answer)
        before = ""


def agrees(task_id: int, turn: Turn, answer: str) -> bool:
    """Whether it decides the same: to buy, to leave, to talk on (wordings are not compared)."""
    return split_verdict(answer.rstrip())[1] == split_verdict(turn.answer.rstrip())[1]


def _one_line(text: str) -> str:
    return " ".join(text[:_LONGEST_LINE].split()) + "\n"


SIDE: Final = OtherSide(
    arguments=lambda model: {"buyer": ModelBuyer(model)},
    turns=turns,
    window=None,
    agrees=agrees,
    max_tokens=MAX_TOKENS,
    greedy=False,
)
