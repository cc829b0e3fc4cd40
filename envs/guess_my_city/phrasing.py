"""How the simulator puts its answers: what an open question is told, and in which words.

Each topic has clauses to train on and clauses held out, and so has each kind of answer. `told`
gives the value that fills a clause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from envs.guess_my_city.facts import City

Split = Literal["train", "held-out"]
Wordings = dict[Split, tuple[str, ...]]

CANT_SAY = "I can't say."
ONE_CITY = "Please name one city at a time."
ONE_QUESTION = "Please ask one short question at a time."

YES: Wordings = {
    "train": ("Yes, {}.", "Yes: {}.", "That is right, {}."),
    "held-out": ("Correct, {}.", "Indeed, {}."),
}
BARE_YES: Wordings = {
    "train": ("Yes.", "Yes, that is right.", "Yes, that is true."),
    "held-out": ("Correct.", "Indeed it is so."),
}
NO: Wordings = {
    "train": ("No, {}.", "No: {}.", "That is not so, {}."),
    "held-out": ("Wrong, {}.", "I am afraid not, {}."),
}
BARE_NO: Wordings = {
    "train": ("No.", "No, that is not so.", "No, I would not say so."),
    "held-out": ("Wrong.", "I am afraid not."),
}
OPEN: Wordings = {
    "train": ("{}.", "Well, {}."),
    "held-out": ("Let me see: {}.", "I can tell you that {}."),
}
WON: Wordings = {
    "train": ("Yes, you found it.", "Yes, that is where I am from.", "Yes, that is my city."),
    "held-out": ("Correct, well guessed.", "Indeed, that is my home."),
}
MISSED: Wordings = {
    "train": ("No.", "No, I am from somewhere else.", "No, that is not my city."),
    "held-out": ("Wrong, guess again.", "I am afraid that is not it."),
}
CLAUSES: dict[str, Wordings] = {
    "continent": {"train": ("it is in {}", "I live in {}"), "held-out": ("you find it in {}",)},
    "region": {"train": ("it is in {}", "it belongs to {}"), "held-out": ("look for it in {}",)},
    "country": {"train": ("it is in {}", "my country is {}"), "held-out": ("I am from {}",)},
    "neighbours": {
        "train": ("my country borders {}", "the neighbouring countries are {}"),
        "held-out": ("next to my country you find {}",),
    },
    "capital": {"train": ("it is {}", "my city is {}"), "held-out": ("this is {}",)},
    "hemisphere": {"train": ("it is in the {} hemisphere",), "held-out": ("it lies on the {} half",)},
    "coordinates": {"train": ("it lies at about {}",), "held-out": ("its place is near {}",)},
    "time": {"train": ("the time zone is {}", "we use {}"), "held-out": ("our clocks show {}",)},
    "religion": {
        "train": ("the main religion is {}", "most believers follow {}"),
        "held-out": ("the usual faith is {}",),
    },
    "language": {
        "train": ("people mostly speak {}", "the main language here is {}"),
        "held-out": ("what you hear in the streets is {}",),
    },
    "currency": {"train": ("we pay with the {}", "the currency is the {}"),
                 "held-out": ("you will need the {}",)},
    "drives": {"train": ("people drive on the {}",), "held-out": ("cars keep to the {}",)},
    "olympics": {
        "train": ("the Olympic Games were held here in {}", "we had the Olympics in {}"),
        "held-out": ("the years of our Games are {}",),
    },
    "metro": {"train": ("there is {}", "we have {}"), "held-out": ("you can take {}",)},
    "food": {"train": ("try our {}", "typical dishes are {}"),
             "held-out": ("on the table you find {}",)},
    "snow": {"train": ("it {}",), "held-out": ("here it {}",)},
    "climate": {"train": ("the climate is {}", "the weather is {}"),
                "held-out": ("outdoors it is {}",)},
    "population": {"train": ("about {} people live here", "it has around {} inhabitants"),
                   "held-out": ("there are some {} of us",)},
    "island": {"train": ("it lies {}", "my city is {}"), "held-out": ("we live {}",)},
    "beach": {"train": ("there is {}", "we have {}"), "held-out": ("you can enjoy {}",)},
    "port": {"train": ("it has {}", "there is {}"), "held-out": ("ships come to {}",)},
    "lake": {"train": ("there is {}", "it lies at {}"), "held-out": ("its water is {}",)},
    "river": {"train": ("{} flows through it", "it lies on {}"), "held-out": ("you can walk along {}",)},
    "sea": {"train": ("it lies on {}", "the water is {}"), "held-out": ("ships reach it by {}",)},
    "terrain": {"train": ("the land is {}",), "held-out": ("around it all is {}",)},
    "altitude": {
        "train": ("it lies about {} metres above the sea", "its height is about {} metres"),
        "held-out": ("we live some {} metres up",),
    },
    "era": {"train": ("it was founded {}", "it goes back to a time {}"), "held-out": ("it began {}",)},
    "known": {"train": ("it is known for {}", "people think of {}"),
              "held-out": ("its fame comes from {}",)},
    "landmark": {"train": ("you can see {}", "visitors come for {}"),
                 "held-out": ("do not miss {}",)},
    "distance": {"train": ("it is about {} away",), "held-out": ("you travel some {}",)},
}  # fmt: skip

ABSENT = {
    "neighbours": "my country has no land border",
    "capital": "it is not the capital",
    "olympics": "the Olympic Games were never held here",
    "metro": "there is no metro",
    "island": "it is not on an island",
    "beach": "there is no beach",
    "port": "it is no port",
    "lake": "there is no large lake",
    "river": "no large river flows through it",
    "sea": "it lies inland",
}
"""What is said where a city has no such thing."""

_ARTICLES = ("United", "Philippines", "Democratic", "Middle East", "Caribbean", "Caucasus")
_CLIMATES = {
    "tropical": "tropical, hot and humid all the year",
    "subtropical": "subtropical, with humid summers",
    "desert": "that of a desert, hot and dry",
    "semi-arid": "rather dry",
    "mediterranean": "mediterranean, with dry summers",
    "oceanic": "oceanic and mild",
    "continental": "continental, with cold winters",
    "highland": "that of a highland, mild all the year",
}
_SNOW = {
    "yearly": "snows every winter",
    "rarely": "snows only now and then",
    "never": "never or hardly ever snows",
}
_ERAS = {
    "ancient": "in ancient times, before the year 500",
    "medieval": "in the Middle Ages, between 500 and 1500",
    "early modern": "between 1500 and 1800",
    "modern": "after 1800",
}


def clauses(topic: str, value: str, split: Split) -> tuple[str, ...]:
    """The ways to say that the city's `topic` is `value` (or that there is none)."""
    if not value:
        return (ABSENT[topic],)
    return tuple(clause.format(value) for clause in CLAUSES[topic][split])


def told(city: City, topic: str, other: City | None = None) -> str | None:
    """The value that answers an open question; "" for "there is none", None for "can't say"."""
    if topic in ("distance", "near") and other is not None:
        return f"{max(100, round(city.kilometres(other), -2)):.0f} km"
    return _TOLD[topic](city) if topic in _TOLD else None


def _listed(values: Iterable[str]) -> str:
    *most, last = list(values) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def with_article(place: str) -> str:
    """The place as it stands in a sentence: "the United Kingdom", "France"."""
    return f"the {place}" if place.startswith(_ARTICLES) else place


def _if(value: bool | None, thing: str) -> str | None:
    return None if value is None else thing if value else ""


def _coordinates(city: City) -> str:
    north = "north" if city.latitude >= 0 else "south"
    east = "east" if city.longitude >= 0 else "west"
    return f"{abs(city.latitude):.0f} degrees {north} and {abs(city.longitude):.0f} degrees {east}"


def _population(city: City) -> str:
    if city.population < 1_000_000:
        return f"{round(city.population, -4):,}"
    return f"{round(city.population / 1e6, 1):g} million"


_TOLD: dict[str, Callable[[City], str | None]] = {
    "continent": lambda city: _listed(city.continents),
    "region": lambda city: with_article(city.regions[0]),
    "group": lambda city: with_article(city.regions[0]),
    "country": lambda city: with_article(city.country),
    "neighbours": lambda city: _listed(with_article(name) for name in city.neighbours),
    "capital": lambda city: _if(city.capital, "the capital"),
    "hemisphere": lambda city: "northern" if city.latitude > 0 else "southern",
    "coordinates": _coordinates,
    "time": lambda city: f"UTC{city.utc_offset:+g}",
    "religion": lambda city: city.religion or None,
    "language": lambda city: _listed(city.languages),
    "currency": lambda city: city.currency,
    "drives": lambda city: city.drives,
    "olympics": lambda city: _listed(city.olympics),
    "metro": lambda city: _if(city.metro, "a metro"),
    "food": lambda city: _listed(city.foods),
    "snow": lambda city: _SNOW[city.snow],
    "climate": lambda city: _CLIMATES[city.climate],
    "population": _population,
    "island": lambda city: city.island,
    "beach": lambda city: _if(city.beach, "a beach"),
    "port": lambda city: _if(city.port, "a port"),
    "lake": lambda city: city.lake,
    "river": lambda city: city.river,
    "sea": lambda city: city.sea,
    "terrain": lambda city: city.terrain,
    "altitude": lambda city: str(city.altitude),
    "era": lambda city: _ERAS[city.era],
    "known": lambda city: city.known_for,
    "landmark": lambda city: _listed(city.landmarks),
}
