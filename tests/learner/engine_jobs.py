"""What the engine tests run in this process and in the ranks of a process group: the same function."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from support import episode_of, tiny_language_model

from algos.base import Algorithm, get_algorithm
from algos.batch import PackedBatch, empty_batch, pack
from algos.codec import TextCodec
from algos.tokens import ContextRule, encode_episode
from envs.core import Episode
from lmrl_ray import checkpoint, scaling
from lmrl_ray.config import ModelConfig, OptimizerConfig
from lmrl_ray.engine import make_engine

STEPS = 6
MIDDLE = 3
"""Where a run is saved on the way; what follows is a step in which rank 0 has nothing."""

OPTIONS: dict[str, dict[str, Any]] = {
    "bc": {},
    "ilql": {"cql_weight": 0.5, "polyak": 0.2, "gamma": 0.9, "initial_value": -1.0},
    "offline-archer": {"polyak": 0.2, "actor_lr": 0.3},
    "ppo": {},
}
_WORDS = ["move left\n", "move right\n", "move up\n", "move down\n"]


@dataclass(frozen=True)
class Job:
    """Steps [start, stop) of an algorithm on an engine, saved at the steps that `saves` names.

    Without a step it loads and saves.
    """

    algo: str
    optimizer: dict[str, Any]
    start: int = 0
    stop: int = STEPS
    load: str | None = None
    saves: dict[int, str] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    metrics: list[dict[str, float]]
    gathered: str
    """Digest of the whole weights, as this rank saw them."""
    resident: int
    """Weights that this rank holds outside of `gathered()`."""


def make_algorithm(algo: str, model: Mapping[str, Any] = MappingProxyType({})) -> Algorithm:
    cls = get_algorithm(algo)
    torch.manual_seed(7)
    language_model = tiny_language_model([*_WORDS, "a wall\n", "odd"])
    scaling.prepare(language_model, ModelConfig(**model))
    algorithm = cls(cls.Config(**OPTIONS[algo]), language_model)
    # A head whose last matrix is zero passes no gradient on: start where all of it learns.
    with torch.no_grad():
        for parameter in algorithm.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape)
    return algorithm


def run(job: Job, rank: int, world: int) -> Outcome:
    algorithm = make_algorithm(job.algo, job.model)
    if job.load:
        assert checkpoint.load_model(Path(job.load), algorithm) == job.start
    engine = make_engine(algorithm, OptimizerConfig(**job.optimizer))
    assert (engine.rank, engine.world_size) == (rank, world)
    assert engine.gather(torch.arange(rank + 1)).tolist() == [i for r in range(world) for i in range(r + 1)]
    if job.load:
        engine.load_optimizer_state(checkpoint.load_optimizer(Path(job.load)))
    scaling.compile_trunks(algorithm, ModelConfig(**job.model))
    algorithm.train()
    codec = algorithm._start[0].codec
    metrics = []
    for step in range(job.start, job.stop + 1):
        if step in job.saves:
            checkpoint.save(Path(job.saves[step]), engine, step, {"algo": job.algo, "task": "maze-fo"})
        if step < job.stop:
            metrics.append(engine.train_step(batches_of(step, rank, world, codec), lr=1e-3 * (1 + step)))
    resident = sum(p.numel() for p in algorithm.parameters())
    with engine.gathered():
        digest = hashlib.sha256()
        for tensor in algorithm.state_dict().values():
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return Outcome(metrics, digest.hexdigest(), resident)


def episodes_of(step: int) -> list[Episode]:
    """The episodes of a step; in step 4 nobody acts."""
    rng = np.random.default_rng(step)
    episodes = [episode_of(("you only look\n", False), terminated=False)]
    if step == 4:
        return episodes * 3
    for length in (1, 4, 2, 3, 5):
        parts: list[tuple[str, bool] | tuple[str, bool, float]] = [("start\n", False)]
        for _ in range(length):
            parts.append((_WORDS[rng.integers(4)], True, -float(rng.integers(1, 5))))
            parts.append(("a wall\n" * int(rng.integers(1, 3)), False))
        episodes.append(episode_of(*parts, terminated=length % 2 == 0))
    return episodes


def batches_of(step: int, rank: int, world: int, codec: TextCodec) -> list[PackedBatch]:
    """This rank's share. Shares are uneven: in episodes, in micro-batches, and down to nothing."""
    rule = ContextRule(window=None, max_tokens=256, reserve=16)
    episodes = [encode_episode(e, codec, rule) for e in episodes_of(step)]
    if world == 1:
        whole = pack(episodes, 10_000)
        return {1: [*whole, empty_batch()], 3: [empty_batch(), *whole]}.get(step, whole)
    shares = {
        0: (episodes[0::2], episodes[1::2]),
        1: (episodes, []),
        2: (episodes[:2], episodes[2:]),
        3: ([], episodes),
        4: (episodes[:1], episodes[1:]),
        5: (episodes[:4], episodes[4:]),
    }
    micro_batch_tokens = (60, 120)[rank] if step in (1, 2, 5) else 10_000
    return pack(shares[step][rank], micro_batch_tokens)
