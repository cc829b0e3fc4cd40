"""The questions that our players ask: a bank by topic, each in several wordings.

Written for this project. The parser reads these like any other text; nothing is passed beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from envs.guess_my_city.facts import load_cities
from envs.guess_my_city.phrasing import with_article

OPEN: dict[str, tuple[str, ...]] = {
    "continent": ("What continent is your city on?", "Which continent do you live on?"),
    "region": ("In which region of the world is it?", "Which region is your city in?"),
    "country": ("What country is your city in?", "Which country are you from?",
                "Can you tell me the country?"),
    "neighbours": ("Which countries border yours?", "What are the neighbouring countries?"),
    "language": ("What language is spoken in your city?", "What language do people speak there?",
                 "Which languages would I hear in the streets?"),
    "currency": ("What currency do you use?", "What money do I need when I visit?"),
    "religion": ("What is the main religion in your city?", "Which religion do most people follow?"),
    "time": ("What time zone are you in?", "Which time zone does your city use?"),
    "climate": ("What is the climate like?", "How is the weather in your city?"),
    "population": ("How many people live there?", "What is the population of your city?"),
    "altitude": ("How high above sea level is your city?", "What is the elevation?"),
    "sea": ("Which sea is your city on?", "What ocean is it next to?"),
    "river": ("Which river flows through the city?", "What is the name of the river?"),
    "food": ("What food is your city famous for?", "What do people eat there?",
             "What is a typical dish?"),
    "landmark": ("What are some landmarks in your city?", "Which sights should a tourist see?",
                 "Can you name a landmark?"),
    "known": ("What is your city known for?", "What is it best known for?", "Give me a hint."),
    "era": ("How old is your city?", "When was your city founded?"),
    "olympics": ("When were the Olympics held there?",),
}  # fmt: skip
"""Questions that want to be told."""

PLAIN: dict[str, tuple[str, ...]] = {
    "capital": ("Is it a capital city?", "Are you from the capital?",
                "Is your city the capital of its country?"),
    "sea": ("Is your city on the coast?", "Is it by the sea?", "Is your city near the ocean?"),
    "port": ("Is it a port city?", "Does your city have a harbour?"),
    "river": ("Is there a river in your city?", "Does a river flow through it?"),
    "lake": ("Is your city on a lake?",),
    "island": ("Is your city on an island?", "Is it located on an island?"),
    "beach": ("Are there beaches in your city?", "Is there a beach?"),
    "metro": ("Does your city have a metro?", "Is there a metro system?", "Do you have a subway?"),
    "olympics": ("Has your city hosted the Olympics?", "Did your city ever host the Olympic Games?"),
    "snow": ("Does it snow in winter?", "Do you get snow?"),
    "drives": ("Do you drive on the left?", "Do people drive on the left side of the road?"),
    "hemisphere": ("Is your city in the southern hemisphere?", "Is it south of the equator?"),
    "tropics": ("Is your city in the tropics?", "Does it lie in the tropics?"),
    "west": ("Is it in the western hemisphere?",),
    "group": ("Is it in Latin America?", "Is your city in the Arab world?"),
    "europe": ("Is your city in the European Union?",),
    "big": ("Does your city have more than 10 million people?",),
    "middle": ("Does your city have more than 5 million people?",),
    "small": ("Does your city have more than 2 million people?",),
    "high": ("Is your city more than 1000 metres above sea level?",),
    "terrain": ("Is your city hilly?", "Is it in the mountains?", "Is the terrain flat?"),
    "climate": ("Is the climate tropical?", "Is the climate dry?", "Are the winters cold?"),
    "era": ("Is it an ancient city?", "Is it a modern city?"),
    "ahead": ("Is your city ahead of Greenwich?",),
}  # fmt: skip
"""Yes/no questions without a value to fill in."""

FILLED: dict[str, tuple[str, ...]] = {
    "continent": ("Is your city in {}?", "Is it located in {}?", "Are you from {}?"),
    "region": ("Is your city in {}?", "Is it located in {}?"),
    "country": ("Is your city in {}?", "Is it in {}?", "Are you from {}?"),
    "language": ("Do people speak {} in your city?", "Is {} the main language?"),
    "currency": ("Is the currency the {}?", "Do you pay with the {}?"),
    "religion": ("Is {} the main religion?", "Do most people practise {}?"),
    "sea": ("Does your city lie on {}?", "Is your city on {}?"),
    "food": ("Is your city known for {}?", "Would I eat {} in your city?"),
    "landmark": ("Can I visit {} in your city?", "Is {} in your city?"),
}
"""Yes/no questions about a value."""

SMALL_TALK = ("Do you like living there?", "Is there a good football team?", "Is your city safe?",
              "What is your favourite colour?", "Is your city known for its nightlife?")  # fmt: skip
"""Questions that the tables don't answer; real players ask them too."""

GUESSES = ("Is the city you are from {}?", "Are you from {}?", "Is it {}?")


class Question(NamedTuple):
    """A question of the bank. Its wordings mean the same and are answered alike."""

    wordings: tuple[str, ...]
    is_open: bool = False


@cache
def bank() -> dict[str, tuple[Question, ...]]:
    """All questions but the guesses, by topic."""
    questions: dict[str, list[Question]] = {}
    for topic, wordings in OPEN.items():
        questions.setdefault(f"open {topic}", []).append(Question(wordings, is_open=True))
    for topic, wordings in PLAIN.items():
        groups = [wordings] if topic not in ("terrain", "climate", "era", "group") else zip(wordings)
        questions.setdefault(topic, []).extend(Question(tuple(group)) for group in groups)
    for topic, value in _values():
        filled = tuple(wording.format(value) for wording in FILLED[topic])
        questions.setdefault(topic, []).append(Question(filled))
    questions["small talk"] = [Question((wording,)) for wording in SMALL_TALK]
    return {topic: tuple(entries) for topic, entries in questions.items()}


@cache
def guesses() -> tuple[Question, ...]:
    """For each city the question that names it."""
    return tuple(Question(tuple(wording.format(city.name) for wording in GUESSES)) for city in load_cities())


def _values() -> Iterator[tuple[str, str]]:
    cities = load_cities()
    columns: dict[str, Iterable[str]] = {
        "continent": (name for city in cities for name in city.continents),
        "region": (with_article(name) for city in cities for name in city.regions),
        "country": (with_article(c.country) for c in cities if c.country not in c.names),
        "language": (name for city in cities for name in city.languages),
        "currency": (city.currency for city in cities),
        "religion": ("Islam", "Christianity", "Hinduism", "Buddhism"),
        "sea": ("the Pacific", "the Atlantic", "the Indian Ocean", "the Mediterranean Sea"),
        "food": (city.foods[0] for city in cities),
        "landmark": (city.landmarks[0] for city in cities),
    }
    for topic, values in columns.items():
        yield from ((topic, value) for value in dict.fromkeys(values))
