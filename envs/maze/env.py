"""The maze of LMRL-Gym: find the goal by "move left", "move right", "move up", "move down".

Fully observed, the text names the goal, the position and the walls around it; partially observed,
the walls alone. Each move costs 1, the one that reaches the goal nothing; a text that is no move
costs `invalid_penalty`. A hundred moves may be played: the next one finds the time up.

Source: LMRL-Gym's repository, `maze/env`. The texts and this accounting are its wire format.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from envs.core import Outcome, State, TextEnv
from envs.maze.layout import ACTIONS, MOVES, Cell, Layout, make_layout

Observe = Literal["full", "partial"]

MAX_MOVES = 100
HORIZON = MAX_MOVES + 1
"""The action that finds the time up is charged as well: a failure returns -101."""

_WALLS = {
    "move right\n": "to your right",
    "move left\n": "to your left",
    "move up\n": "above you",
    "move down\n": "below you",
}
SUCCESS = "Success\n"
FAILURE = "Failure\n"


def describe_walls(layout: Layout, cell: Cell) -> str:
    """The sentence about the walls next to a cell, without a newline."""
    walls = [side for action, side in _WALLS.items() if layout.after(cell, action) == cell]
    if not walls:
        return "There are no walls near you."
    if len(walls) == 1:
        return f"There is a wall {walls[0]}."
    return f"There are walls {', '.join(walls)}."


def describe(layout: Layout, cell: Cell, observe: Observe) -> str:
    """The observation at a cell: all of it ("full") or the walls alone ("partial")."""
    walls = describe_walls(layout, cell)
    if observe == "partial":
        return f"{walls}\n"
    return (
        f"The goal is at position {_spaced(layout.goal)}. "
        f"Your current position is at position {_spaced(cell)}. {walls}\n"
    )


class MazeEnv(TextEnv):
    """The game. Task ids are the start cells, in reading order.

    Args:
        observe: "full" (goal, position and walls) or "partial" (walls).
        layout: "double_t" (the paper's), "umaze", or rows of "0" (free) and "1" (wall).
        goal: (row, column); None for that of a named layout.
        invalid_penalty: reward of an action that is not exactly one of the four; the original
            environment charges -4, the paper's text implies -1.
    """

    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 (gymnasium's own declaration)
    render_mode = "ansi"

    def __init__(
        self,
        *,
        observe: Observe = "full",
        layout: str | Sequence[str] = "double_t",
        goal: Sequence[int] | None = None,
        invalid_penalty: float = -4.0,
    ) -> None:
        super().__init__()
        if observe not in get_args(Observe):
            raise ValueError(f"observe: {observe!r} is unknown; use 'full' or 'partial'")
        if invalid_penalty > 0:
            raise ValueError(f"invalid_penalty: {invalid_penalty} is a gain; give it as -4 or 0")
        self.observe = observe
        self.layout = make_layout(layout, goal)
        self.num_tasks = len(self.layout.starts)
        self._cell = self.layout.starts[0]
        # Everything that can happen is known beforehand, so that a step is a look-up.
        self._texts = {cell: describe(self.layout, cell, observe) for cell in self.layout.cells}
        self._moves = {
            (cell, action): self._moved(self.layout.after(cell, action))
            for cell in self.layout.starts
            for action in ACTIONS
        }
        self._invalid = {
            cell: Outcome(text, float(invalid_penalty), valid=False) for cell, text in self._texts.items()
        }

    @property
    def cell(self) -> Cell:
        """Where the player is, (row, column); the agent must not read it."""
        return self._cell

    def privileged(self) -> dict[str, Any]:
        """`position` and `goal`, each [row, column]."""
        return {"position": list(self._cell), "goal": list(self.layout.goal)}

    def render(self) -> str:  # type: ignore[override]  # gymnasium allows frames of any kind
        """The map: "#" walls, "G" the goal, "P" the player."""
        marks = {self.layout.goal: "G", self._cell: "P"}
        return "\n".join(
            "".join(marks.get((r, c), "#" if mark == "1" else ".") for c, mark in enumerate(row))
            for r, row in enumerate(self.layout.rows)
        )

    def _reset(self, task_id: int) -> str:
        self._cell = self.layout.starts[task_id]
        return self._texts[self._cell]

    def _step(self, action: str) -> Outcome:
        if self._turn > MAX_MOVES:
            # Not truncated: there is no next state to take a value of, as the text hides the cell.
            return Outcome(FAILURE, -1.0, terminated=True, valid=action in MOVES)
        moved = self._moves.get((self._cell, action))
        if moved is None:
            return self._invalid[self._cell]
        self._cell, outcome = moved
        return outcome

    def _get_state(self) -> State:
        return {"position": list(self._cell)}

    def _set_state(self, state: State) -> None:
        row, column = state["position"]
        self._cell = (row, column)

    def _moved(self, cell: Cell) -> tuple[Cell, Outcome]:
        if cell == self.layout.goal:
            return cell, Outcome(SUCCESS, 0.0, terminated=True, success=True)
        return cell, Outcome(self._texts[cell], -1.0)


def _spaced(cell: Cell) -> str:
    """Row and column with a space between digits, as in (1, 10) -> "1, 1 0"."""
    return ", ".join(" ".join(str(number)) for number in cell)
