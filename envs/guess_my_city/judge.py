"""What is true of a city: the verdict on a yes/no query.

A verdict of None is an honest "I can't say": the tables do not decide it, or it is debatable.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache

from envs.guess_my_city.facts import City, load_cities
from envs.guess_my_city.lexicon import fold, known_words
from envs.guess_my_city.parser import Query
from envs.guess_my_city.vocabulary import GROUPS, SHARED_LANDMARKS, VALUES

Verdict = bool | None

folded = lru_cache(maxsize=4096)(fold)
"""`fold` for the texts of the tables, which come again and again."""

THIS_YEAR = 2026
FIRST_GAMES = 1896
TROPIC = 23.44
NEAR_EQUATOR = 10.0
"""Degrees of latitude."""
NEAR_KM = 400.0
KM_PER_MILE = 1.609
METRES_PER_FOOT = 0.3048
ABOUT = 0.15
"""How far off, as a share, a population may be and still be "about" so large."""
HIGH, LOW = 1500, 500
"""Metres: at least, and below which, a city lies "high"."""
ERAS = {"ancient": (-5000, 500), "medieval": (500, 1500),
        "early modern": (1500, 1800), "modern": (1800, THIS_YEAR)}  # fmt: skip
"""First and last year in which a city of the era was founded."""

_NOT_WET = {"desert": None, "semi-arid": False, "continental": None, "oceanic": None,
            "highland": None, "mediterranean": None}  # fmt: skip
CLIMATES: dict[str, dict[str, Verdict]] = {
    "tropical": {"tropical": True, "subtropical": None},
    "subtropical": {"subtropical": True, "tropical": None},
    "desert": {"desert": True, "semi-arid": None},
    "dry": {"desert": True, "semi-arid": True, "mediterranean": None, "highland": None,
            "continental": None},
    "mediterranean": {"mediterranean": True},
    "oceanic": {"oceanic": True, "mediterranean": None, "highland": None, "subtropical": None,
                "continental": None},
    "continental": {"continental": True, "semi-arid": None},
    "humid": {"tropical": True, "subtropical": True, **_NOT_WET},
    "cold": {"continental": True, "semi-arid": None, "oceanic": None, "highland": None,
             "mediterranean": None, "subtropical": None},
    "hot": {"tropical": True, "desert": True, "oceanic": False, "highland": False,
            "semi-arid": None, "mediterranean": None, "subtropical": None, "continental": None},
    "always hot": {"tropical": True, "desert": None, "semi-arid": None},
}  # fmt: skip
"""Verdict by the climate asked about and the city's; a pair that is not listed is a no."""

PARTS_OF_SEAS = {
    "pacific": ("china sea", "java sea", "korea strait", "strait between", "inland sea"),
    "indian ocean": ("arabian sea", "bengal", "red sea", "persian", "strait between", "southern"),
    "atlantic": ("mediterranean", "baltic", "gulf and"),
    "caribbean sea": ("gulf and",),
    "gulf of mexico": ("gulf and",),
    "mediterranean": ("bosphorus",),
}
"""Waters of which one may or may not say that they are the sea asked about."""


def judge(city: City, query: Query) -> Verdict:
    """Is what the query asks true of the city?"""
    verdict = _judge(city, query)
    if not query.places or verdict is False or (verdict is None and query.topic not in _DEBATED):
        return verdict
    placed = _placed(city, query)
    return placed if verdict or placed is False else None


_DEBATED = ("capital", "metro")
"""Topics where None is a matter of debate, and a false place decides; elsewhere it may be a misreading."""


def _judge(city: City, query: Query) -> Verdict:
    return _JUDGES.get(query.topic, _unknown)(city, query)


def _placed(city: City, query: Query) -> Verdict:
    """Whether the city is in the places too; one that may be of something else proves nothing against it."""
    verdicts = [
        _judge(city, replace(query, topic=topic, asked=values, places=())) for topic, values in query.places
    ]
    if False in verdicts:
        return False if query.located else None
    return None if None in verdicts else True


def _unknown(city: City, query: Query) -> Verdict:
    return None


def _among(values: Callable[[City], tuple[str, ...]]) -> Callable[[City, Query], Verdict]:
    """One of the city's values is asked about; one that no city has ("Tibetan") is none that we know."""

    def judge_values(city: City, query: Query) -> Verdict:
        mine = values(city)
        return any(value in mine for value in query.asked) if query.asked else None

    return judge_values


def _capital(city: City, query: Query) -> Verdict:
    """Of its country: the other kinds, and how far or large another capital is, we can't say."""
    other = _OTHER_CAPITAL.search(query.text) is not None
    return None if other or (not query.places and _CAPITAL_OF_A_PART.search(query.text)) else city.capital


_OTHER_CAPITAL = re.compile(
    r"\b(?:financial|economic|commercial|business|industrial|cultural|fashion|film|music|tech|legislative|"
    r"judicial|unofficial|regional|local|old|second|other) capital\b|"
    r"\b(?:than|near|nearer|close|closer|far|farther|further|away|next|like)(?: \w+){0,2} capital\b"
)
_CAPITAL_OF_A_PART = re.compile(
    r"\bcapital(?: city)? of (?!(?:your|our|its|this|that|an?|any|some|one|"
    r"the (?:(?:entire|whole) )?(?:country|nation))\b)"
)


def _language(city: City, query: Query) -> Verdict:
    """The tables have the city's main ones; of a country where cities have several, no is said of none."""
    verdict = _among(lambda city: city.languages)(city, query)
    if verdict is False and _NOT_THE_MAIN_ONE.search(query.text) and len(_languages_of(city.country)) > 1:
        return None
    return verdict


@cache
def _languages_of(country: str) -> frozenset[str]:
    return frozenset(name for city in load_cities() if city.country == country for name in city.languages)


_NOT_THE_MAIN_ONE = re.compile(
    r"\b(?:official\w*|second|minorit\w+|also|"
    r"(?:in|of|across|throughout) (?:your|the|its) (?:country|nation))\b"
)


def _drives(city: City, query: Query) -> Verdict:
    return None if "wheel" in query.text else _among(lambda city: (city.drives,))(city, query)


def _place(city: City, query: Query) -> Verdict:
    """A country; "America" may mean a continent, so only the United States is a clear case."""
    if not query.asked:
        return None
    mine = city.country in query.asked
    continental = " america" in f" {query.text}" and any("America" in c for c in city.continents)
    return None if continental and not mine and "United States" in query.asked else mine


def _group(city: City, query: Query) -> Verdict:
    return any(city.country in GROUPS[name] or city.name in GROUPS[name] for name in query.asked)


def _hemisphere(city: City, query: Query) -> Verdict:
    truths = {
        "north": city.latitude > 0,
        "south": city.latitude < 0,
        "east": city.longitude > 0,
        "west": city.longitude < 0,
        "near": abs(city.latitude) < NEAR_EQUATOR,
        "tropics": abs(city.latitude) < TROPIC,
    }
    return all(truths[value] for value in query.asked) if query.asked else None


def _time(city: City, query: Query) -> Verdict:
    if query.number is None and "ahead" in query.text:
        return city.utc_offset > 0
    if query.number is None and "behind" in query.text:
        return city.utc_offset < 0
    if query.more or query.less or (query.number is None and not _UTC.search(query.text)):
        return None
    sign = -1.0 if " minus " in query.text else 1.0
    return city.utc_offset == sign * (query.number or 0.0)


_UTC = re.compile(r"\b(?:utc|gmt|greenwich)\b")


def _altitude(city: City, query: Query) -> Verdict:
    if query.number is not None:
        if query.more == query.less or _KILOMETRES.search(query.text):
            return None
        unit = METRES_PER_FOOT if " feet" in query.text or " ft" in query.text else 1.0
        limit = query.number * unit
        return city.altitude < limit if query.less else city.altitude > limit
    if "below" in query.text:
        return city.altitude < 0
    if _ABOVE_THE_SEA.search(query.text):
        return city.altitude > 0
    high = True if city.altitude >= HIGH else False if city.altitude < LOW else None
    return high if high is None or not _LOW_DOWN.search(query.text) else not high


_ABOVE_THE_SEA = re.compile(
    r"\b(?:is|its|it|city|town|hometown|lies?|situated|located|be|all) above (?:the )?sea level\b"
)
_LOW_DOWN = re.compile(
    r"\b(?:(?:at|near|close to|about|around|on|by) (?:the )?sea level|lies? low|low lying|"
    r"low(?:er)? (?:altitude|elevation|area|ground|land|height|region)|(?:altitude|elevation)(?: \w+)? low)\b"
)


def _population(city: City, query: Query) -> Verdict:
    """No city has so few as a thousand: a smaller number is a share, or lacks its "million"."""
    if query.number is not None:
        if query.number < 1000:
            return None
        if query.more or query.less:
            return (city.population > query.number) == query.more
        return abs(city.population - query.number) <= ABOUT * query.number
    sizes = {
        "mega": city.population > 10_000_000,
        "big": city.population >= 1_000_000,
        "small": city.population < 500_000,
    }
    if not query.asked and "big" in query.text.split(" "):
        return sizes["big"]
    return any(sizes[value] for value in query.asked) if query.asked else None


def _climate(city: City, query: Query) -> Verdict:
    asked = query.asked[0] if len(query.asked) == 1 else ""
    winter, summer = "winter" in query.text, "summer" in query.text
    if asked == "cold" and summer and not winter:
        return None  # the climates say nothing of cold summers
    if asked == "hot" and winter and not summer:
        asked = "always hot"
    return CLIMATES[asked].get(city.climate, False) if asked in CLIMATES else None


def _snow(city: City, query: Query) -> Verdict:
    return {"yearly": True, "never": False}.get(city.snow)


def _terrain(city: City, query: Query) -> Verdict:
    asked = query.asked[0] if len(query.asked) == 1 else ""
    table: dict[tuple[str, str], Verdict] = {
        ("mountainous", "mountainous"): True, ("mountainous", "flat"): False,
        ("hilly", "hilly"): True, ("hilly", "mountainous"): True, ("hilly", "flat"): False,
        ("flat", "flat"): True, ("flat", "hilly"): False, ("flat", "mountainous"): False,
    }  # fmt: skip
    verdict = table.get((asked, city.terrain))
    return None if verdict is False and "near" in query.text.split(" ") else verdict


def _sea(city: City, query: Query) -> Verdict:
    mine = folded(city.sea)
    if not query.asked:
        return bool(mine)
    if "inland" in query.asked:
        return not mine
    if any(sea in mine for sea in query.asked):
        return True
    unsure = any(part in mine for sea in query.asked for part in PARTS_OF_SEAS.get(sea, ()))
    return None if unsure else False


def _island(city: City, query: Query) -> Verdict:
    mine = folded(city.island)
    if query.asked:
        return any(folded(name) in mine for name in query.asked)
    if "main island" in query.text:
        return None
    name = query.text.partition("island of ")[2].partition(" ")[0]
    if name and name not in ("your", "its", "the", "some") and not query.places:
        return bool(mine) and name in mine
    return bool(mine)


def _lake(city: City, query: Query) -> Verdict:
    mine = folded(city.lake)
    great = mine in ("lake michigan", "lake ontario")
    if not query.asked:
        return bool(mine)
    return mine in query.asked or (great and "great lakes" in query.asked)


def _river(city: City, query: Query) -> Verdict:
    mine = folded(city.river)
    if not query.asked:
        return bool(mine)
    return mine in query.asked or any(name in mine.split(" ") for name in query.asked)


def _landmark(city: City, query: Query) -> Verdict:
    """By name; by kind ("a mosque") only a yes; that there are landmarks is true of every city."""
    mine = [folded(name) for name in city.landmarks]
    if not query.asked:
        return True if _LANDMARKS.search(query.text) else None
    if any(name in query.asked for name in mine):
        return True
    kinds = set(query.asked) & _KINDS
    if kinds:
        there = any(kind in name.split(" ") for kind in kinds for name in mine)
        return True if there and _ANY_OF_A_KIND.search(query.text) else None
    return None if SHARED_LANDMARKS.intersection(query.asked) else False


_KINDS = frozenset(VALUES["landmark"])
_LANDMARKS = re.compile(r"\b(?:landmarks|monuments|sights|attractions|famous (?:buildings|places))\b")
_ANY_OF_A_KIND = re.compile(rf"\b(?:an?|any|some|many)(?: \w+){{0,2}} (?:{'|'.join(_KINDS)})s?\b")


def _food(city: City, query: Query) -> Verdict:
    """No for a dish of another continent; of a dish from nearer by we can't be sure."""
    if not query.asked or any(folded(name) in query.asked for name in city.foods):
        return True if query.asked else None
    return None if _continents_of(query.asked) & set(city.continents) else False


@lru_cache(maxsize=1024)
def _continents_of(foods: tuple[str, ...]) -> frozenset[str]:
    eaten = (c for c in load_cities() if any(folded(name) in foods for name in c.foods))
    return frozenset(continent for city in eaten for continent in city.continents)


def _known(city: City, query: Query) -> Verdict:
    """Yes for what the notes name; they are far too short for a no."""
    return True if set(query.asked) & set(known_words(city.known_for)) else None


def _religion(city: City, query: Query) -> Verdict:
    if not city.religion or not query.asked:
        return None
    return any(name in city.religion for name in query.asked)


_BEFORE = re.compile(r"\b(?:before|prior to|earlier than)\b")
_AFTER = re.compile(r"\b(?:after|later than|(?:founded|established) since)\b")
_YEARS = re.compile(r"\byears?\b(?! \d)")
"""A number of years, rather than "the year 1800"."""
_VAGUE_TIME = re.compile(
    r"\b(?:centur(?:y|ies)|decades?|millenni\w*|bce?|hundreds|thousands|few|\d+ s|shortly|soon)\b|"
    r"\b(?:in|during) the \d{4}\b(?! (?:summer|winter|olympic|games))"
)
_FOUNDED_HOW = re.compile(r"\b(?:founded|established) (?:by|in|as|during|on|when|with|since)\b")
"""Asks by whom or on what occasion, not whether it is old."""


def _later(query: Query) -> Verdict:
    """Whether the time after the query's number is meant, or before it; None: neither is said."""
    before, after = _BEFORE.search(query.text) is not None, _AFTER.search(query.text) is not None
    if _YEARS.search(query.text):
        return None if before or after or query.more == query.less else query.less
    return None if before == after else after


def _era(city: City, query: Query) -> Verdict:
    if _VAGUE_TIME.search(query.text):
        return None
    if query.number is not None:
        return _founded(city, query, query.number)
    if _BEFORE.search(query.text) or _AFTER.search(query.text):
        return None
    if not query.asked:
        if _FOUNDED_HOW.search(query.text):
            return None
        return None if city.era == "early modern" else city.era != "modern"
    if query.asked[0] in ERAS and _FOUNDED.search(query.text):
        return query.asked[0] == city.era
    return _ERA_VERDICTS[query.asked[0]].get(city.era)


_FOUNDED = re.compile(r"\b(?:founded|established|foundation|founding)\b")


def _founded(city: City, query: Query, number: float) -> Verdict:
    first, last = ERAS[city.era]
    limit = THIS_YEAR - number if _YEARS.search(query.text) else number
    later = _later(query)
    return None if later is None or first < limit < last else (first >= limit) == later


_ERA_VERDICTS: dict[str, dict[str, bool]] = {
    "ancient": {"ancient": True, "early modern": False, "modern": False},
    "medieval": {"ancient": True, "medieval": True, "early modern": False, "modern": False},
    "modern": {"ancient": False, "medieval": False, "modern": True},
    "old": {"ancient": True, "medieval": True, "modern": False},
}


def _olympics(city: City, query: Query) -> Verdict:
    """Winter Games are the two of the table that were held in a winter."""
    games = _games(city, query)
    if games is None or _VAGUE_TIME.search(query.text) or _NOT_ONE_YEAR.search(query.text):
        return None
    winter = {("Sapporo", "1972"), ("Beijing", "2022"), ("Milan", "2026")}
    if "winter" in query.text or "summer" in query.text:
        return any(((city.name, year) in winter) == ("winter" in query.text) for year in games)
    return bool(games)


_NOT_ONE_YEAR = re.compile(  # how often, who else, or what is still to come
    r"\b(?:twice|times|multiple|several|more than|country|will|going to|next|future|until|till|onwards?|"
    r"by (?:the year )?\d+)\b"
)


def _games(city: City, query: Query) -> tuple[str, ...] | None:
    """The years of the city's Games that the query speaks of; None where that is unclear."""
    since = "since" in query.text.split(" ")
    relative = since or _BEFORE.search(query.text) or _AFTER.search(query.text)
    year, later = query.number, since or _later(query)
    if year is None:
        return None if relative else city.olympics
    if not FIRST_GAMES <= year <= THIS_YEAR or _YEARS.search(query.text) or (relative and later is None):
        return None
    if not relative:
        first = last = year
    elif later:
        first, last = year if since else year + 1, THIS_YEAR
    else:
        first, last = FIRST_GAMES, year - 1
    return tuple(games for games in city.olympics if first <= int(games) <= last)


def _near(city: City, query: Query) -> Verdict:
    if query.city is None:
        return None
    kilometres = city.kilometres(load_cities()[query.city])
    if query.number is None:
        vague = query.topic == "distance" or _TRAVEL.search(query.text)
        return None if vague else kilometres <= NEAR_KM
    if query.more == query.less or not _KILOMETRES.search(query.text):
        return None
    limit = query.number * (KM_PER_MILE if "mile" in query.text else 1.0)
    return (kilometres > limit) == query.more


_TRAVEL = re.compile(  # nearness in another measure than ours
    r"\b(?:hours?|minutes?|days?|flight|train|walk|few|hundred)\b"
)
_KILOMETRES = re.compile(r"\b(?:kms?|kilomet\w+|miles?)\b")


def _bearing(city: City, query: Query) -> Verdict:
    """Half a degree decides; less than that is as good as level."""
    if query.city is None:
        return None
    other = load_cities()[query.city]
    north = city.latitude - other.latitude
    east = (city.longitude - other.longitude + 180) % 360 - 180
    way = query.asked[0] if query.asked else ""
    degrees = {"north": north, "south": -north, "east": east, "west": -east}.get(way, 0.0)
    return None if abs(degrees) < 0.5 else degrees > 0


def _compare(city: City, query: Query) -> Verdict:
    if query.city is None or not query.asked:
        return None
    other = load_cities()[query.city].population
    return city.population > other if query.asked[0] == "more" else city.population < other


def _neighbours(city: City, query: Query) -> Verdict:
    if _OF_THE_CITY.search(query.text) or "ocean" in query.text:
        return None
    if not city.neighbours:
        return False
    if _COUNTED.search(query.text):
        return None
    if query.asked:
        return _among(lambda c: c.neighbours)(city, query)
    return True if _ANY_NEIGHBOUR.search(query.text) else None


_COUNTED = re.compile(r"\b(?:only|just|one(?! of)|two|three|four|five|six|seven|eight|nine|ten|\d+|many)\b")
_ANY_NEIGHBOUR = re.compile(
    r"\b(?:borders?|bordered by|bordering|neighbou?rs?|neighbou?ring)"
    r"(?: (?:with|by|on|to|any|another|an?|other|more|of|land|yours?|the|countr\w+|nations?|states?))*$"
)
_OF_THE_CITY = re.compile(  # how the city itself lies, of which its country's neighbours say nothing
    r"coast|\b(?:sea|near|close to)\b|\b(?:on|at|along|by|from|around|within)(?: \w+){0,3} border\b|"
    r"\bborder (?:city|town)|(?:city|town) (?:(?:that|which|shares?|has|have|an?) )*border"
)


_JUDGES: dict[str, Callable[[City, Query], Verdict]] = {
    "guess": lambda city, query: False,
    "distance": _near,
    "near": _near,
    "bearing": _bearing,
    "compare": _compare,
    "continent": _among(lambda city: city.continents),
    "region": _among(lambda city: city.regions),
    "country": _place,
    "group": _group,
    "neighbours": _neighbours,
    "capital": _capital,
    "hemisphere": _hemisphere,
    "time": _time,
    "language": _language,
    "currency": _among(lambda city: (city.currency,)),
    "religion": _religion,
    "drives": _drives,
    "olympics": _olympics,
    "metro": lambda city, query: city.metro,
    "beach": lambda city, query: city.beach,
    "port": lambda city, query: city.port,
    "food": _food,
    "landmark": _landmark,
    "known": _known,
    "snow": _snow,
    "climate": _climate,
    "population": _population,
    "altitude": _altitude,
    "terrain": _terrain,
    "island": _island,
    "sea": _sea,
    "lake": _lake,
    "river": _river,
    "era": _era,
}
