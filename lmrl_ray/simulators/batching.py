"""A language model that many environments ask at a time, and that answers in batches.

Those who ask wait in a queue of limited length: where it is full, they wait for room, and whoever has
waited too long gets an error that names the model rather than no answer at all.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from algos.generation import Generator
from envs.answering import Request
from lmrl_ray.simulators import SimulatorError, load

_LINGER_S = 0.002
"""How long a batch waits for one more request: environments that were stepped together ask within it."""


@dataclass(frozen=True)
class _Asked:
    request: Request
    line: Future[str] = field(default_factory=Future)


class BatchedModel:
    """A `TextModel` of weights in this process; `complete` may be called from any thread.

    Args:
        read: reads the weights; called when the first line is asked for.
        name: what errors call it.
        max_batch: requests of one batch.
        max_waiting: requests in the queue; more wait for room.
        timeout_s: longest wait for a line, room in the queue included.
    """

    kind = "lm"

    def __init__(
        self,
        read: Callable[[], Generator],
        name: str,
        *,
        max_batch: int = 64,
        max_waiting: int = 256,
        timeout_s: float = 300.0,
    ) -> None:
        self._generator = cache(read)
        self._name = name
        self._max_batch = max_batch
        self._timeout = timeout_s
        self._waiting: queue.Queue[_Asked] = queue.Queue(max_waiting)
        self.largest_batch = 0
        threading.Thread(target=self._serve, name=f"simulator {name}", daemon=True).start()

    def complete(self, request: Request) -> str:
        """One line. SimulatorError when there is none within `timeout_s`, or the model failed."""
        asked, deadline = _Asked(request), time.monotonic() + self._timeout
        try:
            self._waiting.put(asked, timeout=self._timeout)
        except queue.Full:
            waiting = self._waiting.maxsize
            raise self._late(f"had {waiting} requests waiting and no room for one more") from None
        try:
            return asked.line.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            asked.line.cancel()
            raise self._late("gave no answer") from None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, here or in another process, is the model that is loaded there under the name."""
        return load, (self._name,)

    def _late(self, what: str) -> SimulatorError:
        return SimulatorError(f"simulator {self._name!r} {what} for {self._timeout:g} s")

    def _serve(self) -> None:
        while True:
            batch = [a for a in self._next_batch() if a.line.set_running_or_notify_cancel()]
            if not batch:
                continue
            self.largest_batch = max(self.largest_batch, len(batch))
            try:
                lines = self._generator().lines([a.request for a in batch])
            except Exception as error:
                for asked in batch:
                    asked.line.set_exception(
                        SimulatorError(f"simulator {self._name!r}: {type(error).__name__}: {error}")
                    )
                continue
            for asked, line in zip(batch, lines, strict=True):
                asked.line.set_result(line)

    def _next_batch(self) -> list[_Asked]:
        """Whatever is waiting, and what comes within a moment."""
        batch = [self._waiting.get()]
        end = time.monotonic() + _LINGER_S
        while len(batch) < self._max_batch:
            try:
                batch.append(self._waiting.get(timeout=max(0.0, end - time.monotonic())))
            except queue.Empty:
                break
        return batch
