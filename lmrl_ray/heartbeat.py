"""What becomes of requested episodes while they are played: counts, and a line of them now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from envs.core import Episode
from lmrl_ray.actors import RolloutError


@dataclass
class Tally:
    """Episodes that came back, of `total`. More than `max_failed_share` of them may not fail."""

    total: int
    max_failed_share: float
    done: int = 0
    failed: int = 0
    first_failure: str = ""

    def __str__(self) -> str:
        return f"{self.done} of {self.total} episodes done, {self.failed} failed"

    def add(self, episodes: Iterable[Episode]) -> None:
        """Count episodes. RolloutError, with the first one's reason, when too many have failed."""
        for episode in episodes:
            self.done += 1
            if episode.error is None:
                continue
            self.failed += 1
            if self.failed == 1:
                self.first_failure = f"seed {episode.seed}, task {episode.task_id}: {episode.error}"
        if self.failed > self.max_failed_share * self.total:
            raise RolloutError(
                f"{self.failed} of {self.total} episodes failed, more than the share of "
                f"{self.max_failed_share:g} that may (resources.max_failed_share); the first: "
                f"{self.first_failure}"
            )


@contextmanager
def heartbeat(every_s: float, line: Callable[[], str]) -> Iterator[None]:
    """While inside, print `line()` to stderr each `every_s` seconds, first after so many; 0: never."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(every_s):
            say(line())

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    if every_s:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if every_s:
            thread.join()


def say(line: str) -> None:
    """A line with the time on stderr; a progress bar that is there stays below it."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
