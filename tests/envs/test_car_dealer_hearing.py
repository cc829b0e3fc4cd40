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
