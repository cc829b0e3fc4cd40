"""Car dealer: what a line is understood to say."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.car_dealer.hearing import hear
from envs.car_dealer.voice import read_lines

FIXTURES = Path(__file__).parents[1] / "fixtures" / "car_dealer"
PRICES = st.integers(1_000, 150_000)


@pytest.mark.parametrize(
    "text",
    [
        "$32,000",
        "32,000",
        "$32000",
        "32000 dollars",
        "$32k",
        "32k",
        "32 grand",
        "32.0k",
        "thirty-two thousand",
        "Thirty two thousand dollars",
        "$32,000.00",
    ],
)
def test_a_price_is_understood_however_it_is_written(text):
    assert hear(f"I can do {text}.\n").prices == {32_000}


@given(PRICES)
def test_any_price_in_digits_is_understood(price):
    assert hear(f"It is yours for ${price:,}!\n").prices == {price}
    assert hear(f"${price:,}").prices == {price}


UNITS = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@given(st.integers(0, 7), st.integers(0, 9), st.integers(0, 9))
def test_any_price_in_words_is_understood(tens, units, hundreds):
    text = "-".join(filter(None, [TENS[tens], UNITS[units]])) + " thousand"
    text += f" {UNITS[hundreds]} hundred" if hundreds else ""
    assert hear(f"How about {text}?").prices == {(20 + 10 * tens + units) * 1000 + hundreds * 100}


@pytest.mark.parametrize("line", json.loads((FIXTURES / "heard.json").read_text()), ids=str)
def test_a_line_that_a_person_wrote_is_understood(line):
    text, expected = line
    heard = hear(text)
    for name, value in expected.items():
        found = getattr(heard, name)
        if name == "topics":
            assert found >= set(value)
        elif isinstance(value, list):
            assert found == set(value)
        else:
            assert found is value


@pytest.mark.parametrize(
    "text",
    [
        "We're asking $32,000.",
        "We\u2019re asking $32,000.",
        "We're at $32,000 now.",
        "Why not $32,000?",
        "Why not make it $32,000?",
    ],
)
def test_a_price_is_understood_after_a_contraction_and_why_not(text):
    assert hear(text).prices == {32_000}


@pytest.mark.parametrize("text", ["They were $32,000.", "It's not $32,000.", "We're $2,000 apart."])
def test_an_amount_that_was_or_is_not_asked_is_no_price(text):
    assert not hear(text).prices


@pytest.mark.parametrize(
    "text",
    [
        "I can't accept $29,500.",
        "$29,500 is too low.",
        "$29,500 is far too little for this car.",
        "I won't sell it for $29,500.",
        "I don't think I can do $29,500.",
        "I'm not able to go to $29,500.",
        "I refuse $29,500.",
        "$29,500 just isn't enough for me.",
        "$29,500 won't work.",
        "You said $29,500, that is not enough.",
        "So you want to pay $29,500?",
        "Why $29,500?",
        "I paid $29,500 for it myself.",
        "Your offer of $29,500 is too low.",
    ],
)
def test_the_buyer_s_own_price_refused_or_repeated_is_no_offer(text):
    heard = hear(text)
    assert (heard.prices, heard.takes, heard.understood) == (set(), False, True)


@pytest.mark.parametrize(
    "text",
    [
        "I can't go lower than $31,000.",
        "I can't accept less than $31,000.",
        "I can't accept that, $31,000 is my price.",
        "I can't do $29,500, but I can do $31,000.",
        "You offered $29,500, I say $31,000.",
        "I accept your offer of $31,000.",
        "$31,000 is as low as I can go.",
        "$31,000 isn't bad.",
        "You can't beat $31,000!",
        "Why don't we say $31,000?",
        "Would you pay $31,000?",
        "You can't go wrong with it at $31,000!",
        "It has everything you wanted for $31,000.",
        "The car you mentioned is $31,000.",
        "So you can drive it home today for $31,000.",
        "You don't want to miss this one at $31,000.",
        "I don't want to lose you so how about $31,000?",
        "I don't think $31,000 is unreasonable.",
        "I can't do that - I need $31,000.",
        "I can't go above $31,000.",
        "Can't you do $31,000?",
    ],
)
def test_a_price_beside_a_refusal_is_an_offer(text):
    assert hear(text).prices == {31_000}


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I'm not able to accept that offer.",
        "I won't be able to accept that. It lists for more.",
        "I don't think we can agree on that price.",
        "I don't think we have a deal.",
        "I'm unable to accept that.",
        "I refuse to accept that.",
        "I must decline to accept your offer.",
        "I can't in good conscience accept that.",
        "I can't, in good conscience, accept that.",
        "I wouldn't accept that price.",
        "I couldn't possibly agree to that.",
        "I wish I could accept that.",
        "I'd love to accept your offer, but it lists for more.",
        "I would be happy to accept that. It lists for more, though.",
        "I accept, but you have to come up a little.",
        "It's a deal if you come up a little.",
        "I find that hard to accept.",
        "That's too low for me to accept.",
        "That's lower than I can accept.",
        "I'm afraid that's below what I can accept.",
        "That's a deal breaker.",
        "We're far from a deal.",
        "We haven't got a deal.",
    ],
)
def test_a_refusal_closes_no_deal(text):
    heard = hear(text)
    assert (heard.takes, heard.understood) == (False, True)


@pytest.mark.parametrize(
    "text",
    [
        "I agree, comfort matters.",
        "I agree that comfort matters.",
        "I agree with you.",
        "We agreed that comfort matters.",
        "Let's agree on a price.",
        "We accept trade-ins.",
        "We accept all major credit cards.",
        "Please accept my apologies.",
        "I hope you accept.",
        "If you accept that, the car is yours.",
        "We've sold many of these.",
        "The other one was sold to my cousin.",
        "We sold it last week.",
        "I've done this for years.",
        "I'm sure we can work out a deal, we just need to find a deal that works for both of us.",
        "That deal would ruin me.",
        "Your deal is too low.",
        "I can cut you a deal.",
        "We deal in luxury cars.",
        "I'd love to make it yours.",
        "The choice is yours.",
        "Yours truly.",
        "The inspection is done.",
        "Agreed, it is a nice car.",
    ],
)
def test_talk_of_deals_and_sales_closes_none(text):
    assert hear(text).takes is False


@pytest.mark.parametrize(
    "text",
    [
        "I accept.",
        "I accept, thank you.",
        "We accept your generous offer.",
        "I'm happy to accept that price.",
        "I can't go lower, but I can accept that.",
        "No problem, it's a deal.",
        "I guess I'll go ahead and agree to that.",
        "I agree.",
        "Agreed, the car is yours.",
        "Consider it sold!",
        "Done!",
        "Okay, deal.",
        "It's a done deal!",
        "Sounds like we have a deal then!",
        "We have a deal at that price.",
        "Consider it done.",
        "Agreed, let's do the paperwork.",
        "Looks like we have a deal!",
        "I spoke with my manager and we have a deal.",
        "My manager approved it so you have a deal.",
        "You just got yourself a deal!",
        "At that price we have a deal.",
        "You have a deal, my friend.",
        "That sounds like a deal to me.",
        "At that price the Lexus is yours.",
        "The keys are yours.",
        "The car is now yours.",
        "Consider it yours.",
        "It's all yours.",
        "You won't regret it, the Lexus is yours.",
    ],
)
def test_an_acceptance_closes_the_deal(text):
    assert hear(text).takes is True


@pytest.mark.parametrize("text", ["Would you accept that?", "Can we agree on that?", "Do we have a deal?"])
def test_a_question_about_a_deal_asks_for_an_offer(text):
    heard = hear(text)
    assert (heard.takes, heard.topics) == (False, {"offer"})


@given(st.text(max_size=700))
def test_any_text_can_be_heard(text):
    hear(text)


def test_endless_numbers_are_only_a_large_amount():
    assert hear("two" + " hundred" * 500 + " thousand" * 500).prices == {10**9}
    assert hear("$" + "9" * 5000).prices == {10**9}


def test_what_the_scripted_sellers_say_is_what_they_mean():
    slots = {"a_car": "a Lexus SUV", "features": "a sunroof", "feature": "a sunroof", "price": "$9,000"}
    topics = {"ask_wish": "wish", "ask_brand": "brand", "ask_type": "type", "ask_features": "features"}
    topics["ask_budget"] = "budget"
    for intent, lines in read_lines("seller_lines.json").items():
        for line in lines:
            heard = hear(line.format_map(slots))
            assert heard.understood, line
            assert heard.prices == ({9_000} if "{price}" in line else set()), line
            assert heard.prices or heard.takes is (intent == "take"), line
            if intent in topics:
                assert topics[intent] in heard.topics, line
            if intent == "pitch":
                assert (heard.brands, heard.types) == ({"Lexus"}, {"SUV"}), line
                assert heard.features == {"sunroof"}, line
            if intent == "ask_feature":
                assert heard.asked_features == {"sunroof"}, line
