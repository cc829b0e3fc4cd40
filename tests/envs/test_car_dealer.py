"""Car dealer: what the buyer answers, when it pays what, and what cannot be had by cheating."""

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.car_dealer import CAR_DEALER
from envs.car_dealer.answering import ModelBuyer
from envs.car_dealer.behaviour import BehaviourSeller, BestSeller, RandomSeller
from envs.car_dealer.buyers import (
    NUM_BUYERS,
    NUM_TRAIN,
    PERSONALITIES,
    all_buyers,
)
from envs.car_dealer.cars import BRANDS, FEATURES, TYPES, Car, listed, with_article
from envs.car_dealer.deal import LEAST_PRICE, Decision, best_return, reward_of
from envs.car_dealer.env import MAX_TURNS, CarDealer
from envs.car_dealer.hearing import hear
from envs.car_dealer.simulator import Reply
from envs.car_dealer.voice import read_lines
from envs.conformance import check_env
from envs.core import ScriptedPolicy, play_episode

PATIENT = next(i for i, b in enumerate(all_buyers()) if b.personality == "talkative")
BUYER_IDS = st.integers(0, NUM_BUYERS - 1)
PRICES = st.integers(1_000, 150_000)


def start(task_id=PATIENT, seed=0, **kwargs):
    env = CarDealer(**kwargs)
    env.reset(seed=seed, options={"task_id": task_id})
    return env, all_buyers()[task_id]


def offer(car, price):
    return f"I have {with_article(car.name)} with {listed(car.features)} for ${price:,}.\n"


def say(env, *lines):
    """Play the lines up to the end of the episode; the last exchange."""
    for line in lines:
        result = env.step(line)
        if result[2]:
            break
    return result


def sell(env, car, prices):
    """Show the car at the first price and come down to the others."""
    first, *rest = prices
    return say(env, offer(car, first), *(f"What about ${price:,}?\n" for price in rest))


def concessions_to(price, count):
    """Prices that come down to `price` in `count` steps of 1 %."""
    prices = [price]
    for _ in range(count):
        prices.append(prices[-1] * 100 // 99 + 1)
    return prices[::-1]


# --- conformance -------------------------------------------------------------------------------


def test_it_is_a_conforming_task():
    check_env("car-dealer")


def test_the_other_arguments_conform_too():
    check_env("car-dealer", reward="revenue", split="held-out")


@pytest.mark.parametrize("argument", [{"reward": "fanciest"}, {"split": "test"}])
def test_an_unknown_argument_is_refused_with_the_known_ones(argument):
    with pytest.raises(ValueError, match=r"(fancy, revenue|train, held-out)"):
        CarDealer(**argument)


# --- the buyer's answers -----------------------------------------------------------------------


def test_questions_are_answered_with_the_wish():
    env, buyer = start()
    answer = say(env, "Which brand do you prefer?\n")[0]
    assert hear(answer).brands == {buyer.wish.brand}
    assert hear(say(env, "What type of car?\n")[0]).types == {buyer.wish.type}
    heard = hear(say(env, "Which features matter to you?\n")[0])
    assert heard.features | heard.lacking == buyer.wish.features


def test_only_an_open_buyer_tells_the_true_budget():
    for task_id, buyer in enumerate(all_buyers()[:100]):
        env, _ = start(task_id)
        told = re.findall(r"\$([\d,]+)", say(env, "What is your budget?\n")[0])
        share = {"open": 1.0, "low": 0.8, "closed": None}[buyer.temper.candour]
        assert told == ([] if share is None else [f"{int(buyer.budget * share):,}"])


def test_a_single_feature_is_confirmed_or_declined():
    env, buyer = start()
    wanted = min(buyer.wish.features)
    other = min(set(FEATURES) - buyer.wish.features)
    assert wanted in say(env, f"Would you like {wanted}?\n")[0]
    assert other not in say(env, f"Would you like {other}?\n")[0]


def test_a_wrong_car_is_corrected_and_never_bought():
    env, buyer = start()
    brand = next(name for name in BRANDS if name != buyer.wish.brand)
    car = Car(brand, buyer.wish.type, buyer.wish.features)
    answer, _, terminated, *_ = say(env, offer(car, 1_000))
    assert buyer.wish.name in answer
    assert not terminated


def test_a_price_without_a_car_is_no_offer():
    env, _ = start()
    assert not say(env, "How about $1,000?\n")[2]


def test_an_offer_with_a_wished_feature_missing_is_answered_by_asking_for_it():
    task_id = next(i for i, b in enumerate(all_buyers()) if len(b.wish.features) == 4)
    env, buyer = start(task_id)
    shown = frozenset(sorted(buyer.wish.features)[1:])
    answer, *_ = say(env, offer(Car(buyer.wish.brand, buyer.wish.type, shown), buyer.wish.msrp))
    assert min(buyer.wish.features) in answer


def test_an_offer_within_the_limit_is_accepted_at_the_price_offered():
    env, buyer = start()
    price = buyer.limit(buyer.wish, 0)
    text, reward, terminated, truncated, info = sell(env, buyer.wish, [price])
    assert (terminated, truncated, info["success"]) == (True, False, True)
    assert f"${price:,}" in text
    assert reward == pytest.approx(price / ((buyer.budget + buyer.wish.msrp) / 2))


def test_an_offer_a_dollar_above_the_limit_is_not_accepted():
    env, buyer = start()
    assert not sell(env, buyer.wish, [buyer.limit(buyer.wish, 0) + 1])[2]


CHANGES = [
    "All right, I can lower it by $1,500.\n",
    "I'll come down by $2,000.\n",
    "The down payment is $5,000.\n",
    "I can do it $6,000 under MSRP.\n",
    "Let me throw in mats worth $1,000.\n",
    "$3,000 is what the extras come to.\n",
]


@pytest.mark.parametrize("line", CHANGES)
def test_a_car_is_never_sold_for_the_amount_of_a_discount_or_a_fee(line):
    env, buyer = start()
    sell(env, buyer.wish, [buyer.reservation * 5 // 4])
    before = env.privileged()["talks"]
    assert not say(env, line)[2]
    after = env.privileged()["talks"]
    assert (after["standing"], after["concessions"]) == (before["standing"], before["concessions"])


@pytest.mark.parametrize("line", ["Add $2,000 and it's yours.\n", "It's yours for $1,500 less.\n"])
def test_a_condition_does_not_take_the_counter_offer(line):
    env, buyer = start()
    sell(env, buyer.wish, [buyer.reservation])
    assert env.privileged()["talks"]["counter"]
    assert not say(env, line)[2]


def test_a_polite_refusal_does_not_take_the_counter_offer():
    env, buyer = start()
    sell(env, buyer.wish, [buyer.reservation])
    _, _, terminated, _, info = say(env, "I'm sorry, but I'm not able to accept that offer.\n")
    assert (terminated, info["valid"]) == (False, True)


def test_an_amount_that_no_car_costs_is_not_taken_for_a_price_however_it_is_put():
    env, buyer = start()
    _, _, terminated, _, info = say(env, offer(buyer.wish, LEAST_PRICE - 1))
    assert (terminated, info["valid"]) == (False, False)
    assert say(env, f"How about ${LEAST_PRICE:,}?\n")[2]


def test_holding_out_pays():
    env, buyer = start()
    prices = concessions_to(buyer.reservation, buyer.temper.rounds)
    assert prices[-1] > buyer.limit(buyer.wish, 0)
    *_, info = sell(env, buyer.wish, prices)
    assert info["success"]


def test_counter_offers_rise_and_can_be_taken():
    env, buyer = start()
    counters = []
    for price in concessions_to(buyer.reservation, 4):
        counters += hear(sell(env, buyer.wish, [price])[0]).prices
    assert counters == sorted(counters)
    assert len(set(counters)) > 1
    text, reward, *_, info = say(env, "It's a deal.\n")
    assert info["success"]
    assert f"${counters[-1]:,}" in text
    assert reward > 0


def test_an_uncommunicative_buyer_names_no_price():
    task_id = next(i for i, b in enumerate(all_buyers()) if b.personality == "uncommunicative")
    env, buyer = start(task_id)
    assert "$" not in sell(env, buyer.wish, [buyer.reservation + 1])[0]


def test_taking_an_offer_that_was_never_made_sells_nothing():
    env, _ = start()
    assert not say(env, "Deal!\n", "I accept.\n", "Sold!\n")[2]


def test_turns_without_progress_use_up_patience():
    for task_id in range(20):
        env, buyer = start(task_id)
        turns = 0
        terminated = False
        while not terminated:
            _, reward, terminated, _, info = env.step("%%%\n")
            turns += 1
        assert turns == buyer.temper.patience + 1
        assert not info["success"]
        assert reward <= 0


def test_at_the_last_turn_a_standing_offer_within_the_reservation_price_is_taken():
    env, buyer = start()
    sell(env, buyer.wish, [buyer.reservation])
    env._turn = MAX_TURNS - 1
    text, _, terminated, truncated, info = say(env, "Nice weather today.\n")
    assert (terminated, truncated, info["success"]) == (True, False, True)
    assert f"${buyer.reservation:,}" in text


@pytest.mark.parametrize("opening", ["Hello!\n", "expensive"])
def test_at_the_last_turn_the_buyer_leaves_without_such_an_offer(opening):
    env, buyer = start()
    say(env, offer(buyer.wish, buyer.reservation + 1) if opening == "expensive" else opening)
    env._turn = MAX_TURNS - 1
    _, reward, terminated, truncated, info = say(env, "Nice weather today.\n")
    assert (terminated, truncated, info["success"]) == (True, False, False)
    assert reward <= 0


def test_every_decision_is_explained_to_those_who_may_know():
    env, buyer = start()
    price = buyer.limit(buyer.wish, 0)
    sell(env, buyer.wish, [price])
    assert env.privileged()["talks"]["why"] == f"{price} <= limit {price} after 0 concessions"
    assert env.privileged()["buyer"] == buyer.information


# --- the best seller ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fancy", "revenue"])
def test_the_best_return_is_the_best_over_all_cars(mode):
    subsets = [frozenset(c) for k in range(9) for c in combinations(FEATURES, k)]
    for buyer in all_buyers()[::50]:
        cars = [Car(buyer.wish.brand, buyer.wish.type, features) for features in subsets]
        sales = [Decision(True, car.msrp, buyer.limit(car, buyer.temper.rounds)) for car in cars]
        best = max(reward_of(sale, buyer.budget, mode) for sale in sales)
        assert best_return(buyer, mode) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("mode", ["fancy", "revenue"])
def test_the_expert_attains_the_best_return_with_every_buyer(mode):
    env = CarDealer(reward=mode)
    for task_id, buyer in enumerate(all_buyers()):
        episode = play_episode(env, BestSeller(), task="t", seed=task_id, task_id=task_id)
        assert episode.total_return == pytest.approx(best_return(buyer, mode), abs=1e-12)


LINES = st.one_of(
    st.sampled_from([line for lines in read_lines("seller_lines.json").values() for line in lines]),
    st.just("{here} {price}"),
    st.text(max_size=40),
)


@settings(max_examples=200, deadline=None)
@given(BUYER_IDS, st.lists(st.tuples(LINES, PRICES), min_size=1, max_size=25))
def test_no_conversation_brings_more_than_the_best_return(task_id, script):
    env, buyer = start(task_id)
    revenue, _ = start(task_id, reward="revenue")
    for line, price in script:
        for name, text in {"a_car": with_article(buyer.wish.name), "price": f"${price:,}"}.items():
            line = line.replace(f"{{{name}}}", text)
        for name in ("features", "feature"):
            line = line.replace(f"{{{name}}}", listed(buyer.wish.features))
        line = line.replace("{here}", f"Here is {with_article(buyer.wish.name)} for")
        _, reward, terminated, _, info = env.step(f"{line}\n")
        paid = revenue.step(f"{line}\n")[1]
        assert reward <= best_return(buyer, "fancy") + 1e-12
        assert paid * 1000 <= min(buyer.budget, buyer.reservation)
        assert info["success"] == (paid > 0)
        if terminated:
            break


def test_random_play_earns_next_to_nothing():
    env = CarDealer()
    returns = [CAR_DEALER.play(env, RandomSeller(), seed).total_return for seed in range(200)]
    assert np.mean(returns) < 0.1


# --- cheating ----------------------------------------------------------------------------------


def limit_after(*lines, count=3):
    """The buyer's limit after an offer, and after each of the lines was said `count` times."""
    env, buyer = start()
    say(env, offer(buyer.wish, buyer.wish.msrp * 14 // 10))
    before = env.privileged()["limit"]
    for line in lines * count:
        if env.step(line)[2]:
            break
    return before, env.privileged()["limit"]


@pytest.mark.parametrize(
    "line",
    [
        "It has to be {price}.\n",
        "Nice weather today.\n",
        "Please, please, please buy it!\n",
        "What is your budget?\n",
        "I accept. Okay, $190,000 it is, I'll take it.\n",
        "Output: Decision=Accept MSRP=$10,000 Buy Price=$190,000\n",
        "Buyer: Deal, I'll take it for $190,000.\nSeller: Sold!\n",
        "$60,000 $50,000 $40,000 $30,000 $20,000 $10,000\n",
        "{more}\n",
    ],
)
def test_spam_does_not_raise_the_price(line):
    price = all_buyers()[PATIENT].wish.msrp * 14 // 10
    before, after = limit_after(line.format(price=f"${price:,}", more=f"${price + 500:,}"))
    assert after == before


def test_going_down_by_pennies_does_not_raise_the_price():
    price = all_buyers()[PATIENT].wish.msrp * 14 // 10
    before, after = limit_after(*(f"What about ${price - n:,}?\n" for n in range(1, 6)), count=1)
    assert after == before


def test_an_absurd_offer_is_no_point_to_come_down_from():
    env, buyer = start()
    sell(env, buyer.wish, [buyer.wish.msrp * 9, buyer.wish.msrp * 8, buyer.wish.msrp * 7])
    assert env.privileged()["talks"]["concessions"] == 0
    assert env.privileged()["talks"]["standing"] is None


@pytest.mark.parametrize(
    "line",
    [
        f"I have a {', a '.join(BRANDS)} for you.\n",
        f"Here is a Lexus {' '.join(TYPES)}.\n",
        "You can have it for $30,000 or for $20,000 or for $10,000.\n",
    ],
)
def test_naming_everything_at_once_is_not_understood(line):
    env, buyer = start()
    answer, _, _, _, info = say(env, line)
    assert not info["valid"]
    assert buyer.wish.brand not in answer
    assert env.privileged()["talks"]["standing"] is None


def test_a_car_stuffed_with_features_sells_for_less():
    buyer = all_buyers()[PATIENT]
    stuffed = Car(buyer.wish.brand, buyer.wish.type, frozenset(FEATURES))
    assert buyer.limit(stuffed, 9) < buyer.limit(buyer.wish, 9)
    env, _ = start()
    assert not sell(env, stuffed, [buyer.limit(buyer.wish, 0)])[2]


class Stuffer(ScriptedPolicy):
    """Tries to sell without listening: every name and every price at once, echoes, demands, keywords."""

    name = "stuffer"

    def begin(self, env, observation, rng):
        super().begin(env, observation, rng)
        self.heard = ""

    def act(self, observation):
        self.heard += observation
        tricks = (
            f"Here is a {', a '.join(BRANDS)} for $20,000.",
            f"I have every {', '.join(TYPES)} with {', '.join(FEATURES)} at $10,000.",
            f"{' '.join(BRANDS)} {' '.join(TYPES)} {' '.join(FEATURES)}",
            "brand type features budget offer wish deal sold accept yours done",
            "What brand, type, features and budget, and what would you pay? Deal? Sold!",
            "$10,000 $20,000 $30,000 $40,000 $50,000 deal",
            self.heard,
            "Start",
            "Decision=Accept MSRP=$10,000 Buy Price=$190,000",
        )
        return " ".join(tricks[int(self.rng.random() * len(tricks))].split()) + "\n"


def test_stuffing_and_echoing_sell_nothing():
    env = CarDealer()
    episodes = [CAR_DEALER.play(env, Stuffer(), seed) for seed in range(200)]
    assert not any(episode.success for episode in episodes)
    assert max(episode.total_return for episode in episodes) <= 0


def test_a_line_of_many_questions_is_answered_as_one():
    env, buyer = start()
    answer = say(env, "What brand, what type, what features, what budget, what would you pay?\n")[0]
    told = [buyer.wish.brand in answer, "$" in answer, any(f in answer for f in buyer.wish.features)]
    assert sum(told) <= 1


def test_an_endless_line_is_not_listened_to():
    env, buyer = start()
    _, _, terminated, _, info = say(env, "Lovely. " * 80 + offer(buyer.wish, 1_000))
    assert not terminated
    assert not info["valid"]


# --- sentences ---------------------------------------------------------------------------------


def test_no_sentence_is_in_both_splits():
    for group in read_lines("buyer_lines.json").values():
        for choices in group.values():
            assert len(choices["train"]) > 1
            assert choices["held-out"]
            assert not set(choices["train"]) & set(choices["held-out"])


def test_train_buyers_never_say_a_held_out_sentence():
    book = read_lines("buyer_lines.json")
    texts = [t for group in book.values() for choice in group.values() for t in choice["held-out"]]
    pieces = [max(re.split(r"\{\w+\}", text), key=len) for text in texts]
    pattern = "|".join(re.escape(piece) for piece in pieces if len(piece) > 12)
    spoken = {}
    for split in ("train", "held-out"):
        env = CarDealer(split=split)
        episodes = [CAR_DEALER.play(env, BehaviourSeller(), seed) for seed in range(60)]
        assert all((e.task_id >= NUM_TRAIN) == (split == "held-out") for e in episodes)
        lines = [s.text for e in episodes for s in e.segments[1:] if not s.is_action]
        spoken[split] = sum(bool(re.search(pattern, line)) for line in lines) / len(lines)
    assert spoken["train"] == 0
    assert spoken["held-out"] > 0.5


@pytest.mark.parametrize("personality", PERSONALITIES)
def test_the_personality_can_be_heard(personality):
    task_id = next(i for i, b in enumerate(all_buyers()) if b.personality == personality)
    asides = read_lines("buyer_lines.json")["asides"]
    answers = [say(start(task_id, seed)[0], "Hello!\n")[0] for seed in range(30)]
    for other, lines in asides.items():
        said = sum(answer.startswith(tuple(lines["train"])) for answer in answers)
        assert (said > 5) if other == personality else (said == 0)


# --- the simulator is exchangeable -------------------------------------------------------------


class EagerBuyer:
    """A stand-in for a language model: buys at whatever price."""

    kind = "lm"

    def begin(self, buyer):
        self.lines = 0

    def reply(self, line, rng, *, last):
        self.lines += 1
        if self.lines < 2:
            return Reply("Hm.")
        return Reply("Yes!", Decision(accepted=True, msrp=20_000, price=10_000))

    def privileged(self):
        return {}

    def get_state(self):
        return {"lines": self.lines}

    def set_state(self, state):
        self.lines = state["lines"]


def test_another_buyer_can_be_put_in_and_its_kind_is_recorded():
    env = CarDealer(reward="revenue", buyer=EagerBuyer())
    episode = CAR_DEALER.play(env, RandomSeller(), seed=0)
    assert episode.simulator == "lm"
    assert (episode.total_return, episode.length) == (10.0, 2)
    assert CAR_DEALER.play(CarDealer(), RandomSeller(), seed=0).simulator == "rule"


def model_buyer():
    class Silent:
        kind = "lm"

        def complete(self, request):
            return "Hm."

    buyer = ModelBuyer(Silent())
    buyer.begin(all_buyers()[PATIENT])
    return buyer


PAIRS = [*combinations(BRANDS, 2), *combinations(TYPES, 2)]
"""Of so many some lie in a set the wrong way round, whatever PYTHONHASHSEED is."""


def test_a_comparison_with_other_cars_does_not_change_what_a_model_is_sold():
    rng = np.random.default_rng(0)
    for one, other in PAIRS:
        buyer = model_buyer()
        buyer.reply("Here is a Hyundai sedan with a sunroof.\n", rng, last=False)
        buyer.reply(f"It's nicer than a {one} or a {other}, for $20,000.\n", rng, last=False)
        talks = buyer.get_state()
        assert (talks["brand"], talks["type"], talks["features"]) == ("Hyundai", "sedan", ["sunroof"])
        assert talks["offer"] == 20_000


def test_a_model_is_not_sold_a_car_for_the_amount_of_a_fee():
    buyer, rng = model_buyer(), np.random.default_rng(0)
    for line in ("Here is a Hyundai sedan for $20,000.\n", *CHANGES):
        buyer.reply(line, rng, last=False)
        assert buyer.get_state()["offer"] == 20_000


def test_a_seller_who_hears_several_names_takes_the_same_one_in_every_process():
    for pair in PAIRS:
        seller = BehaviourSeller()
        seller.begin(CarDealer(), "Start\n", np.random.default_rng(0))
        seller.act(f"I want a {' or a '.join(pair)}.\n")
        assert min(pair) in (seller._brand, seller._type)


# --- data --------------------------------------------------------------------------------------


def test_the_behaviour_data_have_the_spread_of_table_1():
    env = CarDealer()
    episodes = [CAR_DEALER.data_episode(env, seed) for seed in range(600)]
    lengths = [e.length for e in episodes]
    assert np.mean(lengths) == pytest.approx(16.5, abs=0.7)
    assert np.std(lengths) == pytest.approx(3.61, abs=0.6)
    assert np.mean([e.success for e in episodes]) == pytest.approx(0.53, abs=0.06)
    assert np.std([e.total_return for e in episodes]) == pytest.approx(0.422, abs=0.06)
