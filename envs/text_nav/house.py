"""The house: eight rooms, five pieces of furniture, seven things, one errand.

Rules as in TextWorld's knowledge base (Côté et al. 2018), map and quest as in LMRL-Gym's text-nav:
the stale food has to end in the closed fridge. Nothing here is random and nothing is wording; the
TextWorld engine reports its own facts as a `House` too, so that the two can be compared.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

ROOMS = (
    "bedroom",
    "office",
    "bathroom",
    "living room",
    "kitchen",
    "dining room",
    "garden",
    "backyard",
)
"""The start room of task i is ROOMS[i]."""

DIRECTIONS = ("north", "south", "east", "west")

_PASSAGES = (
    ("bedroom", "west", "living room"),
    ("living room", "west", "dining room"),
    ("dining room", "west", "kitchen"),
    ("kitchen", "north", "garden"),
    ("kitchen", "west", "backyard"),
    ("living room", "south", "office"),
    ("office", "east", "bathroom"),
    ("bedroom", "south", "bathroom"),
)
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


def _exits() -> dict[str, dict[str, str]]:
    exits: dict[str, dict[str, str]] = {room: {} for room in ROOMS}
    for room, direction, neighbour in _PASSAGES:
        exits[room][direction] = neighbour
        exits[neighbour][OPPOSITE[direction]] = room
    return {room: dict(sorted(ways.items())) for room, ways in exits.items()}


EXITS = _exits()
"""Room -> direction -> neighbouring room."""


class Furniture(NamedTuple):
    """What things lie on or in. `id` is the place's name; commands use `name` (three tables)."""

    id: str
    name: str
    is_container: bool


CHEST = Furniture("chest", "chest", True)
FRIDGE = Furniture("fridge", "fridge", True)
FURNITURE = {
    "bedroom": Furniture("bedroom table", "table", False),
    "living room": Furniture("living room table", "table", False),
    "dining room": Furniture("dining room table", "table", False),
    "office": CHEST,
    "kitchen": FRIDGE,
}
"""Room -> the one piece of furniture in it."""

HANDS = "hands"
EATEN = "eaten"
STALE_FOOD = "stale food"
FOODS = ("stale food", "fresh food", "fruit")
FIRST_PLACES = {
    "bowl": "bedroom table",
    "stale food": "living room table",
    "fresh food": "living room table",
    "coffee cup": "dining room table",
    "plate": "dining room table",
    "utensils": "chest",
    "fruit": "fridge",
}
"""Thing -> where it is at the start. A place is a room (its floor), furniture, hands or eaten."""
THINGS = tuple(FIRST_PLACES)


class Command(NamedTuple):
    """A command taken apart: `take` has a `target` when the thing lies on or in something."""

    verb: str
    thing: str = ""
    target: str = ""


def _commands() -> dict[str, Command]:
    found = {f"go {direction}": Command("go", direction) for direction in DIRECTIONS}
    for box in (CHEST, FRIDGE):
        found[f"open {box.name}"] = Command("open", target=box.name)
        found[f"close {box.name}"] = Command("close", target=box.name)
    for thing in THINGS:
        found[f"take {thing}"] = Command("take", thing)
        found[f"drop {thing}"] = Command("drop", thing)
        if thing in FOODS:
            found[f"eat {thing}"] = Command("eat", thing)
        for name in ("table", "chest", "fridge"):
            found[f"take {thing} from {name}"] = Command("take", thing, name)
            found[_stow(thing, name)] = Command("put", thing, name)
    return found


def _stow(thing: str, name: str) -> str:
    return f"put {thing} on table" if name == "table" else f"insert {thing} into {name}"


COMMANDS = _commands()
"""Every command that is admissible somewhere at some time."""

# A command list is built at each step, out of these pieces.
_WALKS = {room: [f"go {direction}" for direction in ways] for room, ways in EXITS.items()}
_FREE = {thing: [f"drop {thing}"] + [f"eat {thing}"] * (thing in FOODS) for thing in THINGS}
_STOW = {thing: {name: _stow(thing, name) for name in ("table", "chest", "fridge")} for thing in THINGS}
_TAKE = {
    thing: {name: f"take {thing} from {name}" for name in ("table", "chest", "fridge")} for thing in THINGS
}


@dataclass
class House:
    """Where the player and all things are."""

    room: str
    places: dict[str, str] = field(default_factory=lambda: dict(FIRST_PLACES))
    """Thing -> place, see `FIRST_PLACES`."""
    open: set[str] = field(default_factory=set)
    """Names of the open containers."""

    @property
    def won(self) -> bool:
        return self.places[STALE_FOOD] == FRIDGE.id and FRIDGE.id not in self.open

    @property
    def lost(self) -> bool:
        return self.places[STALE_FOOD] == EATEN

    @property
    def carried(self) -> list[str]:
        return self.things_at(HANDS)

    @property
    def furniture(self) -> Furniture | None:
        """The furniture of the player's room."""
        return FURNITURE.get(self.room)

    def things_at(self, place: str) -> list[str]:
        return [thing for thing, where in self.places.items() if where == place]

    def is_accessible(self, furniture: Furniture) -> bool:
        return not furniture.is_container or furniture.name in self.open

    def visible(self) -> list[str]:
        """The things that can be seen lying here: on the floor, on a table, in an open container."""
        furniture = self.furniture
        seen = self.things_at(self.room)
        if furniture is not None and self.is_accessible(furniture):
            seen += self.things_at(furniture.id)
        return seen

    def admissible(self) -> list[str]:
        """The commands that have an effect now, sorted."""
        room, furniture = self.room, self.furniture
        commands = _WALKS[room].copy()
        within_reach = furniture is not None and self.is_accessible(furniture)
        stand, name = (furniture.id, furniture.name) if furniture and within_reach else ("", "")
        for thing, place in self.places.items():
            if place == HANDS:
                commands += _FREE[thing]
                if within_reach:
                    commands.append(_STOW[thing][name])
            elif place == room:
                commands.append(f"take {thing}")
            elif place == stand:
                commands.append(_TAKE[thing][name])
        if furniture is not None and furniture.is_container:
            commands.append(f"{'close' if within_reach else 'open'} {furniture.name}")
        commands.sort()
        return commands

    def do(self, command: Command) -> None:
        """Carry out an admissible command."""
        match command.verb:
            case "go":
                self.room = EXITS[self.room][command.thing]
            case "take":
                self.places[command.thing] = HANDS
            case "put":
                self.places[command.thing] = FURNITURE[self.room].id
            case "drop":
                self.places[command.thing] = self.room
            case "eat":
                self.places[command.thing] = EATEN
            case "open":
                self.open.add(command.target)
            case _:
                self.open.discard(command.target)

    def copy(self) -> House:
        return House(self.room, dict(self.places), set(self.open))

    def walkthrough(self) -> list[str]:
        """The shortest list of commands from here to the win; empty once the game is over."""
        house, commands = self.copy(), []
        while not (house.won or house.lost):
            commands.append(house._next_command())
            house.do(COMMANDS[commands[-1]])
        return commands

    def _next_command(self) -> str:
        """Fetch the stale food, carry it to the fridge, shut the fridge."""
        place = self.places[STALE_FOOD]
        goal = "kitchen" if place == HANDS else _room_of(place)
        if self.room != goal:
            return f"go {_STEPS[goal][self.room]}"
        if place == FRIDGE.id:
            return "close fridge"
        if place == self.room:
            return f"take {STALE_FOOD}"
        furniture = FURNITURE[self.room]
        if not self.is_accessible(furniture):
            return f"open {furniture.name}"
        table = _STOW if place == HANDS else _TAKE
        return table[STALE_FOOD][furniture.name]

    def to_state(self) -> dict[str, Any]:
        """JSON-able; `House.from_state` reads it."""
        return {"room": self.room, "places": dict(self.places), "open": sorted(self.open)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> House:
        return cls(state["room"], dict(state["places"]), set(state["open"]))


def _room_of(place: str) -> str:
    return next((room for room, f in FURNITURE.items() if f.id == place), place)


def _shortest_steps(goal: str) -> dict[str, str]:
    """For each other room, the direction in which a shortest way to `goal` leaves it."""
    steps: dict[str, str] = {}
    queue = deque([goal])
    while queue:
        room = queue.popleft()
        for direction, neighbour in EXITS[room].items():
            if neighbour != goal and neighbour not in steps:
                steps[neighbour] = OPPOSITE[direction]
                queue.append(neighbour)
    return steps


_STEPS = {room: _shortest_steps(room) for room in ROOMS}
