"""What the benchmarks share: a task of exactly 20 turns, and figures printed one a line.

Importing it registers the task `bench-dialogue`. It is also given to rollout actors as a plugin.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from algos import models
from algos.models import LanguageModel
from envs.core import Outcome, State, TextEnv
from envs.registry import Scale, TaskSpec, register

TURNS = 20
ACTION_TOKENS = 16
_WORDS = ["apple", "big", "car", "deal", "fair", "good", "home", "idea", "low", "nice", "offer", "price"]


class Dialogue(TextEnv):
    """A partner that says 10 words a turn, whatever it hears, and hangs up after 20 answers."""

    def _reset(self, task_id: int) -> str:
        return self._line()

    def _step(self, action: str) -> Outcome:
        return Outcome(self._line(), reward=-1.0, terminated=self._turn == TURNS)

    def privileged(self) -> dict[str, Any]:
        return {}

    def _get_state(self) -> State:
        return {}

    def _set_state(self, state: State) -> None:
        return

    def _line(self) -> str:
        return "They: " + " ".join(self.np_random.choice(_WORDS, size=10)) + ".\nYou: "


SPEC = register(
    TaskSpec(
        id="bench-dialogue",
        family="benchmark",
        description="20 turns of small talk",
        entry=f"{__name__}:Dialogue",
        observation="dialogue",
        horizon=TURNS,
        window=None,
        scale=Scale(-TURNS, None, None),
        max_action_tokens=ACTION_TOKENS,
        baselines={},
        best_baseline="",
        data_episodes=0,
        table1={},
    )
)


def language_model() -> LanguageModel:
    """The `tiny` preset with random weights, its tokenizer trained on the dialogue's text."""
    env, texts = SPEC.make(), list[str]()
    for seed in range(50):
        texts.append(env.reset(seed=seed)[0])
        texts += [env.step("\n")[0] for _ in range(TURNS)]
    language_model = models.create("tiny", texts, seed=0)
    language_model.model.eval()
    return language_model


@dataclass(frozen=True)
class Figure:
    """One printed line. `ratio` says how many times better ours is; `claim` is the least it should be."""

    name: str
    ours: str
    baseline: str
    ratio: float
    claim: float | None = None
    note: str = ""


def report(figures: Sequence[Figure], check: bool) -> int:
    """Print a line a figure. The exit code is 1 where a claim is not met and `check` is asked for."""
    missed = False
    for f in figures:
        failed = f.claim is not None and f.ratio < f.claim
        missed |= failed
        claim = "" if f.claim is None else f" (claim: at least {f.claim:g}x{', NOT MET' if failed else ''})"
        note = f" | {f.note}" if f.note else ""
        print(f"{f.name}: ours {f.ours}, baseline {f.baseline}, {f.ratio:.2f}x{claim}{note} | {machine()}")
    return int(missed and check)


def machine() -> str:
    return f"{os.cpu_count()} cores"


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 when a claim is not met")
    return parser


@dataclass(frozen=True)
class Timed:
    wall: float
    cpu: float


def timed(run: Callable[[], Any]) -> tuple[Timed, Any]:
    """Seconds by the clock on the wall, and of this process on its cores."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return Timed(time.perf_counter() - wall, time.process_time() - cpu), result


def speedup(ours: Sequence[float], baseline: Sequence[float]) -> float:
    """How many times less ours takes: the median over neighbouring measurements, which share the noise."""
    return statistics.median(b / a for a, b in zip(ours, baseline, strict=True))
