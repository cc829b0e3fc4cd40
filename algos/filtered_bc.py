"""Filtered behaviour cloning: imitate the best episodes, of a data set or of one's own.

    L(theta) = - E[log pi_theta(a_t | s_t)]        over the action tokens of the episodes that are kept

kept: the successes, or the k = ceil(fraction * n) episodes of the highest return (exactly k: ties are
broken by the seed, where a quantile threshold would keep all of them).

Source: LMRL-Gym section 5 (filtered BC, online filtered BC). Online, each round plays episodes with the
current policy, keeps some and fits them; *all* action tokens of a kept episode are learnt.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from algos.base import Prepared, WorkerGroup, register_algorithm
from algos.bc import BC, BCConfig
from algos.tokens import TokenEpisode


class FilteredBCConfig(BCConfig):
    keep: Literal["best", "successes"] = Field("best", description="which episodes are imitated")
    fraction: float = Field(0.1, gt=0, le=1, description="of the episodes, by return, for keep: best")


def best_episodes(
    returns: np.ndarray,
    successes: np.ndarray,
    config: FilteredBCConfig,
    rng: np.random.Generator,
    group: WorkerGroup | None = None,
) -> np.ndarray:
    """Which of n episodes are kept: bool [n] from returns [n] and successes [n].

    With a group, these are a worker's share of them, and the best of all workers' are kept. An episode that
    failed has the return -inf, and is none of the n. ValueError for a return that is no number.
    """
    if np.isnan(returns).any():
        raise ValueError(f"{int(np.isnan(returns).sum())} episodes have a return that is no number")
    if config.keep == "successes":
        return successes.astype(bool)
    ties = rng.random(len(returns))
    mine = np.stack([returns, ties], axis=1)
    everyones = mine if group is None else group.gather(torch.from_numpy(mine)).numpy()
    everyones = everyones[everyones[:, 0] > -np.inf]
    if len(everyones) == 0:
        return np.zeros(len(returns), dtype=bool)
    count = max(1, math.ceil(round(config.fraction * len(everyones), 9)))  # .07 * 100 is 7.000000000000001
    worst, tie = everyones[np.lexsort((everyones[:, 1], -everyones[:, 0]))[:count][-1]]
    kept: np.ndarray = (returns > worst) | ((returns == worst) & (ties <= tie))
    return kept


@register_algorithm
class FilteredBC(BC):
    """Maximum likelihood on the best episodes of the data set."""

    id = "filtered-bc"
    title = "Filtered behaviour cloning"
    source = "LMRL-Gym section 5"
    selects_episodes = True
    Config = FilteredBCConfig

    def select(self, returns: np.ndarray, successes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert isinstance(self.config, FilteredBCConfig)
        return best_episodes(returns, successes, self.config, rng)


class OnlineFilteredBCConfig(FilteredBCConfig):
    fraction: float = Field(0.3, gt=0, le=1, description="of a round's episodes, for keep: best")


@register_algorithm
class OnlineFilteredBC(BC):
    """Maximum likelihood on the best of its own episodes, round after round."""

    id = "online-filtered-bc"
    title = "Online filtered behaviour cloning"
    source = "LMRL-Gym section 5"
    online = True
    starts_from_clone = True
    Config = OnlineFilteredBCConfig

    def prepare(self, episodes: list[TokenEpisode], group: WorkerGroup) -> Prepared:
        """Each worker keeps those of its share that are among the best of the whole round."""
        assert isinstance(self.config, FilteredBCConfig)
        returns = np.array([e.reward.sum() for e in episodes])
        successes = np.array([e.success for e in episodes])
        rng = np.random.default_rng(int(torch.randint(2**31, ())))
        kept = best_episodes(returns, successes, self.config, rng, group)
        return Prepared([e for e, keep in zip(episodes, kept, strict=True) if keep])
