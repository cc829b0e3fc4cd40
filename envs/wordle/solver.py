"""What a player can conclude: which words are still possible, and which of them tells the most.

The marks of every guess against every word are computed once, as a table of codes in base 3.
Ranking the words by information gain is remembered for each set of candidates, so that playing
many games costs little more than looking things up.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from envs.wordle.rules import WORD_LENGTH, FeedbackRule, Words, spaced

Indices = NDArray[np.intp]
"""Words, as positions in the vocabulary."""

Bytes = NDArray[np.uint8]

_CODE_OF = {spaced("".join(m)): code for code, m in enumerate(product("byg", repeat=WORD_LENGTH))}
"""Feedback text -> its code: base 3, b = 0, y = 1, g = 2, first letter first."""

_TIE = 1e-9


@lru_cache(maxsize=4)
def solver_for(words: Words, rule: FeedbackRule) -> Solver:
    """The solver of a vocabulary, shared by all players in the process."""
    return Solver(words, rule)


class Solver:
    """Reasoning over one vocabulary of W words; holds a table of W x W bytes."""

    def __init__(self, words: Words, rule: FeedbackRule) -> None:
        self.all: Indices = np.arange(len(words))
        self._table = feedback_table(words, rule)
        self._ranked: dict[bytes, Indices] = {}

    def consistent(self, candidates: Indices, guess: int, feedback: str) -> Indices:
        """Those candidates that would have answered `guess` with this feedback text."""
        kept: Indices = candidates[self._table[guess, candidates] == _CODE_OF[feedback]]
        return kept

    def most_informative(self, candidates: Indices) -> Indices:
        """The candidates of maximum information gain: several where they tie.

        The gain is the entropy of the feedback when every candidate is equally likely.
        """
        key = candidates.tobytes()
        best = self._ranked.get(key)
        if best is None:
            gain = self._information_gain(candidates)
            best = self._ranked[key] = candidates[gain >= gain.max() - _TIE]
        return best

    def _information_gain(self, candidates: Indices) -> NDArray[np.float64]:
        """[C] entropy in nats of the feedback to each candidate."""
        n = len(candidates)
        # n log n by count, so that an empty feedback class is worth 0 and not a NaN
        sizes = np.arange(1, n + 1)
        weight = np.concatenate([[0.0], sizes * np.log(sizes)])
        rows = (self._table[guess, candidates] for guess in candidates)
        expected = np.array([weight[np.bincount(row)].sum() for row in rows]) / n
        gain: NDArray[np.float64] = np.log(n) - expected
        return gain


def feedback_table(words: Words, rule: FeedbackRule) -> Bytes:
    """[W, W] code of the marks of guess i against word j; the vectorised form of `score`."""
    letters = np.frombuffer("".join(words).encode("ascii"), np.uint8).reshape(-1, WORD_LENGTH)
    table = np.empty((len(words), len(words)), np.uint8)
    for guess, row in zip(letters, table, strict=True):
        row[:] = _codes(guess, letters, rule)
    return table


def _codes(guess: Bytes, letters: Bytes, rule: FeedbackRule) -> Bytes:
    """[W] codes of one guess [5] against all words [W, 5]."""
    green = letters == guess
    code = np.zeros(len(letters), np.uint8)
    for place, letter in enumerate(guess):
        present = letters == letter
        if rule == "paper":
            yellow = present.any(axis=1)
        else:
            free = (present & ~green).sum(axis=1)
            taken = (~green[:, :place] & (guess[:place] == letter)).sum(axis=1)
            yellow = free > taken
        code = code * 3 + np.where(green[:, place], 2, yellow).astype(np.uint8)
    return code
