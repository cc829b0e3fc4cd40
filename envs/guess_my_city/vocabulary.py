"""The vocabulary of the question parser, read from `vocabulary.toml`."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any


def words(text: str) -> tuple[str, ...]:
    """The phrases of a comma-separated list."""
    return tuple(word.strip() for word in text.split(","))


def _phrases(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {key: words(text) for key, text in table.items()}


_TABLES: dict[str, Any] = tomllib.loads(
    files(__package__).joinpath("vocabulary.toml").read_text(encoding="utf-8")
)

CUES = _phrases(_TABLES["cues"])
"""Phrases that only announce a topic. The order of the topics is their precedence."""

VALUES = {topic: _phrases(values) for topic, values in _TABLES["values"].items()}
"""Phrases that name a value, by topic and value."""

COUNTRY_WORDS = _phrases(_TABLES["countries"])
"""Other words for a country, its people included."""

GROUP_WORDS = {name: words(group["words"]) for name, group in _TABLES["groups"].items()}
GROUPS = {name: frozenset(group["members"]) for name, group in _TABLES["groups"].items()}
"""Named groups of countries, or of cities (the Andes)."""

LANDMARK_WORDS = _phrases(_TABLES["landmarks"])
"""Other words for a landmark of the notes."""

ELSEWHERE = words(_TABLES["words"]["elsewhere"])
"""Landmarks that none of the cities has."""

SHARED_LANDMARKS = frozenset(words(_TABLES["words"]["shared_landmarks"]))
"""Folded names that more than one city may claim: another city's list proves nothing."""

EVERYDAY_WORDS = frozenset(words(_TABLES["words"]["everyday"]))
"""Words of the `known_for` notes that do not say by themselves what a city is known for."""
