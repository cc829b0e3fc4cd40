"""The rules of Wordle as LMRL-Gym plays it: the words, how a guess is read and how it is marked.

A mark is g (right letter, right place), y (the letter is in the word, elsewhere) or b (it is not).
The paper marks every position by itself, so a letter that the word holds once is y at both places
of a guess that holds it twice. `"standard"` is the newspaper's rule, which marks it once.

Source: LMRL-Gym (Abdulhai et al. 2023), section 4 and appendix. The word list is our own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

WORD_LENGTH = 5
MAX_TRIES = 6
OPENING = "Wordle:\n"
INVALID_FEEDBACK = "\n"
"""The reply to a guess that is no word of the list: nothing but the newline."""

FeedbackRule = Literal["paper", "standard"]
Words = tuple[str, ...]

_WORD = re.compile(f"[a-z]{{{WORD_LENGTH}}}")


def spaced(text: str) -> str:
    """The wire format of a guess or of its marks: "shire" -> "s h i r e\\n"."""
    return " ".join(text) + "\n"


WIN_FEEDBACK = spaced("g" * WORD_LENGTH)


def parse_guess(action: str) -> str:
    """The word that an action spells; whether the list holds it is for the caller to see."""
    return action.strip().replace(" ", "")


def score(guess: str, secret: str, rule: FeedbackRule = "paper") -> str:
    """The five marks of a guess, without spaces: score("shire", "third") == "bgggb"."""
    # Letters that can still earn a y. Only the standard rule uses them up.
    pool = list(secret)
    if rule == "standard":
        pool = [s for g, s in zip(guess, secret, strict=True) if g != s]
    marks = ""
    for letter, hidden in zip(guess, secret, strict=True):
        if letter == hidden:
            marks += "g"
        elif letter in pool:
            marks += "y"
            if rule == "standard":
                pool.remove(letter)
        else:
            marks += "b"
    return marks


def load_vocabulary(path: str | None = None) -> Words:
    """The words of a file, one a line (blank lines are skipped), or our own 431 for None.

    ValueError names the line that is not a word of five letters a-z, or repeats one.
    """
    if path is None:
        return _own_vocabulary()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"vocabulary: {path} cannot be read ({error}); give a text file with one word a line"
        ) from error
    return _parse_vocabulary(text.splitlines(), path)


@cache
def _own_vocabulary() -> Words:
    text = files("envs.wordle").joinpath("words.txt").read_text(encoding="ascii")
    return _parse_vocabulary(text.splitlines(), "words.txt")


def _parse_vocabulary(lines: Iterable[str], source: str) -> Words:
    first_seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        word = line.strip()
        if not word:
            continue
        if not _WORD.fullmatch(word):
            raise ValueError(
                f"vocabulary: {source}, line {number}: {word[:40]!r} is not a word of "
                f"{WORD_LENGTH} lower-case letters a-z; remove or correct the line"
            )
        if word in first_seen:
            raise ValueError(
                f"vocabulary: {source}, line {number}: {word!r} stands in line "
                f"{first_seen[word]} already; remove one of them"
            )
        first_seen[word] = number
    if not first_seen:
        raise ValueError(f"vocabulary: {source} holds no word; give at least one, one a line")
    return tuple(first_seen)
