"""A plugin: algorithms that die, raise an error or wait in one learner worker at one step."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch.distributed as dist

from algos.base import register_algorithm
from algos.ilql import ILQL, ILQLConfig

FATAL_STEP = 5
FATAL_RANK = 1


class FaultyConfig(ILQLConfig):
    marker: str
    """A file; its being there prevents the fault, which makes it."""


class FaultyILQL(ILQL):
    Config = FaultyConfig
    _steps = 0

    def after_step(self) -> None:
        super().after_step()
        self._steps += 1
        rank = dist.get_rank() if dist.is_initialized() else 0
        marker = Path(self.config.marker)
        if self._steps == FATAL_STEP and rank == FATAL_RANK and not marker.exists():
            marker.touch()
            self.fail()

    def fail(self) -> None:
        raise NotImplementedError


@register_algorithm
class KilledILQL(FaultyILQL):
    """Killed as by the kernel when memory runs out."""

    id = "ilql-killed"
    title = "ILQL whose worker is killed once"

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@register_algorithm
class FailingILQL(FaultyILQL):
    id = "ilql-failing"
    title = "ILQL whose worker raises an error"

    def fail(self) -> None:
        raise ValueError(f"step {self._steps}: the moon is in the wrong phase")


@register_algorithm
class WaitingILQL(ILQL):
    """Alone it waits, after the first steps, for a second worker: only a resize lets it go on."""

    id = "ilql-waiting"
    title = "ILQL that notes how many learn, and waits until there are two"
    Config = FaultyConfig
    _steps = 0

    def after_step(self) -> None:
        super().after_step()
        self._steps += 1
        with Path(self.config.marker).open("a") as marker:
            marker.write(f"{dist.get_world_size()}\n")
        if dist.get_world_size() == 1 and self._steps == FATAL_STEP:
            time.sleep(300)
            raise TimeoutError("no second worker came")
