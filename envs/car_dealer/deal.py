"""How a conversation ends, what that is worth, and the most that it can be worth.

Rewards after LMRL-Gym's car dealer, at the end only. `revenue` is the price in thousands of dollars.
`fancy` is the price over the mean of budget and list price; without a sale it is minus the share of
the list price by which the budget exceeds it. The published code pays a positive reward for losing a
buyer whose budget is *below* the list price; here that costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from envs.car_dealer.buyers import Buyer

RewardMode = Literal["fancy", "revenue"]
REWARD_MODES: Final = ("fancy", "revenue")
LEAST_PRICE: Final = 5_000
"""Dollars. Nobody sells a car for less (the cheapest lists at $10,800): it is a discount or a fee, however
it was put. Not a share of the list price, since random sellers do ask $5,000 for any car."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The buyer's last word. Prices in dollars."""

    accepted: bool
    msrp: int
    """List price of the car that was sold; of the car that was wished for when none was."""
    price: int | None = None


def reward_of(decision: Decision, budget: int, mode: RewardMode) -> float:
    """What the seller gets for a decision; an accepted deal without its prices is worth nothing."""
    price = decision.price or 0
    if mode == "revenue":
        return price / 1000 if decision.accepted else 0.0
    if not decision.msrp:
        return 0.0
    if decision.accepted:
        return price / ((budget + decision.msrp) / 2)
    return -max(0, budget - decision.msrp) / decision.msrp


def best_return(buyer: Buyer, mode: RewardMode) -> float:
    """The return of the best seller: exactly the wished car at the reservation price.

    No other car brings more. A missing feature lowers the price by 8 % and the list price by at
    most 4 %; an unwanted one lowers the price and raises the list price; the limit never exceeds
    the reservation price. Not selling brings 0 at most.
    """
    sale = Decision(accepted=True, msrp=buyer.wish.msrp, price=buyer.reservation)
    return reward_of(sale, buyer.budget, mode)
