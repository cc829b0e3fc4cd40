"""Seeds derived from a seed: one an episode, the same whoever plays it and in whatever order."""

from __future__ import annotations

import numpy as np


def episode_seed(seed: int, index: int) -> int:
    """The seed of episode `index` in a collection that has the seed `seed`, in [0, 2**63).

    numpy's `SeedSequence` mixes the two, so neighbouring collections share no episodes. Two
    indices of one collection coincide with probability 2**-63 a pair. ValueError when negative.
    """
    return _derived(seed, index)


def evaluation_seed(seed: int, index: int) -> int:
    """The same for the games that score a policy: others than those of the data set with that seed."""
    return _derived(seed, index, 1)


def _derived(seed: int, index: int, *stream: int) -> int:
    if seed < 0 or index < 0:
        raise ValueError(f"seed: {seed}, index: {index}; neither may be negative")
    sequence = np.random.SeedSequence(seed, spawn_key=(index, *stream))
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
