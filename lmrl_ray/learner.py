"""The training loop that every worker runs: a source of episodes, an algorithm, an engine.

The same function runs in this process (one worker, no cluster) and in every worker of Ray Train; what
differs is the `LearnerContext`: who it is, and how a checkpoint reaches the run's storage.
"""

from __future__ import annotations

import math
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algos import models
from algos.base import Algorithm, Prepared, WorkerGroup, get_algorithm
from algos.batch import pack
from algos.play import context_rule
from algos.policy import load_policy
from algos.tokens import TokenEpisode
from envs.registry import get_task
from lmrl_ray import checkpoint, scaling
from lmrl_ray.config import OptimizerConfig, RunConfig, parse
from lmrl_ray.data import EpisodeDataset, outcomes
from lmrl_ray.engine import Engine, make_engine
from lmrl_ray.evaluate import setting_of
from lmrl_ray.journal import Entry, Journal
from lmrl_ray.plugins import load_plugins
from lmrl_ray.rollout import make_rollouts
from lmrl_ray.seeding import episode_seed
from lmrl_ray.source import DatasetSource, RolloutSource, Source


class DivergedError(ArithmeticError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class LearnerJob:
    """All that a worker must know; plain values, so that it travels."""

    config: dict[str, Any]
    run_dir: str
    """The run's folder, on a disk that all workers and the driver share."""
    data: str
    start: str
    """The policy folder (or Hugging Face name) that the language model comes from."""

    @property
    def checkpoints(self) -> Path:
        return Path(self.run_dir) / "checkpoints"

    @property
    def journal(self) -> Path:
        return Path(self.run_dir) / "metrics.jsonl"


class LearnerContext(ABC):
    """A worker's place in the group, and its way to the run's storage."""

    rank: int = 0
    world_size: int = 1

    @abstractmethod
    def save(self, write: Callable[[Path], None], step: int, metrics: dict[str, float]) -> None:
        """Publish a checkpoint as `step-NNNNNN`; `write(folder)` is called on every worker."""


@dataclass
class LocalContext(LearnerContext):
    """One worker, in this process."""

    checkpoints: Path
    keep: int
    on_metrics: Callable[[int, dict[str, float]], None] | None = field(default=None)

    def save(self, write: Callable[[Path], None], step: int, metrics: dict[str, float]) -> None:
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=checkpoint.UNFINISHED, dir=self.checkpoints))
        beside.rmdir()
        write(beside)
        checkpoint.publish(beside, self.checkpoints / checkpoint_name(step), self.keep)


def checkpoint_name(step: int) -> str:
    return f"step-{step:06d}"


def learn(job: LearnerJob, context: LearnerContext) -> int:
    """Train from the last whole checkpoint (or the start) to the configured step, which is returned."""
    load_plugins(job.config.get("plugins", ()))
    config = parse(job.config)
    with checkpoint.full_disk_explained(Path(job.run_dir)):
        return _Loop(job, config, context).run()


class _Loop:
    """One worker's training, from set-up to the last checkpoint."""

    def __init__(self, job: LearnerJob, config: RunConfig, context: LearnerContext) -> None:
        self.job, self.config, self.context = job, config, context
        self.spec = get_task(config.task)
        found = checkpoint.latest(job.checkpoints)
        language_model = _language_model(job.start)
        torch.manual_seed(config.seed)
        scaling.prepare(language_model, config.model)
        algorithm = get_algorithm(config.algo)(config.algorithm, language_model)
        if algorithm.online:
            algorithm.temperature = config.rollout_decoding.temperature
        self.step = checkpoint.load_model(found, algorithm) if found else 0
        self.engine: Engine = make_engine(algorithm, config.optimizer)
        self._check_all_found_it()
        if found:
            self.engine.load_optimizer_state(checkpoint.load_optimizer(found))
        scaling.compile_trunks(algorithm, config.model)
        self.algorithm: Algorithm = algorithm
        engine = self.engine
        self.group = WorkerGroup(
            config.training.micro_batch_tokens, engine.sum, engine.max, engine.gather, engine.device
        )
        self.source = self._source(language_model)
        self._round: dict[str, float] = {}
        self.journal = Journal(job.journal, self.step) if context.rank == 0 else None
        self._clock, self._logged = time.monotonic(), self.step

    def _check_all_found_it(self) -> None:
        """CheckpointError when the workers would go on from different steps: a folder that is not in sync."""
        most, least = self.engine.max(self.step), -self.engine.max(-self.step)
        if most != least:
            raise checkpoint.CheckpointError(
                f"{self.job.checkpoints}: the last whole checkpoint is of step {least} for one worker, of "
                f"{most} for another; is the folder the same on all nodes?"
            )

    def run(self) -> int:
        try:
            return self._run()
        finally:
            self.source.close()

    def _run(self) -> int:
        training = self.config.training
        self.algorithm.train()
        while self.step < training.steps:
            metrics = self._step()
            self.step += 1
            last = self.step == training.steps
            if training.eval_every and (self.step % training.eval_every == 0 or last):
                metrics |= self._evaluate()
            logged = self.step % training.log_every == 0 or last or "eval/return" in metrics
            if logged:
                self._log(metrics)
            if self.step % training.save_every == 0 or last:
                self._save(metrics)
            # Who hears of a step finds its checkpoint.
            if logged and isinstance(self.context, LocalContext) and self.context.on_metrics:
                self.context.on_metrics(self.step, metrics)
        return self.step

    def _step(self) -> dict[str, float]:
        """One optimiser step. Whatever is random in it follows from the seed and the step's number."""
        torch.manual_seed(episode_seed(self.config.seed, self.step * 4096 + self.context.rank))
        prepared = self.source.episodes(self.step)
        self._round |= prepared.metrics
        batches = pack(prepared.episodes, self.config.training.micro_batch_tokens)
        metrics = self.engine.train_step(
            batches, learning_rate(self.config.optimizer, self.step, self._steps)
        )
        watched = {"the loss": metrics.get("loss", 0.0), "the gradient's norm": metrics.get("grad_norm", 0.0)}
        if wrong := [f"{name} is {value}" for name, value in watched.items() if not math.isfinite(value)]:
            raise DivergedError(
                f"step {self.step}: {wrong[0]}; train again with a lower optimizer.lr (now "
                f"{self.config.optimizer.lr}) or more optimizer.warmup_steps"
            )
        self.source.after_step(metrics)
        return {**metrics, **self._round}

    @property
    def _steps(self) -> int:
        return self.config.training.steps

    def _source(self, language_model: models.LanguageModel) -> Source:
        if not self.algorithm.online:
            return self._dataset(language_model, lambda e: self.algorithm.prepare(e, self.group))
        demonstrations = None
        if self.algorithm.uses_demonstrations:
            demonstrations = self._dataset(language_model, Prepared)
        rank, size = self.context.rank, self.context.world_size
        resources = self.config.resources
        mine = len(range(rank, resources.rollout_actors, size))
        return RolloutSource(
            self.algorithm,
            self.config.online,
            make_rollouts(resources.model_copy(update={"rollout_actors": mine})),
            replace(setting_of(self.config), decoding=self.config.rollout_decoding),
            self.group,
            save_policy=self._save_policy,
            demonstrations=demonstrations,
            batch_episodes=self.config.training.batch_episodes,
            seed=self.config.seed,
            rank=rank,
            world_size=size,
        )

    def _dataset(
        self, language_model: models.LanguageModel, prepare: Callable[[list[TokenEpisode]], Prepared]
    ) -> DatasetSource:
        dataset = EpisodeDataset(self.job.data, require_nonempty=True)
        keep = None
        if self.algorithm.selects_episodes:
            keep = self.algorithm.select(*outcomes(dataset), np.random.default_rng(self.config.seed))
        return DatasetSource(
            dataset,
            dataset.plan(self.config.seed, keep=keep),
            language_model.codec,
            context_rule(self.spec, language_model.max_tokens),
            prepare=prepare,
            batch_episodes=self.config.training.batch_episodes,
            rank=self.context.rank,
            world_size=self.context.world_size,
        )

    def _save_policy(self, folder: Path) -> None:
        with self.engine.gathered():
            self.algorithm.policy().save(folder)

    def _log(self, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        metrics["seconds_per_step"] = (now - self._clock) / (self.step - self._logged)
        self._clock, self._logged = now, self.step
        if self.journal is not None:
            self.journal.append(Entry(self.step, time.time(), metrics))

    def _save(self, metrics: dict[str, float]) -> None:
        def write(folder: Path) -> None:
            checkpoint.save(folder, self.engine, self.step, self.config.dump())

        self.context.save(write, self.step, metrics)

    def _evaluate(self) -> dict[str, float]:
        """Scores on the way. Every worker plays the same few episodes, so none waits for another."""
        from lmrl_ray.evaluate import evaluate_policy_folder

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            self._save_policy(path)
            score = evaluate_policy_folder(self.config, path, self.config.training.eval_episodes)
        self.algorithm.train()
        return {f"eval/{k}": v for k, v in score.metrics().items()}


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of step `step` (from 0): linear warm-up, then constant or cosine to 0."""
    warm = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    if config.schedule == "constant":
        return config.lr * warm
    return config.lr * warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def _language_model(start: str) -> models.LanguageModel:
    """The language model in a run's or policy's folder, or by Hugging Face name."""
    folder = Path(start)
    policy = load_policy(folder)
    return models.LanguageModel(policy.lm.train(), policy.codec)
