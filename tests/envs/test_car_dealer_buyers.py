"""Car dealer: who comes to buy, what a car is worth to them, and what a sale is worth."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.car_dealer.buyers import BUDGETS, NUM_BUYERS, NUM_TRAIN, PERSONALITIES, all_buyers
from envs.car_dealer.cars import BRANDS, FEATURES, TYPES, Car
from envs.car_dealer.deal import Decision, reward_of

BUYER_IDS = st.integers(0, NUM_BUYERS - 1)


def test_the_buyers_are_the_same_everywhere():
    lines = "".join(b.information + f"{b.keenness}\n" for b in all_buyers())
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == "dfcd52eeb6b0f321"


def test_the_information_line_has_the_published_form():
    pattern = r"Personality: \w+\. Prefers an? [\w-]+ \w+ with [\w ,-]+\. Budget: \$\d\d,000\n"
    assert all(re.fullmatch(pattern, buyer.information) for buyer in all_buyers())


def test_every_kind_of_buyer_occurs_in_both_splits():
    for buyers in (all_buyers()[:NUM_TRAIN], all_buyers()[NUM_TRAIN:]):
        assert {b.personality for b in buyers} == set(PERSONALITIES)
        assert {b.wish.brand for b in buyers} == set(BRANDS)
        assert {b.wish.type for b in buyers} == set(TYPES)
        assert {b.budget for b in buyers} == set(BUDGETS)
        assert {len(b.wish.features) for b in buyers} == {1, 2, 3, 4}


def test_nobody_is_in_both_splits():
    train = {b.information for b in all_buyers()[:NUM_TRAIN]}
    held_out = {b.information for b in all_buyers()[NUM_TRAIN:]}
    assert not train & held_out


@given(BUYER_IDS, st.sets(st.sampled_from(list(FEATURES))), st.integers(0, 12))
def test_the_limit_rises_with_concessions_up_to_the_reservation_price(task_id, features, count):
    buyer = all_buyers()[task_id]
    car = Car(buyer.wish.brand, buyer.wish.type, frozenset(features))
    limits = [buyer.limit(car, n) for n in range(count + 1)]
    assert limits == sorted(limits)
    assert limits[-1] <= buyer.reservation <= buyer.budget
    assert buyer.limit(buyer.wish, buyer.temper.rounds) == buyer.reservation


def test_a_car_of_another_brand_or_type_is_worth_nothing():
    buyer = all_buyers()[0]
    brand = next(name for name in BRANDS if name != buyer.wish.brand)
    assert buyer.limit(Car(brand, buyer.wish.type, buyer.wish.features), 99) == 0


def test_fancy_is_the_price_over_the_mean_of_budget_and_list_price():
    sold = Decision(accepted=True, msrp=20_000, price=18_000)
    assert reward_of(sold, 30_000, "fancy") == pytest.approx(18 / 25)
    assert reward_of(sold, 30_000, "revenue") == pytest.approx(18.0)


def test_losing_a_buyer_costs_what_the_budget_had_to_spare():
    lost = Decision(accepted=False, msrp=20_000)
    assert reward_of(lost, 30_000, "fancy") == pytest.approx(-0.5)
    assert reward_of(lost, 30_000, "revenue") == 0.0


def test_losing_a_buyer_is_never_rewarded():
    assert reward_of(Decision(accepted=False, msrp=60_000), 30_000, "fancy") == 0.0


def test_a_deal_without_its_prices_is_worth_nothing():
    assert reward_of(Decision(accepted=True, msrp=20_000), 30_000, "fancy") == 0.0
    assert reward_of(Decision(accepted=True, msrp=0, price=9), 30_000, "fancy") == 0.0
