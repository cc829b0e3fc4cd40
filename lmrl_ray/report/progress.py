"""Progress on stderr: a bar with one line of metrics in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_SHOWN = ("loss", "q/mean", "v/mean", "rollout/return", "eval/normalized_score", "seconds_per_step")
_PLAIN_EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Bar:
    """One piece of work with a known number of steps."""

    def __init__(self, display: Display, title: str, total: int, progress: Progress | None) -> None:
        self._display = display
        self._title = title
        self._total = total
        self._done = 0
        self._progress = progress
        self._task: TaskID | None = progress.add_task(title, total=total, line="") if progress else None
        self._last_line = 0.0

    def advance(self, count: int) -> None:
        self.at(self._done + count)

    def reach(self, done: int) -> None:
        self.at(done)

    def at(self, done: int, metrics: Mapping[str, float] | None = None) -> None:
        """`done` steps of the total are done."""
        self._done = done
        line = "  ".join(f"{k} {metrics[k]:.3g}" for k in _SHOWN if k in metrics) if metrics else ""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done)
            if line:
                self._progress.update(self._task, line=line)
        elif time.monotonic() - self._last_line > _PLAIN_EVERY or done >= self._total:
            self._last_line = time.monotonic()
            self._display.say(f"{self._title}: {done}/{self._total}  {line}".rstrip())


class Display:
    """Where progress goes. `quiet` shows nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        if self._quiet or not sys.stderr.isatty():
            yield Bar(self, title, total, None)
            return
        columns = (
            TextColumn("{task.description:24}"),
            BarColumn(30),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[line]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield Bar(self, title, total, progress)
