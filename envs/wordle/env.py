"""Wordle: find a hidden word of five letters in six tries, told by marks on each guess.

The published task draws the word lazily, at each guess from the words that are still possible.
Ours is drawn at reset, uniformly: the feedback has the same distribution either way (each feedback
comes up in proportion to the words behind it), and an episode has a word that can be named.

Source: LMRL-Gym, section 4 and appendix.
"""

from __future__ import annotations

import math
from typing import Any, get_args

from envs.core import Outcome, State, TextEnv
from envs.wordle.rules import (
    INVALID_FEEDBACK,
    MAX_TRIES,
    OPENING,
    WIN_FEEDBACK,
    FeedbackRule,
    load_vocabulary,
    parse_guess,
    score,
    spaced,
)


class WordleEnv(TextEnv):
    """The reward is 0 for the winning guess and -1 for any other, so a return lies in [-6, 0].

    Six tries are the game's own rule: the sixth ends it as lost (terminated), not as cut short.
    A guess that is no word of the list costs a try and tells nothing.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (gymnasium's own declaration)
    render_mode = "ansi"

    def __init__(
        self,
        vocabulary: str | None = None,
        invalid_reward: float = -1.0,
        feedback: FeedbackRule = "paper",
    ) -> None:
        """Args:
            vocabulary: path of a word list, one word a line; None for our own.
            invalid_reward: reward of a guess that is not in the list. The published training
                scripts of the RL methods use -10, everything else -1.
            feedback: "paper" marks each position by itself, "standard" counts repeated letters.

        ValueError where an argument is none of these.
        """
        super().__init__()
        if feedback not in get_args(FeedbackRule):
            raise ValueError(f"feedback: {feedback!r} is neither 'paper' nor 'standard'")
        if not math.isfinite(invalid_reward):
            raise ValueError(f"invalid_reward: {invalid_reward} is not a finite number")
        self.words = load_vocabulary(vocabulary)
        self.feedback: FeedbackRule = feedback
        self.num_tasks = len(self.words)
        self._invalid_reward = float(invalid_reward)
        self._known = frozenset(self.words)
        self._secret = self.words[0]
        self._board: list[tuple[str, str]] = []

    def privileged(self) -> dict[str, Any]:
        """The hidden word."""
        return {"secret": self._secret}

    def render(self) -> str:  # type: ignore[override]  # gymnasium's type variable is unbound
        """The board as a person would like to see it: each guess above its marks."""
        lines = [f"Wordle: {len(self._board)} of {MAX_TRIES} tries used"]
        found: set[str] = set()
        tried: set[str] = set()
        for guess, marks in self._board:
            if not marks:
                lines += ["", f"  {guess[:40]!r} is not in the word list"]
                continue
            lines += ["", f"  {' '.join(guess.upper())}", f"  {' '.join(marks).replace('b', '.')}"]
            tried |= set(guess)
            found |= {letter for letter, mark in zip(guess, marks, strict=True) if mark != "b"}
        lines += ["", "g: right place   y: elsewhere in the word   .: no (more) such letter"]
        lines.append(f"not in the word: {' '.join(sorted(tried - found)) or '-'}")
        return "\n".join(lines) + "\n"

    def _reset(self, task_id: int) -> str:
        self._secret = self.words[task_id]
        self._board = []
        return OPENING

    def _step(self, action: str) -> Outcome:
        guess = parse_guess(action)
        out_of_tries = self._turn == MAX_TRIES
        if guess not in self._known:
            self._board.append((guess, ""))
            penalty = self._invalid_reward
            return Outcome(INVALID_FEEDBACK, penalty, terminated=out_of_tries, valid=False)
        marks = score(guess, self._secret, self.feedback)
        self._board.append((guess, marks))
        text = spaced(marks)
        if text == WIN_FEEDBACK:
            return Outcome(text, 0.0, terminated=True, success=True)
        return Outcome(text, -1.0, terminated=out_of_tries)

    def _get_state(self) -> State:
        return {"board": [list(row) for row in self._board]}

    def _set_state(self, state: State) -> None:
        self._secret = self.words[self._task_id]
        self._board = [(guess, marks) for guess, marks in state["board"]]
