"""The sentences of the own engine: how a house is told, in words that vary from episode to episode.

Every sentence has four versions. Which is used is drawn once an episode (for what a room looks
like, once a room), so that a room keeps its words for as long as the episode lasts. Which version
a room got says nothing about which room it is: they all draw from the same pools.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from envs.text_nav.house import EXITS, ROOMS, Command, Furniture, House

VERSIONS = 4

Pool = tuple[str, str, str, str]

_GOAL_FULL: Pool = (
    "Your task: take the stale food from the table in the living room, put it into the fridge in "
    "the kitchen and close the fridge.",
    "Someone left stale food on the living room table. It should be in the kitchen fridge, with "
    "the fridge closed.",
    "Tidy up: the stale food in the living room has to go into the fridge in the kitchen. Leave "
    "the fridge closed.",
    "The stale food lies on the living room's table; store it in the kitchen's fridge and close the fridge.",
)
_GOAL_PARTIAL: Pool = (
    "Your task: find the stale food, put it into the fridge and close the fridge.",
    "Someone left stale food on a table. It should be in the fridge, with the fridge closed.",
    "Tidy up: the stale food has to go into the fridge. Leave the fridge closed.",
    "The stale food lies on one of the tables; store it in the fridge and close the fridge.",
)
_STATUS: Pool = (
    "You are in the {room}, carrying {things}.",
    "This is the {room}. You carry {things}.",
    "You stand in the {room}. In your hands: {things}.",
    "Place: {room}. You hold {things}.",
)
_LADEN: Pool = (
    "There is a {name} here with {things} on it.",
    "A {name} stands here, and on it {things}.",
    "You see a {name}. It holds {things}.",
    "On a {name} you notice {things}.",
)
_BARE: Pool = (
    "There is a {name} here with nothing on it.",
    "A {name} stands here, bare.",
    "You see a {name}. It is empty.",
    "You notice a {name} and nothing on it.",
)
_SHUT: Pool = (
    "There is a {name} here. It is closed.",
    "A closed {name} stands here.",
    "You see a {name}, shut.",
    "You notice a {name} that is closed.",
)
_FILLED: Pool = (
    "There is an open {name} here with {things} in it.",
    "An open {name} stands here, and in it {things}.",
    "You see an open {name}. It holds {things}.",
    "In an open {name} you notice {things}.",
)
_HOLLOW: Pool = (
    "There is an open {name} here with nothing in it.",
    "An open {name} stands here, empty.",
    "You see an open {name}. It is empty.",
    "You notice an open {name} and nothing in it.",
)
_FLOOR: Pool = (
    "On the floor: {things}.",
    "Someone has put {things} on the floor.",
    "The floor is not empty: {things}.",
    "At your feet you find {things}.",
)
_EXITS: Pool = (
    "You can go {ways}.",
    "There is a way {ways}.",
    "From here you can leave to the {ways}.",
    "It goes on to the {ways}.",
)
_REPLIES: dict[str, Pool] = {
    "take": (
        "You pick up the {thing}.",
        "You now hold the {thing}.",
        "Taken: the {thing}.",
        "The {thing} comes with you.",
    ),
    "put": (
        "You leave the {thing} {where} the {target}.",
        "The {thing} is now {where} the {target}.",
        "Stowed: the {thing}, {where} the {target}.",
        "You set the {thing} down {where} the {target}.",
    ),
    "drop": (
        "You leave the {thing} on the floor.",
        "The {thing} is now on the floor.",
        "Dropped: the {thing}.",
        "You set the {thing} down at your feet.",
    ),
    "eat": (
        "You have eaten the {thing}.",
        "The {thing} is gone; it was a meal.",
        "Eaten: the {thing}.",
        "You swallow the last bite of the {thing}.",
    ),
    "open": (
        "The {target} is open now. Inside: {things}.",
        "You open the {target} and find {things}.",
        "Opened: the {target}. It holds {things}.",
        "The {target} swings open; in it you see {things}.",
    ),
    "close": (
        "The {target} is closed now.",
        "You shut the {target}.",
        "Closed: the {target}.",
        "The {target} falls shut.",
    ),
}
_NO_WAY: Pool = (
    "There is no way {way} from here.",
    "You cannot go {way} here.",
    "A wall: nothing leads {way}.",
    "To the {way} it does not go on.",
)
_NOT_NOW: Pool = (
    "That cannot be done here and now.",
    "As things are, this is not possible.",
    "It does not work.",
    "You cannot do that now.",
)
_UNKNOWN: Pool = (
    "That is no command.",
    "You do not know how to do that.",
    "No such command is known here.",
    "These words lead nowhere.",
)
_WON: Pool = (
    "The stale food is where it belongs. Well done!",
    "That was the task. You have done it!",
    "Everything is as it should be: you win.",
    "The errand is finished, with success.",
)
_LOST: Pool = (
    "It can no longer be put away: you lose.",
    "That was not the task, and it cannot be mended.",
    "Now the errand can never be finished.",
    "With that you have failed.",
)

_WITH_ARTICLE = {
    "bowl": "a bowl",
    "stale food": "some stale food",
    "fresh food": "some fresh food",
    "coffee cup": "a coffee cup",
    "plate": "a plate",
    "utensils": "some utensils",
    "fruit": "some fruit",
}
_GENERAL = ("goal", "status", *_REPLIES, "no way", "not now", "unknown", "won", "lost")
_OF_A_ROOM = ("furniture", "floor", "exits")
PLAIN_VERSIONS = (0,) * (len(_GENERAL) + len(_OF_A_ROOM) * len(ROOMS))
"""The first version of each sentence: the general ones, then those of each room."""


def listed(words: Sequence[str], last: str = "and") -> str:
    """a / a and b / a, b and c."""
    *head, tail = words
    return f"{', '.join(head)} {last} {tail}" if head else tail


def named(things: Sequence[str]) -> str:
    """Things with their articles, "nothing" for none."""
    return listed([_WITH_ARTICLE[thing] for thing in things]) if things else "nothing"


_WAYS = {room: listed(tuple(ways), "or") for room, ways in EXITS.items()}


class Wording:
    """One episode's choice of words: a version number for each kind of sentence."""

    def __init__(self, versions: Sequence[int]) -> None:
        """`versions` has the order of `PLAIN_VERSIONS`."""
        self.versions = list(versions)
        self._general = dict(zip(_GENERAL, self.versions, strict=False))
        per_room = len(_OF_A_ROOM)
        starts = range(len(_GENERAL), len(self.versions), per_room)
        self._rooms = {
            room: self.versions[start : start + per_room] for room, start in zip(ROOMS, starts, strict=True)
        }

    def goal(self, full: bool) -> str:
        """What the player is asked to do; with the names of the rooms only when they can be seen."""
        return (_GOAL_FULL if full else _GOAL_PARTIAL)[self._general["goal"]]

    def room(self, house: House) -> str:
        """What can be seen in the player's room. It does not name the room."""
        furniture_version, floor_version, exits_version = self._rooms[house.room]
        sentences = []
        if house.furniture is not None:
            sentences.append(_furniture(house, house.furniture, furniture_version))
        on_floor = house.things_at(house.room)
        if on_floor:
            sentences.append(_FLOOR[floor_version].format(things=named(on_floor)))
        sentences.append(_EXITS[exits_version].format(ways=_WAYS[house.room]))
        return " ".join(sentences)

    def status(self, house: House) -> str:
        """Where the player is and what they carry."""
        pool = _STATUS[self._general["status"]]
        return pool.format(room=house.room, things=named(house.carried))

    def reply(self, house: House, command: Command) -> str:
        """What is said after a command other than `go` was carried out; `house` is as it left it."""
        verb, thing, target = command
        return _REPLIES[verb][self._general[verb]].format(
            thing=thing,
            target=target,
            where="on" if target == "table" else "in",
            things=named(house.things_at(target)) if verb == "open" else "",
        )

    def refusal(self, command: Command | None) -> str:
        """What is said to a command that is not admissible, or to None: not a command at all."""
        if command is None:
            return _UNKNOWN[self._general["unknown"]]
        if command.verb == "go":
            return _NO_WAY[self._general["no way"]].format(way=command.thing)
        return _NOT_NOW[self._general["not now"]]

    def verdict(self, won: bool) -> str:
        """The last sentence of a game that was won or lost."""
        return _WON[self._general["won"]] if won else _LOST[self._general["lost"]]


def draw_versions(rng: np.random.Generator) -> list[int]:
    """Version numbers for a new episode."""
    versions: list[int] = rng.integers(VERSIONS, size=len(PLAIN_VERSIONS)).tolist()
    return versions


def _furniture(house: House, furniture: Furniture, version: int) -> str:
    things = house.things_at(furniture.id)
    if not furniture.is_container:
        pool = _LADEN if things else _BARE
    elif furniture.name not in house.open:
        pool = _SHUT
    else:
        pool = _FILLED if things else _HOLLOW
    return pool[version].format(name=furniture.name, things=named(things))
