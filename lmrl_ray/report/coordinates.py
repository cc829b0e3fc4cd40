"""Parallel coordinates: an axis for each value that was searched, a line for each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Axis:
    """One vertical axis; the last one of a picture is the score."""

    name: str
    values: Sequence[Any]
    """One for each trial."""
    kind: Literal["linear", "log", "choice"]
    domain: tuple[Any, ...] | None = None
    """Where the values come from: the two ends, or all choices; None: as far as the values reach."""

    def positions(self) -> np.ndarray:
        """Where each trial crosses the axis: 0 is its foot, 1 its top."""
        return np.array([self._position(v) for v in self.values])

    def ticks(self) -> list[tuple[float, str]]:
        """Positions that are labelled: the ends and the middle, or every choice."""
        if self.kind == "choice":
            return [(self._position(v), str(v)) for v in self._domain]
        low, high = self._domain
        middle = float(np.sqrt(low * high)) if self.kind == "log" else (low + high) / 2
        return [(self._position(v), f"{v:.3g}") for v in dict.fromkeys((low, middle, high))]

    @property
    def _domain(self) -> tuple[Any, ...]:
        return self.domain if self.domain is not None else (min(self.values), max(self.values))

    def _position(self, value: Any) -> float:
        if self.kind == "choice":
            choices = self._domain
            return choices.index(value) / (len(choices) - 1) if len(choices) > 1 else 0.5
        low, high = self._domain
        if low == high:
            return 0.5
        if self.kind == "log":
            value, low, high = np.log([value, low, high])
        return float((value - low) / (high - low))


def draw_coordinates(axes: Sequence[Axis], path: Path, mode: Literal["max", "min"] = "max") -> Path:
    """Write the picture (PNG) of trials that all axes have a value of; `mode` says which scores are good."""
    figure_of(axes, mode).savefig(path, dpi=150)
    return path


def figure_of(axes: Sequence[Axis], mode: Literal["max", "min"] = "max") -> Figure:
    """The worst trial's line first, so that better ones are drawn over it, in brighter colours."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 2.0 * len(axes)), 4.5), layout="constrained")
    plot = figure.subplots()
    lines = np.stack([a.positions() for a in axes], axis=1)
    quality = lines[:, -1] if mode == "max" else 1 - lines[:, -1]
    for trial in np.argsort(quality):
        plot.plot(range(len(axes)), lines[trial], color=colormaps["viridis"](quality[trial]), alpha=0.8)
    for x, axis in enumerate(axes):
        plot.axvline(x, color="0.7", zorder=0)
        for y, label in axis.ticks():
            plot.annotate(label, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    names = [f"{a.name} (log)" if a.kind == "log" else a.name for a in axes]
    plot.set_xticks(range(len(axes)), names, fontsize=8)
    plot.set(yticks=[], xlim=(-0.1, len(axes) - 0.6), ylim=(-0.05, 1.05))
    plot.spines[:].set_visible(False)
    return figure
