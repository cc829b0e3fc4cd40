"""Which attribute a question asks for, if any.

`lexicon.toml` lists wordings by attribute; a wording stands for all that have its key
(`phrases.key`). Out of what the lexicon knows a question may put two together ("Is it a red
fruit?", "Is it made of wood or metal?", "Is it a vehicle that flies?"), and it may compare sizes
("Is it bigger than a dog?").
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from envs.twenty_questions.knowledge import Attribute, bit_set, knowledge
from envs.twenty_questions.phrases import clean, key

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_COMPARISON = re.compile(r"^(bigger|smaller) than (.+)$")
_CLEARLY = 1.25
"""Sizes that differ by less than this factor are not compared."""
_OTHER_SIZES = {"hand": 14.0, "book": 20.0, "laptop": 27.0, "bicycle": 120.0, "door": 130.0}
"""Centimetres, as in the table: what people compare with that is not in it."""
_QUALIFIED = re.compile(
    r"^((?:is|are) (?:it|this|that|they) (?:a |an |some )?.+?)"
    r" ((?:that|which|with|people|you|used|worn|found|made) .+)$"
)
_ADJECTIVES = (
    "red yellow green orange white black brown blue big large small heavy tall round flat soft hard"
    " sharp long sweet juicy crunchy tropical edible living wild dangerous expensive electric"
    " electronic metal wooden plastic paper glass leather rubber rectangular handheld"
)


@cache
def wordings() -> dict[str, tuple[str, ...]]:
    """By attribute id, the wordings that scripted players choose from ("Is it alive?")."""
    return {attribute: tuple(entry["ask"]) for attribute, entry in _lexicon().items()}


def understand(text: str) -> Attribute | None:
    """The attribute that a cleaned question asks for; None where it cannot be understood."""
    asked = key(text)
    return (
        _known_keys().get(asked)
        or _comparison(asked)
        or _with_adjective(asked)
        or _joined(text)
        or _qualified(text)
    )


def _comparison(asked: str) -> Attribute | None:
    """ "bigger than dog": an object of about that size is in doubt, but nothing beats itself."""
    found = _COMPARISON.match(asked)
    size = _sizes().get(found[2]) if found else None
    if found is None or size is None:
        return None
    sizes = [(i, t.size) for i, t in enumerate(knowledge().things) if t.size is not None]
    bigger = bit_set(i for i, s in sizes if s > size * _CLEARLY)
    smaller = bit_set(i for i, s in sizes if s * _CLEARLY < size)
    itself = bit_set(i for i, t in enumerate(knowledge().things) if key(t.name.lower()) == found[2])
    if found[1] == "bigger":
        return Attribute(asked, bigger, smaller | itself)
    return Attribute(asked, smaller, bigger | itself)


def _with_adjective(asked: str) -> Attribute | None:
    """ "red fruit". Only listed words may stand in front: "water vehicle" is no water."""
    adjective, _, rest = asked.partition(" ")
    first = _adjectives().get(adjective)
    second = _known_keys().get(rest)
    return first & second if first and second else None


def _joined(text: str) -> Attribute | None:
    """ "is it made of wood or metal": of two parts, the second within the frame of the first."""
    for word in ("or", "and"):
        left, joint, right = text.partition(f" {word} ")
        if not joint:
            continue
        first = _known_keys().get(key(left))
        if first is None:
            return None
        frame = left.split()
        frames = (" ".join(frame[:length]) for length in range(len(frame) - 1, 1, -1))
        second = next(filter(None, (_known_keys().get(key(f"{f} {right}")) for f in frames)), None)
        if second is None:
            return None
        return first | second if word == "or" else first & second
    return None


def _qualified(text: str) -> Attribute | None:
    """ "is it a vehicle that flies": of two parts as well."""
    parts = _QUALIFIED.match(text)
    if parts is None:
        return None
    first = _known_keys().get(key(parts[1]))
    second = _known_keys().get(key(f"is it something {parts[2]}"))
    return first & second if first and second else None


@cache
def _known_keys() -> dict[str, Attribute]:
    """What each key of the lexicon asks. ValueError where two attributes share a key."""
    attributes = {attribute.id: attribute for attribute in knowledge().attributes}
    known: dict[str, Attribute] = {}
    for attribute_id, entry in _lexicon().items():
        for field in ("ask", "also", "not"):
            asked = attributes[attribute_id]
            if field == "not":
                asked = asked.opposite()
                asked = asked & attributes[entry["among"]] if "among" in entry else asked
            for wording in (w for pattern in entry.get(field, ()) for w in _expand(pattern)):
                text = clean(wording)
                if text is None or known.setdefault(key(text), asked) != asked:
                    other = "nothing" if text is None else known[key(text)].id
                    raise ValueError(
                        f"lexicon.toml: {attribute_id}: {wording!r} reads like {other}: reword it"
                    )
    return known


@cache
def _adjectives() -> dict[str, Attribute]:
    return {key(word): _known_keys()[key(word)] for word in _ADJECTIVES.split()}


@cache
def _sizes() -> dict[str, float]:
    """Centimetres by the key of a name."""
    named = {a.lower(): t.size for t in knowledge().things for a in t.aliases if t.size is not None}
    return {key(name): size for name, size in (_OTHER_SIZES | named).items()}


@cache
def _lexicon() -> dict[str, dict[str, Any]]:
    text = resources.files(__package__).joinpath("lexicon.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _expand(pattern: str) -> Iterator[str]:
    """All the readings of "is it [big|small] in [size|]"."""
    choice = _CHOICE.search(pattern)
    if choice is None:
        yield pattern
        return
    for option in choice[1].split("|"):
        yield from _expand(pattern[: choice.start()] + option + pattern[choice.end() :])
