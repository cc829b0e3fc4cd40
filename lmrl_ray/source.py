"""Sources of token episodes: where the episodes of an optimiser step come from.

A source is asked for the episodes of step `n` and keeps no state that a resume would need to bring back.
"""

from __future__ import annotations

from typing import Protocol

from algos.codec import TextCodec
from algos.tokens import ContextRule, TokenEpisode, encode_episode
from lmrl_ray.data import EpisodeDataset, ShardReader


class Source(Protocol):
    def episodes(self, step: int) -> list[TokenEpisode]:
        """This worker's share of the episodes of step `step`, counted from 0."""


class DatasetSource:
    """Episodes of a Parquet file in a seeded order; each worker reads its own rows.

    The batch of a step, over all workers, does not depend on how many there are.
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        codec: TextCodec,
        rule: ContextRule,
        *,
        seed: int,
        batch_episodes: int,
        rank: int,
        world_size: int,
    ) -> None:
        self._reader = ShardReader(
            dataset, dataset.plan(seed), rank=rank, world_size=world_size, batch_size=batch_episodes
        )
        self._codec = codec
        self._rule = rule

    def episodes(self, step: int) -> list[TokenEpisode]:
        return [encode_episode(e, self._codec, self._rule) for e in self._reader.batch(step)]
