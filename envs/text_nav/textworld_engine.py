"""The same house in TextWorld (Côté et al. 2018), told in TextWorld's words.

Needs the extra `textworld`. A game is compiled with Inform 7 for each start room (seconds), once a
process; a step takes milliseconds. Compared with LMRL-Gym's modified TextWorld: the `.z8` format
puts a status line with the room's name under each text, which is cut off here; their option to
hide the location is done here by leaving out the sentence that names the room.
"""

from __future__ import annotations

import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from envs.text_nav.house import (
    CHEST,
    EATEN,
    EXITS,
    FIRST_PLACES,
    FOODS,
    FRIDGE,
    FURNITURE,
    HANDS,
    OPPOSITE,
    ROOMS,
    STALE_FOOD,
    House,
)
from envs.text_nav.wording import PLAIN_VERSIONS, Wording

try:
    import textworld
    from textworld.generator.game import Event, Quest
except ImportError as error:
    raise ImportError(
        "engine='textworld' needs TextWorld, which is not installed: "
        "install the extra, lmrl-ray[textworld], or use engine='own'"
    ) from error

_HEADER = re.compile(r"-= [^=\n]+ =-\n?")
_STATUS_LINE = re.compile(r"\n>[^\n]*\Z")
_PROMPT_AT_THE_END = re.compile(r"\s*Would you like to RESTART.*\Z", re.DOTALL)
_META_COMMANDS = ("examine", "look", "inventory")
_REFUSAL = "That is not an admissible command."


class _Game(NamedTuple):
    """A compiled game, and the place in our house that each of its entities is."""

    file: str
    places: dict[str, str]


class TextWorldEngine:
    """A running TextWorld game. Only admissible commands reach it: no `restart`, no `undo`.

    Copies, pickles and snapshots hold the start room and the commands, and play them again.
    """

    simulator = "engine"

    def __init__(self, *, full: bool) -> None:
        """`full`: the texts name rooms."""
        self._full = full
        self._running: dict[str, Any] = {}
        self._begin("kitchen")

    @property
    def house(self) -> House:
        return self._house

    @property
    def score(self) -> int:
        score: int = self._state.score
        return score

    @property
    def over(self) -> bool:
        return bool(self._state.won or self._state.lost)

    def start(self, room: str, rng: np.random.Generator) -> str:
        """Begin a game. The words do not depend on `rng`: a compiled game has one wording."""
        self._begin(room)
        goal = _goal(self._full)
        text: str = self._state.feedback
        return f"{goal}\n{_clean(text.partition(goal)[2])}"

    def admissible(self) -> list[str]:
        commands: list[str] = self._state.admissible_commands
        return [c for c in commands if not any(meta in c for meta in _META_COMMANDS)]

    def play(self, command: str) -> str:
        self._commands.append(command)
        self._state, _, _ = self._running[self._room].step(command)
        self._house = self._house_of_facts()
        return _clean(self._state.feedback)

    def refuse(self, text: str) -> str:
        return _REFUSAL

    def status(self) -> str:
        return f"You are in the {self.house.room}. {self._state.inventory}"

    def get_state(self) -> dict[str, Any]:
        return {"room": self._room, "commands": list(self._commands)}

    def set_state(self, state: dict[str, Any]) -> None:
        self._begin(state["room"])
        for command in state["commands"]:
            self.play(command)

    def __getstate__(self) -> dict[str, Any]:
        return {"full": self._full, **self.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._full = state["full"]
        self._running = {}
        self.set_state(state)

    def _begin(self, room: str) -> None:
        self._room = room
        self._commands: list[str] = []
        self._game = _compiled(room, self._full)
        if room not in self._running:
            infos = textworld.EnvInfos(feedback=True, inventory=True, admissible_commands=True, score=True)
            self._running[room] = textworld.start(self._game.file, infos)
        self._state = self._running[room].reset()
        self._house = self._house_of_facts()

    def _house_of_facts(self) -> House:
        """What TextWorld knows. (`_facts`: the public ones do not tell the three tables apart.)"""
        room, places, opened = "", dict(FIRST_PLACES), set()
        for fact in self._state._facts:
            subject, *where = fact.arguments
            name = self._game.places[subject.name]
            if fact.name == "open":
                opened.add(name)
            elif fact.name == "eaten":
                places[name] = EATEN
            elif fact.name in ("at", "in", "on"):
                place = self._game.places[where[0].name]
                if subject.type == "P":
                    room = place
                elif name in places:
                    places[name] = place
        return House(room, places, opened)


def _goal(full: bool) -> str:
    return Wording(PLAIN_VERSIONS).goal(full)


def _clean(feedback: str) -> str:
    """The text of a step without status line, room headers, blank lines and the closing prompt."""
    text = _PROMPT_AT_THE_END.sub("", _STATUS_LINE.sub("", feedback.rstrip()))
    return re.sub(r"\s*\n\s*", "\n", _HEADER.sub("", text)).strip()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where this process compiles; removed when it ends."""
    return tempfile.TemporaryDirectory(prefix="lmrl-text-nav-")


@cache
def _compiled(room: str, full: bool) -> _Game:
    """The game that starts in `room`."""
    options = textworld.GameOptions()
    options.seeds = 1234  # of the wording, as in LMRL-Gym
    options.grammar.theme = "house"
    maker = textworld.GameMaker(options)
    entities = _furnish(maker)
    maker.set_player(entities[room])
    stale, fridge = entities[STALE_FOOD], entities[FRIDGE.id]
    stored = {maker.new_fact("in", stale, fridge), maker.new_fact("closed", fridge)}
    eaten = {maker.new_fact("eaten", stale)}
    win, fail = Event(conditions=stored), Event(conditions=eaten)
    maker.quests = [Quest(win_events=[win], fail_events=[fail])]
    game = maker.build()
    game.objective = _goal(full)
    if not full:
        for told in maker.rooms:  # its first paragraph is the sentence that names it
            told.infos.desc = told.infos.desc.partition("\n\n")[2]
    file = Path(_folder().name) / f"{room.replace(' ', '-')}-{'full' if full else 'partial'}.z8"
    places = {entity.id: place for place, entity in entities.items()}
    places |= {maker.inventory.id: HANDS, maker.player.id: "player"}
    return _Game(maker.compile(str(file)), places)


def _furnish(maker: Any) -> dict[str, Any]:
    """Build rooms, furniture and things; returns them by their names in our house."""
    entities = {room: maker.new_room(room) for room in ROOMS}
    for room, ways in EXITS.items():
        for direction, neighbour in ways.items():
            if direction in ("south", "west"):  # each passage once
                back = entities[neighbour].exits[OPPOSITE[direction]]
                maker.connect(entities[room].exits[direction], back)
    for room, furniture in FURNITURE.items():
        entity = maker.new("c" if furniture.is_container else "s", name=furniture.name)
        entities[room].add(entity)
        entities[furniture.id] = entity
    for box in (CHEST, FRIDGE):
        entities[box.id].add_property("closed")
    for thing, place in FIRST_PLACES.items():
        entities[thing] = maker.new("f" if thing in FOODS else "o", name=thing)
        entities[place].add(entities[thing])
        if thing in FOODS:
            entities[thing].add_property("edible")
    return entities
