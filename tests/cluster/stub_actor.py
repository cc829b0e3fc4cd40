"""A rollout actor without a network: two hundred of them import no torch, and fit on a small machine."""

from __future__ import annotations

import random
import sys
import time

from lmrl_ray.actors import ManagedActor

PAUSE_S = 0.05
"""What a group takes, so that a signal finds actors at work."""

Line = tuple[int, int, str]
"""Index and seed of an episode, and what was said in it."""


def said(seed: int) -> str:
    return f"{random.Random(seed).random()}\n"


class StubActor(ManagedActor):
    def play(self, group: list[tuple[int, int]]) -> list[Line]:
        time.sleep(PAUSE_S)
        return [(index, seed, said(seed)) for index, seed in group]

    def heavy(self) -> list[str]:
        """Modules that cost too much to be imported 200 times."""
        return [name for name in ("torch", "transformers", "gymnasium") if name in sys.modules]
