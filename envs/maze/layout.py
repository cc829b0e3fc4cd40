"""Maps of the maze: free cells, moves and shortest ways.

A cell is (row, column), counted from 0 at the upper left. Source of the two named maps:
LMRL-Gym's repository ("double_t_maze", on which all published results are, and "umaze").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

Cell = tuple[int, int]

MOVES: dict[str, Cell] = {
    "move left\n": (0, -1),
    "move right\n": (0, 1),
    "move up\n": (-1, 0),
    "move down\n": (1, 0),
}
"""The legal actions, exactly as they must be written, and their (row, column) steps."""

ACTIONS = tuple(MOVES)


@dataclass(frozen=True)
class Layout:
    """A map: rows of "0" (free) and "1" (wall), and the goal. What lies outside is wall.

    Raises ValueError when the rows are ragged or hold other characters, when the goal is not a
    free cell, or when the goal cannot be reached from every free cell.
    """

    rows: tuple[str, ...]
    goal: Cell

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if not isinstance(row, str) or set(row) - {"0", "1"}:
                raise ValueError(
                    f"layout: row {number} is {row!r}; write a quoted string of '0' (free) and '1' (wall)"
                )
            if len(row) != len(self.rows[0]):
                raise ValueError(
                    f"layout: row {number} has {len(row)} columns and row 0 has "
                    f"{len(self.rows[0])}; make them equal"
                )
        if not self.is_free(self.goal):
            raise ValueError(f"goal: {self.goal} is not a free cell of the layout; choose a '0'")
        cut_off = set(self.cells) - set(self.distances(self.goal))
        if cut_off:
            raise ValueError(
                f"layout: the goal {self.goal} cannot be reached from {min(cut_off)}; "
                "open a way or wall the cell up"
            )
        if not self.starts:
            raise ValueError("layout: the goal is the only free cell; there is no start")

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The free cells in reading order."""
        return tuple((r, c) for r, row in enumerate(self.rows) for c, mark in enumerate(row) if mark == "0")

    @cached_property
    def starts(self) -> tuple[Cell, ...]:
        """The free cells but for the goal, in reading order: start i is task id i."""
        return tuple(cell for cell in self.cells if cell != self.goal)

    def is_free(self, cell: Cell) -> bool:
        row, column = cell
        return 0 <= row < len(self.rows) and 0 <= column < len(self.rows[0]) and self.rows[row][column] == "0"

    def after(self, cell: Cell, action: str) -> Cell:
        """Where a legal action leads; into a wall is nowhere."""
        step = MOVES[action]
        target = (cell[0] + step[0], cell[1] + step[1])
        return target if self.is_free(target) else cell

    def distances(self, target: Cell, within: Collection[Cell] | None = None) -> dict[Cell, int]:
        """Moves to `target` from each cell that can reach it (inside `within`, when given)."""
        found, queue = {target: 0}, deque([target])
        while queue:
            cell = queue.popleft()
            for action in ACTIONS:  # moves go both ways, so the search may run backwards
                neighbour = self.after(cell, action)
                if neighbour not in found and (within is None or neighbour in within):
                    found[neighbour] = found[cell] + 1
                    queue.append(neighbour)
        return found

    def way(self, target: Cell, within: Collection[Cell] | None = None) -> dict[Cell, str]:
        """The first move of a shortest way to `target`, by cell."""
        distance = self.distances(target, within)
        return {
            cell: min(ACTIONS, key=lambda action: distance.get(self.after(cell, action), steps))
            for cell, steps in distance.items()
            if steps
        }


DOUBLE_T = Layout(
    rows=(
        "1111111111111",
        "1000001000001",
        "1110111110111",
        "1110111110111",
        "1110111110111",
        "1110000000111",
        "1111110111111",
        "1111110111111",
        "1111110111111",
        "1111111111111",
    ),
    goal=(8, 6),
)
UMAZE = Layout(rows=("11111", "10001", "10101", "10101", "11111"), goal=(3, 3))
NAMED = {"double_t": DOUBLE_T, "umaze": UMAZE}


def make_layout(layout: str | Sequence[str], goal: Sequence[int] | None) -> Layout:
    """A named layout, or the user's own rows with a goal. ValueError says what is wrong."""
    if isinstance(layout, str):
        if layout not in NAMED:
            raise ValueError(f"layout: {layout!r} is unknown; use {' or '.join(NAMED)}, or a list of rows")
        rows = NAMED[layout].rows
        position = NAMED[layout].goal if goal is None else goal
    elif goal is None:
        raise ValueError("goal: missing; a layout of your own needs a goal (row, column)")
    else:
        rows, position = tuple(layout), goal
    if len(position) != 2 or not all(isinstance(number, int) for number in position):
        raise ValueError(f"goal: {position!r} is not (row, column)")
    return Layout(rows, (position[0], position[1]))
