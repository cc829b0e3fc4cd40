"""Words: folding a question into plain tokens, and the phrases by which it names a thing.

A phrase belongs to one or more topics, with the value that it names ("spanish" is a language and
a nationality) or with None when it is only a cue ("currency").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache

from envs.guess_my_city.facts import load_cities, load_countries
from envs.guess_my_city.vocabulary import (
    COUNTRY_WORDS,
    CUES,
    ELSEWHERE,
    EVERYDAY_WORDS,
    GROUP_WORDS,
    LANDMARK_WORDS,
    VALUES,
)

Meaning = tuple[str, str | None]
"""A topic, and the value that a phrase names (None for a mere cue)."""

_TOKEN = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+")
_ABBREVIATIONS = ((re.compile(r"\bU\.?S\.?(?:A\b\.?)?(?!\w)"), " usa "),
                  (re.compile(r"\bU\.?K\b\.?"), " uk "))  # fmt: skip
_OFFSET = re.compile(r"\b(utc|gmt)\s*([+\-−–])\s*(?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_PART_OF = re.compile(r"\b(north|south|east|west)(?:ern)? (?:part|side|half) of (?=africa|europe|asia)")
_EITHER = re.compile(r"\b((?:north|south|east|west|central)(?:ern)?) or ([a-z]+) ([a-z]+)")


def fold(text: str) -> str:
    """Lower case, without accents and punctuation, words set apart by single spaces.

    >>> fold("Isn't it São Paulo's, U.S.?")
    'isnt it sao paulo usa'
    """
    for pattern, word in _ABBREVIATIONS:
        text = pattern.sub(word, text)
    text = text.lower().replace("’", "'")
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not _is_accent(c))
    text = text.replace("'s ", " ").replace("'", "").replace(":30", ".5").replace(":45", ".75")
    text = _OFFSET.sub(lambda m: f"{m[1]} {'plus' if m[2] == '+' else 'minus'} ", text)
    text = " ".join(_TOKEN.findall(_THOUSANDS.sub("", text)))
    text = _PART_OF.sub(r"\1ern ", text)
    return _EITHER.sub(r"\1 \3 or \2 \3", text)


def find(text: str) -> dict[str, list[str | None]]:
    """What the folded text speaks of: values by topic."""
    found: dict[str, list[str | None]] = {}
    for _, meanings in phrases(text):
        for topic, value in meanings:
            found.setdefault(topic, []).append(value)
    return found


def phrases(text: str) -> Iterator[tuple[str, list[Meaning]]]:
    """The folded text, phrase by phrase: at each place the longest that means something, or a word."""
    known, reach = _lexicon()
    words = text.split(" ")
    start = 0
    while start < len(words):
        for stop in range(min(len(words), start + reach.get(words[start], 1)), start, -1):
            phrase = " ".join(words[start:stop])
            if phrase in known or stop == start + 1:
                yield phrase, known.get(phrase, [])
                start = stop
                break


@cache
def _lexicon() -> tuple[dict[str, list[Meaning]], dict[str, int]]:
    """Meanings by phrase, and by first word the most words that a phrase has."""
    phrases: dict[str, list[Meaning]] = {}
    reach: dict[str, int] = {}
    for phrase, topic, value in _entries():
        meanings = phrases.setdefault(phrase, [])
        if (topic, value) not in meanings:
            meanings.append((topic, value))
        words = phrase.split(" ")
        reach[words[0]] = max(reach.get(words[0], 0), len(words))
    return phrases, reach


def _entries() -> Iterator[tuple[str, str, str | None]]:
    for number, city in enumerate(load_cities()):
        yield from ((fold(name), "city", str(number)) for name in city.names)
        for name in city.landmarks:
            yield from ((phrase, "landmark", fold(name)) for phrase in _forms(name))
        for name in city.foods:
            yield from ((phrase, "food", fold(name)) for phrase in _forms(name))
        for name in (city.river, city.lake):
            water = "lake" if name == city.lake else "river"
            yield from ((phrase, water, fold(name)) for phrase in _forms(name) if name)
        for word in known_words(city.known_for):
            yield word, "known", word
    for country in load_countries():
        yield fold(country), "country", country
    named = {
        "country": COUNTRY_WORDS,
        "group": GROUP_WORDS,
        "landmark": {fold(name): phrases for name, phrases in LANDMARK_WORDS.items()},
    }
    for topic, values in (*named.items(), *VALUES.items()):
        for value, phrases in values.items():
            yield from ((fold(phrase), topic, value) for phrase in phrases)
    yield from ((fold(phrase), "landmark", "elsewhere") for phrase in ELSEWHERE)
    for topic, phrases in CUES.items():
        yield from ((fold(phrase), topic, None) for phrase in phrases)


def known_words(phrase: str) -> Iterable[str]:
    """The words of a `known_for` note that say something: "tango", not "and"."""
    return (word for word in fold(phrase).split(" ") if word not in EVERYDAY_WORDS)


def _forms(name: str) -> Iterator[str]:
    """The phrase without its article, and the same in the other number."""
    phrase = fold(name).removeprefix("the ")
    yield phrase
    yield phrase.removesuffix("s") if phrase.endswith("s") else phrase + "s"


def _is_accent(character: str) -> bool:
    return bool(unicodedata.combining(character))
