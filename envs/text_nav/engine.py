"""What keeps the house and tells about it: the interface of an engine, and our own one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from envs.text_nav.house import COMMANDS, House
from envs.text_nav.wording import PLAIN_VERSIONS, Wording, draw_versions


class Engine(Protocol):
    """A running game. Texts are without a newline at the end."""

    simulator: str

    @property
    def house(self) -> House:
        """Where everything is now; not to be changed."""

    @property
    def score(self) -> int:
        """1 when the errand is done, else 0."""

    @property
    def over(self) -> bool:
        """Won or lost."""

    def start(self, room: str, rng: np.random.Generator) -> str:
        """Begin a game in a room; returns the errand and what can be seen."""

    def admissible(self) -> list[str]:
        """The commands that can be carried out now, sorted."""

    def play(self, command: str) -> str:
        """Carry out an admissible command; returns what is seen of it."""

    def refuse(self, text: str) -> str:
        """The answer to anything that is not an admissible command."""

    def status(self) -> str:
        """Where the player is and what they carry (told in the fully observed task only)."""

    def get_state(self) -> dict[str, Any]:
        """JSON-able."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""


class RuleEngine:
    """The rules of `house.py` in the words of `wording.py`."""

    simulator = "rule"

    def __init__(self, *, full: bool) -> None:
        """`full`: the errand may name rooms."""
        self._full = full
        self.house = House("kitchen")
        self._wording = Wording(PLAIN_VERSIONS)

    @property
    def score(self) -> int:
        return int(self.house.won)

    @property
    def over(self) -> bool:
        return self.house.won or self.house.lost

    def start(self, room: str, rng: np.random.Generator) -> str:
        self.house = House(room)
        self._wording = Wording(draw_versions(rng))
        return f"{self._wording.goal(self._full)}\n{self._wording.room(self.house)}"

    def admissible(self) -> list[str]:
        return self.house.admissible()

    def play(self, command: str) -> str:
        house, parsed = self.house, COMMANDS[command]
        house.do(parsed)
        if parsed.verb == "go":
            return self._wording.room(house)
        reply = self._wording.reply(house, parsed)
        if self.over:
            reply += f" {self._wording.verdict(house.won)}"
        return reply

    def refuse(self, text: str) -> str:
        return self._wording.refusal(COMMANDS.get(text))

    def status(self) -> str:
        return self._wording.status(self.house)

    def get_state(self) -> dict[str, Any]:
        return {"house": self.house.to_state(), "wording": self._wording.versions}

    def set_state(self, state: dict[str, Any]) -> None:
        self.house = House.from_state(state["house"])
        self._wording = Wording(state["wording"])
