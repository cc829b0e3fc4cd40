"""Sources of token episodes: where the episodes of an optimiser step come from.

    DatasetSource   the rows of a Parquet file, in a seeded order                       (offline)
    RolloutSource   rounds of episodes played with the policy as it is by then          (online)

A source is asked for the episodes of step `n` and keeps no state that a resume would need to bring
back: offline the same steps have the same episodes, online a resumed run begins with a new round.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from algos.base import Algorithm, Prepared, WorkerGroup
from algos.codec import TextCodec
from algos.play import EpisodeRequest, PlayedEpisode
from algos.tokens import ContextRule, TokenEpisode, encode_episode
from envs.core import Episode
from lmrl_ray.config import OnlineConfig
from lmrl_ray.data import DataError, EpisodeDataset, EpisodeOrder, ShardReader
from lmrl_ray.rollout import Rollouts, Setting
from lmrl_ray.seeding import episode_seed


class Source(Protocol):
    def episodes(self, step: int) -> Prepared:
        """This worker's share of the episodes of step `step`, counted from 0, and what to log of them."""

    def after_step(self, metrics: dict[str, float]) -> None:
        """Told the metrics of a step of all workers."""

    def close(self) -> None:
        """End what it started."""


class DatasetSource:
    """Episodes of a Parquet file in a seeded order; each worker reads its own rows.

    The batch of a step, over all workers, does not depend on how many there are.
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        order: EpisodeOrder,
        codec: TextCodec,
        rule: ContextRule,
        *,
        prepare: Callable[[list[TokenEpisode]], Prepared],
        batch_episodes: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._reader = ShardReader(
            dataset, order, rank=rank, world_size=world_size, batch_size=batch_episodes
        )
        self._path, self._codec, self._rule = dataset.path, codec, rule
        self._prepare = prepare

    def episodes(self, step: int) -> Prepared:
        return self._prepare([self._encoded(e) for e in self._reader.batch(step)])

    def _encoded(self, episode: Episode) -> TokenEpisode:
        try:
            return encode_episode(episode, self._codec, self._rule)
        except ValueError as error:
            raise DataError(f"{self._path}: {error}") from error

    def after_step(self, metrics: dict[str, float]) -> None:
        return

    def close(self) -> None:
        return


class RolloutSource:
    """Rounds: play episodes with the current policy, prepare them, hand them out in portions.

    With `max_staleness` k > 0, up to k rounds are played ahead in the background, with the policy of
    when they were asked for, while the learner works on earlier ones.

    Args:
        save_policy: writes the policy into a folder (all workers call it together).
        demonstrations: episodes of the data set for each step, beside those of the policy.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        config: OnlineConfig,
        rollouts: Rollouts,
        setting: Setting,
        group: WorkerGroup,
        *,
        save_policy: Callable[[Path], None],
        demonstrations: Source | None,
        batch_episodes: int,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._algorithm, self._config = algorithm, config
        self._rollouts, self._setting, self._group = rollouts, setting, group
        self._save_policy, self._demonstrations = save_policy, demonstrations
        self._batch_episodes = batch_episodes
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._portions: deque[list[TokenEpisode]] = deque()
        self._ahead: deque[Future[list[PlayedEpisode]]] = deque()
        self._asked = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="rollouts")
        self._policies = tempfile.TemporaryDirectory()
        self._over = threading.Event()

    def episodes(self, step: int) -> Prepared:
        metrics: dict[str, float] = {}
        if not self._portions:
            metrics = self._new_round(step)
        episodes = self._portions.popleft()
        if self._demonstrations is not None:
            demonstrations = self._demonstrations.episodes(step).episodes
            episodes = self._algorithm.beside(episodes, demonstrations, self._group)
        return Prepared(episodes, metrics)

    def after_step(self, metrics: dict[str, float]) -> None:
        if self._algorithm.round_is_over(metrics):
            self._portions.clear()

    def close(self) -> None:
        self._over.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._rollouts.close()
        self._policies.cleanup()  # of rounds that were asked for and are not played any more

    def _new_round(self, step: int) -> dict[str, float]:
        if not self._ahead:
            self._ask(step)
        played = self._ahead.popleft().result()
        while len(self._ahead) < self._config.max_staleness:
            self._ask(step)  # played while this round is learnt from
        whole = [p.tokens for p in played if p.tokens is not None]
        prepared = self._algorithm.prepare(whole, self._group)
        self._deal(prepared.episodes)
        return {**prepared.metrics, **self._statistics(played)}

    def _ask(self, step: int) -> None:
        """Have a round played with the policy as it is now. Its seeds follow from the step and its number."""
        folder = Path(tempfile.mkdtemp(dir=self._policies.name))
        self._save_policy(folder)
        seed = episode_seed(episode_seed(self._seed, step), self._asked)
        self._asked += 1
        requests = [
            EpisodeRequest(i, episode_seed(seed, i))
            for i in range(self._rank, self._config.episodes, self._world_size)
        ]
        self._ahead.append(self._pool.submit(self._play, folder, requests))

    def _play(self, folder: Path, requests: list[EpisodeRequest]) -> list[PlayedEpisode]:
        """One round after the other, each with its own policy."""
        try:
            self._rollouts.set_policy(folder)
            return self._rollouts.play(self._setting, requests, self._go_on)
        finally:
            shutil.rmtree(folder)

    def _go_on(self, _: int) -> None:
        """Nobody waits for the rest of a round once the training is over."""
        if self._over.is_set():
            raise CancelledError

    def _deal(self, episodes: list[TokenEpisode]) -> None:
        """Portions of whole episodes in a new order each epoch, as many on every worker as on one alone."""
        total = int(self._group.sum(torch.tensor(len(episodes))))
        count = max(1, -(-total // self._batch_episodes))
        for _ in range(self._config.epochs):
            order = torch.randperm(len(episodes)).tolist()
            for part in np.array_split(np.asarray(order, dtype=int), count):
                self._portions.append([episodes[i] for i in part])

    def _statistics(self, played: list[PlayedEpisode]) -> dict[str, float]:
        """Means over the round's episodes of all workers."""
        whole = [p for p in played if p.episode.error is None]
        sums = [
            len(whole),
            len(played) - len(whole),
            sum(p.episode.total_return for p in whole),
            sum(p.episode.success for p in whole),
            sum(p.episode.truncated for p in whole),
            sum(p.episode.length for p in whole),
            sum(not s.valid for p in whole for s in p.episode.segments if s.is_action),
            sum(p.cut_actions for p in whole),
        ]
        total = self._group.sum(torch.tensor(sums, dtype=torch.float64)).tolist()
        episodes, failed, earned, successes, truncated, actions, invalid, cut = total
        return {
            "rollout/return": earned / max(episodes, 1.0),
            "rollout/success_rate": successes / max(episodes, 1.0),
            "rollout/truncated_rate": truncated / max(episodes, 1.0),
            "rollout/length": actions / max(episodes, 1.0),
            "rollout/invalid_rate": invalid / max(actions, 1.0),
            "rollout/cut_rate": cut / max(actions, 1.0),
            "rollout/episodes": episodes,
            "rollout/failed": failed,
        }
