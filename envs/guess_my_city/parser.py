"""From a question to a query: which topic, which values are asked about, yes/no or open.

The parser knows no secret: the same question is the same query whatever the city.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from envs.guess_my_city.lexicon import find, fold, phrases
from envs.guess_my_city.vocabulary import CUES

MAX_CHARACTERS = 300
MAX_WORDS = 40
MAX_TOPICS = 4
"""A question that touches more topics than this is keyword stuffing."""

PRECEDENCE = tuple(topic for topic in CUES if topic != "country")
PRECEDENCE = (*PRECEDENCE[: PRECEDENCE.index("region")], "group", "country", "region", "continent", "known")
_RELATIONS = ("distance", "bearing", "compare", "near")
"""Topics that need another city: "how far is it from Rome?"."""
_CONJUNCTIVE = ("neighbours", "hemisphere", "climate", "known")
"""Topics where a yes/no question may name several values and stay one."""
_NOT_A_FAME = ("era", "population", "language", "religion", "capital", "group", "country", "region",
               "continent", "hemisphere", "altitude")  # fmt: skip
"""What "known for its ancient temples of Asia" is not about."""
_PLACES = ("group", "country", "region", "continent")
_TRAITS = ("language", "religion", "hemisphere", "sea", "river", "lake", "island")
"""What else tells where a city is: "the capital of a Muslim country", "a port on the Pacific"."""
_MARKS = dict.fromkeys(_PLACES, "PLACE") | {topic: topic.upper() for topic in _TRAITS}
_SAY_LITTLE = ("neighbours", "language", "currency", "drives")
"""Topics that every city has, so that "Is your language spoken in Africa?" turns on the place alone."""

Problem = Literal["", "cities", "questions"]
Places = tuple[tuple[str, tuple[str, ...]], ...]
"""Topics with values; those of one entry are alternatives."""

_SECOND_QUESTION = re.compile(
    r"\band (?:(?:is|are|does|do|did|has|have|can) (?:it|you|your|the|there|people)|"
    r"what|which|where|when|how|whether)\b"
)
_AUXILIARY = re.compile(
    r"(?:(?:so|ok|okay|well|hmm|and|then|now|please) )*(?:is|are|was|were|do|does|did|has|have|can|"
    r"could|would|will|should|isnt|arent|wasnt|dont|doesnt|didnt|hasnt|havent)\b"
)
_REQUEST = re.compile(r"\b(?:tell me|give me|name|describe|list)\b")
_WH_WORD = re.compile(r"\b(?:what|whats|which|where|when|how|who|whose)\b")
_NEGATION = re.compile(
    r"\b(?:not|never|without|outside|non|nor|neither|cannot|except|other than|apart from|"
    r"rarely|seldom|hardly|no longer|(?:is|are|has|have|with|gets?|there) no|"
    r"(?:that|which) (?:is|are|was|were|do|does|did|has|have)nt)\b"
)
_NOT_A_GUESS = re.compile(r"\b(?:same|than|ahead|behind)\b")
"""With a city's name: a comparison with it, to which "No, I am not from there" would be no answer."""
_ORDINAL = re.compile(r"\b\d+ (?:st|nd|rd|th)\b")
"""Tells of a guess which one it is: "my 20th question"."""
_BYGONE = re.compile(
    r"\b(?:former(?! soviet)|formerly|previously|once|used to (?:be|have)|ever been (?!held|hosted)|"
    r"(?:was|ever|been)\b.*\bcapital)\b"
)
"""The tables know what a city is, not what it was."""
_PAST = re.compile(r"\b(?:was|were|did|had|been)\b(?!.*\b(?:soviet|ussr)\b)")
_POWER = re.compile(
    r"\b(?:coloni\w+|colony|rule[ds]?|ruling|empires?|independen\w+|occup\w+|conquer\w*|invad\w+|annex\w+|"
    r"liberat\w+|protectorate|dominion|commonwealth|wars?|fought)\b"
)
"""With a place: who had power over whom."""
_ELSEWHERE = re.compile(
    r"\b(?:by|with|against|than|(?:un)?like|as|same|near|opposite|(?:next|close|closer|similar) to|"
    r"(?:far|away|across) from)"
    r"(?: (?:the|an?|any|some|most|all|other|another|in|of|to|as|cit\w+|countr\w+))* PLACE\b"
)
"""In an outline: the place is not said to be the city's."""
_SEAT = (
    r"(?:(?:capital|town|nation|republic|state|port|island|coast|continent)s?|cit(?:y|ies)|countr(?:y|ies)|"
    r"metropolis|megacity)\b"
)
_SEAT_FOLLOWS = re.compile(rf" (?:(?:capital|coastal|port|island|major|big|large|ancient) )?{_SEAT}")
_LOCATED = re.compile(
    rf"\b(?:(?<!spoken )(?<!used )(?:in|within|on)|{_SEAT} of)(?: (?:the|an?|your))?(?: \w+)? [A-Z]+\b"
    r"(?: (?:or|of)(?: in)? [A-Z]+\b)*|"
    rf"\b[A-Z]+(?: speaking)?{_SEAT_FOLLOWS.pattern}|\bspeaks? [A-Z]+\b|\b[A-Z]+ is spoken\b"
)
"""In an outline: a place that is certainly the city's, unlike those of "US dollars" and "a Jewish museum"."""
_MEASURED = ("population", "altitude", "era", "olympics", "time", "distance", "near")
"""Topics of which `judge` compares a number."""
_RANK = re.compile(
    r"\b(?:(?:the|\w+s)(?: \w+)? (?<!at )(?:most|least) (?!of\b|people\b|at\b)\w+|best(?! known)|worst|"
    r"\w+ernmost|(?!(?:\w*west|\w*forest|rest|near\w*|close\w*|\w*interest|modest|harvest|bucharest|budapest)\b)"
    r"\w{3,}est)\b"
    rf"(?: \w+){{0,3}}? (?:{_SEAT}|(?:part|in|of)\b)"
)
"""The tables know no ranks: "the oldest city in Europe"."""
_OF_MOST = ("known", "unknown", "landmark", "food", "language", "religion", "currency", "drives")
"""Topics of which "most" says nothing more: "the most common religion", "the tallest building"."""
_NOT_ONE_LIMIT = re.compile(r"\b(?:between|up to|density|per|country|nation|province)\b")
_SEA_LEVEL = re.compile(r"\b(?:above|below) (?:the )?sea level\b")
"""Says what is measured from, not that more or less is meant."""
_PREAMBLE = re.compile(r"(?:[^?]*(?::\s|\n))?\s*(?:\d+[.)]\s)?")
"""What language models put before a question: "Based on that, I ask: 3. Is it ...?"."""
_PROPER_NAME = re.compile(
    r"\b(?!The|Any|Major|Big|Large)(?:[A-Z]\w\w+ (?:River|Lake|Sea|Bay|Beach|Island|Mountains)|"
    r"(?:[Ll]ake|[Rr]iver|[Mm]ount|[Gg]ulf of|[Bb]ay of|[Ii]sland of) [A-Z]\w)"
)
_PART_OF = re.compile(
    r"\b(?:north|south|east|west)\w*ern\b|\bcentral (?!african)|\b(?:north|south|east|west|region) of\b|"
    r"\b(?:north|south|east|west) (?:java|luzon|honshu|coast|PLACE)"
)
_NUMBER = re.compile(
    r"\b(?:(\d+(?:\.\d+)?)|(half a|an?|one|two|three|four|five|six|seven|eight|nine|ten|fifteen|"
    r"twenty|thirty|fifty))\b(?: (hundred|thousand|million|billion|k)\b)?"
)
_WORD_NUMBERS = {
    "half a": 0.5, "a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
    "seven": 7, "eight": 8, "nine": 9, "ten": 10, "fifteen": 15, "twenty": 20, "thirty": 30,
    "fifty": 50,
}  # fmt: skip
_ARTICLES = ("a", "an", "one", "half a")
"""Number words that count nothing by themselves: "is it one of ..."."""
_SCALES = {"hundred": 1e2, "thousand": 1e3, "k": 1e3, "million": 1e6, "billion": 1e9}
_MORE = re.compile(r"\b(?:more|over|above|at least|larger|greater|bigger|exceeds?|higher|older|ahead)\b")
_LESS = re.compile(r"\b(?:less|fewer|under|below|smaller|lower|younger|behind|within|last|past|at most)\b")


@dataclass(frozen=True, slots=True)
class Query:
    """A question, understood."""

    topic: str
    """What it is about; "guess" for a bare name, "" where it was not understood."""
    asked: tuple[str, ...] = ()
    """The values that it names, e.g. ("Spanish",)."""
    places: Places = ()
    """What it names beside its topic of where the city is."""
    located: bool = True
    """The places are certainly those of the city, rather than of something in it."""
    open: bool = False
    """It wants to be told, rather than a yes or a no."""
    city: int | None = None
    """The one city that it names: a guess, whatever else it asks."""
    number: float | None = None
    more: bool = False
    less: bool = False
    text: str = ""
    problem: Problem = ""
    """Why it can't be a turn at all: several cities, or several questions at once."""


def parse(question: str) -> Query:
    """Understand a question. Any string will do; the parse of a short one is remembered."""
    if len(question) > MAX_CHARACTERS:
        return Query("", problem="questions")
    return _parse(question)


@lru_cache(maxsize=2**15)
def _parse(question: str) -> Query:
    asking = _PREAMBLE.sub("", question.rstrip(), count=1)
    text = fold(asking)
    found, outline = _read(text)
    everywhere = found if asking == question else find(fold(question))
    cities = sorted({int(value) for value in everywhere.get("city", ()) if value is not None})
    found.pop("city", None)
    if len(cities) > 1:
        return Query("", problem="cities")
    if _several_questions(question, text) or len(found.keys() - {*_PLACES, "near"}) > MAX_TOPICS:
        return Query("", problem="questions")
    query = _query(text, outline, found, cities[0] if cities else None)
    unread = _too_fine(query, asking, outline) or _undecided(query) or _elsewhere(query, outline)
    return replace(query, topic="") if unread else query


def _read(text: str) -> tuple[dict[str, list[str | None]], str]:
    """What the text speaks of, and its outline: what tells where a city is stands there as "PLACE" ..."""
    parts = list(phrases(text))
    spoken = any(("language", None) in meanings for _, meanings in parts)
    found: dict[str, list[str | None]] = {}
    outline, rest, after_city = [], text, False
    for phrase, meanings in parts:
        rest = rest[len(phrase) :]
        topics = {topic for topic, _ in meanings}
        if {"language", "country"} <= topics:  # "a Russian city", or "Russian is spoken"
            topics.remove("country" if spoken and not _SEAT_FOLLOWS.match(rest) else "language")
        if after_city and "city" not in topics:  # "Paris, France" is one place
            topics.difference_update(_PLACES)
        meant = [(topic, value) for topic, value in meanings if topic in topics]
        for topic, value in meant:
            found.setdefault(topic, []).append(value)
        outline.append(next((_MARKS[topic] for topic, value in meant if value and topic in _MARKS), phrase))
        rest, after_city = rest[1:], "city" in topics
    return found, " ".join(outline)


def _query(text: str, outline: str, found: dict[str, list[str | None]], city: int | None) -> Query:
    auxiliary = _AUXILIARY.match(text) is not None
    asks_back = not auxiliary and _WH_WORD.search(text) is not None
    is_open = asks_back or _REQUEST.search(text) is not None
    asked = {topic: tuple(v for v in values if v is not None) for topic, values in found.items()}
    topic = _topic(asked, city, is_open)
    values = tuple(dict.fromkeys(asked.get(topic, ())))
    if topic == "neighbours":
        values = tuple(dict.fromkeys(asked.pop("country", ())))
    places = _places(asked, topic, " or " in text)
    several = len(values) > 1 and topic not in _CONJUNCTIVE
    compared = _SEA_LEVEL.sub("", text)
    return Query(
        topic=topic,
        asked=values,
        places=places,
        located=city is None and _is_located(places, outline),
        open=is_open or several or _NEGATION.search(text) is not None,
        city=city,
        number=next(iter(_numbers(text)), None),
        more=_MORE.search(compared) is not None,
        less=_LESS.search(compared) is not None,
        text=text,
    )


def _topic(asked: dict[str, tuple[str, ...]], city: int | None, is_open: bool) -> str:
    """The topic of highest precedence; one that names a place beats a mere "country"."""
    if city is not None:
        return next((topic for topic in _RELATIONS if topic in asked), "guess")
    topics = [topic for topic in PRECEDENCE if topic in asked and topic not in _RELATIONS]
    if "known" in topics and not is_open:
        topics = [topic for topic in topics if topic not in _NOT_A_FAME]
    if topics and topics[0] in _PLACES and not is_open:
        return next((topic for topic in topics if asked[topic]), topics[0])
    return topics[0] if topics else ""


def _places(asked: dict[str, tuple[str, ...]], topic: str, either: bool) -> Places:
    """What tells where the city is, beside the topic; `either`: the values of a topic are alternatives."""
    beside = [
        (other, tuple(dict.fromkeys(asked[other]))) for other in _MARKS if asked.get(other) and other != topic
    ]
    return tuple(beside if either else ((other, (value,)) for other, values in beside for value in values))


def _is_located(places: Places, outline: str) -> bool:
    marks = {_MARKS[topic] for topic, _ in places}
    return marks.isdisjoint(_LOCATED.sub("", outline).split(" "))


def _elsewhere(query: Query, outline: str) -> bool:
    """Whether a place that it names is not said to be where the city is."""
    if query.open or query.topic == "guess":
        return False
    if query.places and not query.asked and query.topic in _SAY_LITTLE:
        return True
    if query.places and " or " in outline and all(len(v) < 2 for _, v in (*query.places, ("", query.asked))):
        return True  # "in Japan or on the coast"
    if "PLACE" not in outline:
        return False
    past = query.topic in _PLACES and _PAST.search(query.text) is not None
    beside = query.topic != "neighbours" and _ELSEWHERE.search(outline) is not None
    return past or beside or _POWER.search(query.text) is not None


def _too_fine(query: Query, question: str, outline: str) -> bool:
    """Whether it asks for more than the tables have: "northern Italy", "the Inle Lake"."""
    part = not query.open and query.city is None and _PART_OF.search(outline) is not None
    if query.topic in ("country", "island") or (query.topic == "sea" and not query.asked):
        return part
    if part and "PLACE" in outline:
        return True
    waters = query.topic in ("river", "lake", "sea", "beach", "island", "terrain", "landmark")
    return waters and not query.asked and _PROPER_NAME.search(question) is not None


def _undecided(query: Query) -> bool:
    """Whether a verdict on its topic would not answer it: comparison, range, count, rank, the past."""
    if query.topic == "guess":
        counted = bool(_numbers(_ORDINAL.sub("", query.text)))
        return counted or any(words.search(query.text) for words in (_NEGATION, _NOT_A_GUESS))
    if not query.open and query.topic not in _OF_MOST and _RANK.search(query.text):
        return True
    if query.open or query.number is None:
        return not query.open and _BYGONE.search(query.text) is not None
    if query.topic not in _MEASURED:
        return query.topic == "bearing" or query.more or query.less
    ranged = len(_numbers(query.text)) > 1 or (query.more and query.less)
    return ranged or any(words.search(query.text) for words in (_NOT_ONE_LIMIT, _BYGONE))


def _several_questions(question: str, text: str) -> bool:
    parts = [part for part in question.split("?") if any(c.isalnum() for c in part)]
    return len(parts) > 1 or text.count(" ") >= MAX_WORDS or bool(_SECOND_QUESTION.search(text))


def _numbers(text: str) -> list[float]:
    """The numbers of the text: "half a million", "2.5 million", "1992", "three"."""
    return [
        (float(digits) if digits else _WORD_NUMBERS[word]) * _SCALES.get(scale, 1.0)
        for digits, word, scale in _NUMBER.findall(text)
        if digits or scale or word not in _ARTICLES
    ]
