"""What a model says of whole episodes before they are learnt from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from algos.base import Algorithm, WorkerGroup
from algos.batch import empty_batch, in_order, pack
from algos.tokens import TokenEpisode


@torch.no_grad()
def look(
    algorithm: Algorithm, episodes: list[TokenEpisode], group: WorkerGroup, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """By name, of each action token in the order of the episodes: float64 [N].

    They are the metrics, [N] each, of `algorithm(batch, look=True)`: through `forward`, because ZeRO-3
    has the weights in place only inside of it.
    """
    batches = pack(episodes, group.micro_batch_tokens)
    columns: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    # Under ZeRO-3 the workers gather each layer together, so all make as many passes.
    for i in range(group.max(len(batches))):
        batch = (batches[i] if i < len(batches) else empty_batch()).to(group.device)
        found = algorithm(batch, look=True).metrics
        if i < len(batches):
            for name, column in columns.items():
                column.append(found[name])
    return {name: in_order(batches, column) for name, column in columns.items()}


def by_episode(values: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Values of all action tokens, [N], cut into those of each episode, which has `counts` of them."""
    return np.split(values, np.cumsum(counts, dtype=int)[:-1]) if counts else []
