"""The statistics of a data set, as in LMRL-Gym's table 1, in one pass over a few columns."""

from __future__ import annotations

import os
from typing import NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lmrl_ray.data.reader import EpisodeDataset
from lmrl_ray.data.schema import DataError, as_list, segment_counts

_COLUMNS = ["is_action", "rewards", "valid", "truncated", "success", "error"]


class Stats(TypedDict):
    """Over the episodes without an error; NaN where there are none."""

    episodes: int
    mean_length: float
    """Actions in an episode."""
    std_length: float
    success_rate: float
    mean_return: float
    """Of the undiscounted return."""
    std_return: float
    truncated_rate: float
    invalid_rate: float
    """Unparseable actions per action."""
    failed: int
    """Episodes with an error, which count nowhere else."""


class _Sums(NamedTuple):
    """Per-episode values of one row group, each [n]."""

    length: NDArray[np.float64]
    total_return: NDArray[np.float64]
    invalid: NDArray[np.float64]
    truncated: NDArray[np.bool_]
    success: NDArray[np.bool_]
    playable: NDArray[np.bool_]


class _Moments:
    """Mean and standard deviation (of the population), joined chunk by chunk.

    Source: Chan, Golub & LeVeque (1979); squares of large numbers are never subtracted.
    """

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, float("nan"), float("nan")

    def add(self, values: NDArray[np.float64]) -> None:
        if not len(values):
            return
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        if not self.count:
            self.count, self.mean, self._squares = len(values), mean, squares
            return
        total = self.count + len(values)
        delta = mean - self.mean
        self._squares += squares + delta * delta * self.count * len(values) / total
        self.mean += delta * len(values) / total
        self.count = total

    @property
    def std(self) -> float:
        return float(np.sqrt(self._squares / self.count)) if self.count else float("nan")


def stats(data: EpisodeDataset | str | os.PathLike[str]) -> Stats:
    """The statistics of a data set or of the file at a path. Memory: one row group."""
    dataset = data if isinstance(data, EpisodeDataset) else EpisodeDataset(data)
    lengths, returns = _Moments(), _Moments()
    actions = invalid = succeeded = truncated = failed = 0
    for index in range(dataset.num_row_groups):
        sums = _sums(dataset.read_row_group(index, _COLUMNS))
        ok = sums.playable
        lengths.add(sums.length[ok])
        returns.add(sums.total_return[ok])
        succeeded += int(sums.success[ok].sum())
        truncated += int(sums.truncated[ok].sum())
        actions += int(sums.length[ok].sum())
        invalid += int(sums.invalid[ok].sum())
        failed += int((~ok).sum())
    return Stats(
        episodes=lengths.count,
        mean_length=lengths.mean,
        std_length=lengths.std,
        success_rate=_ratio(succeeded, lengths.count),
        mean_return=returns.mean,
        std_return=returns.std,
        truncated_rate=_ratio(truncated, lengths.count),
        invalid_rate=_ratio(invalid, actions),
        failed=failed,
    )


def outcomes(dataset: EpisodeDataset) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The return and the success of every episode, -inf and False for a failed one: [len(dataset)] each.

    DataError for a return that is no finite number.
    """
    total, success = np.empty(len(dataset)), np.empty(len(dataset), dtype=bool)
    start = 0
    for index in range(dataset.num_row_groups):
        sums = _sums(dataset.read_row_group(index, _COLUMNS))
        here = slice(start, start + len(sums.length))
        if (wrong := np.flatnonzero(sums.playable & ~np.isfinite(sums.total_return))).size:
            found = sums.total_return[wrong[0]]
            raise DataError(
                f"{dataset.path}: episode {start + wrong[0]} has a return of {found}, no finite number"
            )
        total[here] = np.where(sums.playable, sums.total_return, -np.inf)
        success[here] = sums.success & sums.playable
        start = here.stop
    return total, success


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _sums(table: pa.Table) -> _Sums:
    """Add up the segments of each episode without making an object of any."""
    counts = segment_counts(table)
    episode = np.repeat(np.arange(len(counts)), counts)

    def total(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        summed: NDArray[np.float64] = np.bincount(episode, weights, len(counts)).astype(float)
        return summed

    def flat(name: str) -> NDArray[np.float64]:
        values = table.column(name).combine_chunks().flatten()
        return np.array(as_list(values), dtype=float)

    is_action = flat("is_action")
    return _Sums(
        length=total(is_action),
        total_return=total(flat("rewards")),
        invalid=total(is_action * (1 - flat("valid"))),
        truncated=np.asarray(table.column("truncated"), dtype=bool),
        success=np.asarray(table.column("success"), dtype=bool),
        playable=np.asarray(table.column("error").is_null(), dtype=bool),
    )
