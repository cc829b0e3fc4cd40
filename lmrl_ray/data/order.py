"""The order of training: an endless, seeded sequence of episodes, shared out over the ranks.

Row groups are shuffled, and episodes within blocks of consecutive row groups of that permutation,
so a shuffle needs a block in memory and no more. Everything follows from the position in the
sequence: a run resumes from its step number, and the global batch does not depend on how many
ranks there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from envs.core import Episode
from lmrl_ray.data.schema import SCHEMA

if TYPE_CHECKING:
    from lmrl_ray.data.reader import EpisodeDataset

SHUFFLE_BLOCK = 8
"""Row groups whose episodes are shuffled together."""


class Block(NamedTuple):
    """Episodes that are shuffled together: a stretch of the sequence from `start` on."""

    start: int
    row_groups: NDArray[np.int64]
    rows: NDArray[np.int64]
    """Row within the row group; both [n], in the order of the sequence."""

    @property
    def stop(self) -> int:
        return self.start + len(self.rows)


class EpisodeOrder:
    """An infinite sequence of (row group, row): epoch after epoch, each a permutation.

    `groups` lists the rows of each row group that take part. Nothing is remembered between calls.
    """

    def __init__(
        self, groups: Sequence[NDArray[np.int64]], seed: int, shuffle_block: int = SHUFFLE_BLOCK
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed: {seed}; it may not be negative")
        if shuffle_block < 1:
            raise ValueError(f"shuffle_block: {shuffle_block}; it must be at least 1 row group")
        self._groups = groups
        self._sizes = np.array([len(rows) for rows in groups], dtype=np.int64)
        self._seed = seed
        self._shuffle_block = shuffle_block
        self.epoch_length = int(self._sizes.sum())
        """Episodes in one epoch."""
        if not self.epoch_length:
            raise ValueError("groups: no episode in them")

    def __getitem__(self, position: int) -> tuple[int, int]:
        block = self.block_at(position)
        offset = position - block.start
        return int(block.row_groups[offset]), int(block.rows[offset])

    def block_at(self, position: int) -> Block:
        """The block that holds `position` (a number of episodes since the start of training)."""
        if position < 0:
            raise IndexError(f"position: {position}; it may not be negative")
        epoch, offset = divmod(position, self.epoch_length)
        groups = self._generator(epoch).permutation(len(self._groups))
        ends = np.cumsum(self._sizes[groups])
        index = int(np.searchsorted(ends, offset, side="right")) // self._shuffle_block
        first = index * self._shuffle_block
        chosen = groups[first : first + self._shuffle_block]
        start = epoch * self.epoch_length + (int(ends[first - 1]) if first else 0)
        rows = np.concatenate([self._groups[group] for group in chosen])
        shuffle = self._generator(epoch, index).permutation(len(rows))
        return Block(start, np.repeat(chosen, self._sizes[chosen])[shuffle], rows[shuffle])

    def _generator(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=key))


class ShardReader:
    """The episodes of one rank, by step.

    The global batch of a step is `batch_size` consecutive positions; a rank gets those that are
    congruent to it modulo `world_size`. The last batch of an epoch runs on into the next one.
    Memory: this rank's rows of one block, and one row group while a block is read.
    """

    def __init__(
        self,
        dataset: EpisodeDataset,
        order: EpisodeOrder,
        *,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size}; it must be at least 1")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: {rank} is not in [0, {world_size})")
        self._dataset = dataset
        self._order = order
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._table = SCHEMA.empty_table()
        self._first = self._stop = 0

    def batch(self, step: int) -> list[Episode]:
        """This rank's episodes of global batch `step`, in the order of the sequence."""
        position = self._mine(step * self._batch_size)
        stop = (step + 1) * self._batch_size
        episodes: list[Episode] = []
        while position < stop:
            if not self._first <= position < self._stop:
                self._load(position)
            here = range(position, min(stop, self._stop), self._world_size)
            offset = (position - self._first) // self._world_size
            episodes += self._dataset.decode(self._table.slice(offset, len(here)))
            position = here[-1] + self._world_size
        return episodes

    def _mine(self, position: int) -> int:
        """The first position from `position` on that is this rank's."""
        return position + (self._rank - position) % self._world_size

    def _load(self, position: int) -> None:
        """Read this rank's rows of the block around `position`, one row group after another."""
        self._table = SCHEMA.empty_table()  # the old block goes before the new one comes
        block = self._order.block_at(position)
        self._first, self._stop = self._mine(block.start), block.stop
        mine = slice(self._first - block.start, None, self._world_size)
        row_groups, rows = block.row_groups[mine], block.rows[mine]
        parts, places = [], []
        for group in np.unique(row_groups):
            place = np.flatnonzero(row_groups == group)
            parts.append(self._dataset.read_row_group(int(group)).take(rows[place]))
            places.append(place)
        self._table = pa.concat_tables(parts).take(np.argsort(np.concatenate(places)))
