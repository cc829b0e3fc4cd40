"""A plugin: algorithms that die, or raise an error, in one learner worker at one step."""

from __future__ import annotations

import os
import signal
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
