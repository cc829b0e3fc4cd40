"""Runs that take a second: a tiny model, a tiny data set, a few steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import tiny_language_model

from envs.core import Episode
from lmrl_ray.config import RunConfig, merge, parse
from lmrl_ray.learner import LearnerJob, LocalContext, learn

TASK = "maze-fo"
ENV = {"layout": "umaze"}
STEPS = 8
EVERY = 2
"""Steps between checkpoints."""
SETTINGS: dict[str, dict[str, Any]] = {
    "ilql": {"cql_weight": 0.1, "polyak": 0.3},
    "mc": {"bootstrap": True},
}


@dataclass(frozen=True)
class Material:
    data: Path
    start: Path


class Stop(Exception):
    """What a test ends a run with."""


def save_start(folder: Path, episodes: Iterable[Episode]) -> None:
    texts = [s.text for e in episodes for s in e.segments]
    tiny_language_model(texts, width=16).save(folder / "policy")


def config_of(material: Material, algo: str, **sections: Any) -> RunConfig:
    """A run of STEPS steps in which nothing is constant: the rate, the targets, the batches."""
    values = {
        "algo": algo,
        "task": TASK,
        "seed": 3,
        "env": ENV,
        "data": str(material.data),
        "init": str(material.start),
        "algorithm": SETTINGS.get(algo, {}),
        "optimizer": {"engine": "torch", "lr": 3e-3, "warmup_steps": 3, "schedule": "cosine"},
        "training": {
            "steps": STEPS,
            "batch_episodes": 5,
            "micro_batch_tokens": 512,
            "save_every": EVERY,
            "keep_checkpoints": 10,
            "log_every": 1,
        },
        "resources": {"slots": 4},
    }
    return parse(merge(values, sections))


def job_of(material: Material, config: RunConfig, folder: Path) -> LearnerJob:
    folder.mkdir(parents=True, exist_ok=True)
    return LearnerJob(config.dump(), str(folder), str(material.data), str(material.start))


def learn_here(job: LearnerJob, context: LocalContext | None = None) -> int:
    """Train in this process."""
    return learn(job, context or LocalContext(job.checkpoints, keep=10))


def weights(checkpoint: Path) -> dict[str, bytes]:
    """Every file of a checkpoint that training decides."""
    return {
        str(p.relative_to(checkpoint)): p.read_bytes()
        for p in sorted(checkpoint.rglob("*"))
        if p.suffix == ".safetensors" or p.name == "trainer.json"
    }


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
