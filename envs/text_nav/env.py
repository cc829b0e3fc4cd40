"""Text-nav: find the stale food in a house of eight rooms and put it into the fridge.

The task of LMRL-Gym (section 4): a small TextWorld house in which a far-sighted agent has to
cross rooms, take, open, insert and close in the right order. `text-nav-fo` tells at every step
where the player is and what they carry; `text-nav-po` never does, and names no room at all.
"""

from __future__ import annotations

from typing import Any, Literal

from envs.core import Outcome, State, TextEnv
from envs.text_nav.engine import Engine, RuleEngine
from envs.text_nav.house import ROOMS

ADMISSIBLE = "Admissible commands: "


class TextNav(TextEnv):
    """Commands in, descriptions out; task i starts in room ROOMS[i].

    An observation is what is seen of the last command, then (full) a line that says the room and
    the inventory, then the list of admissible commands, which ends the text. A text that is not
    in the list costs a turn and changes nothing. Reward: 1 for closing the fridge on the stale
    food, which ends the game, otherwise 0; eating the stale food ends it too.
    """

    num_tasks = len(ROOMS)

    def __init__(
        self,
        observation: Literal["full", "partial"] = "full",
        engine: Literal["own", "textworld"] = "own",
        horizon: int = 15,
    ) -> None:
        """ImportError when the engine is `textworld` and that is not installed."""
        super().__init__()
        if observation not in ("full", "partial"):
            raise ValueError(f"observation: {observation!r} is neither 'full' nor 'partial'")
        if horizon < 1:
            raise ValueError(f"horizon: {horizon} is not a positive number of actions")
        self._full = observation == "full"
        self._horizon = horizon
        self._engine = _make_engine(engine, full=self._full)
        self.simulator = self._engine.simulator
        self._admissible: list[str] = []

    def privileged(self) -> dict[str, Any]:
        """The room, what is carried, where each thing is, and the shortest rest of the game."""
        house = self._engine.house
        hidden = {} if self._full else {"secret": list(ROOMS)}
        walkthrough = house.walkthrough()
        return {**house.to_state(), "carried": house.carried, "walkthrough": walkthrough, **hidden}

    def _reset(self, task_id: int) -> str:
        return self._told(self._engine.start(ROOMS[task_id], self.np_random))

    def _step(self, action: str) -> Outcome:
        engine = self._engine
        command = " ".join(action.lower().split())
        valid = command in self._admissible
        text = engine.play(command) if valid else engine.refuse(command)
        if engine.over:
            score = engine.score
            return Outcome(f"{text}\n", float(score), terminated=True, success=score > 0)
        return Outcome(self._told(text), 0.0, truncated=self._turn >= self._horizon, valid=valid)

    def _get_state(self) -> State:
        return self._engine.get_state()

    def _set_state(self, state: State) -> None:
        self._engine.set_state(state)
        self._admissible = self._engine.admissible()

    def _told(self, text: str) -> str:
        self._admissible = self._engine.admissible()
        status = f"{self._engine.status()}\n" if self._full else ""
        return f"{text}\n{status}{ADMISSIBLE}{', '.join(self._admissible)}\n"


def _make_engine(engine: str, *, full: bool) -> Engine:
    if engine == "own":
        return RuleEngine(full=full)
    if engine == "textworld":
        from envs.text_nav.textworld_engine import TextWorldEngine

        return TextWorldEngine(full=full)
    raise ValueError(f"engine: {engine!r} is neither 'own' nor 'textworld'")
