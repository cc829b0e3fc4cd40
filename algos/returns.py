"""Returns and targets over action tokens, scanned backwards in float64.

All arrays are [N] in the order of time; `chain_end[k]` is True where entry k + 1 belongs to another
episode. `discount[k]` is what the value after entry k is multiplied by: gamma (or 1 inside a turn),
and 0 after a terminal one.
"""

from __future__ import annotations

import numpy as np


def lambda_returns(
    reward: np.ndarray,
    discount: np.ndarray,
    next_value: np.ndarray,
    chain_end: np.ndarray,
    lam: float,
) -> np.ndarray:
    """G_k = r_k + d_k [(1 - lambda) V(s_{k+1}) + lambda G_{k+1}], and d_k V(s_{k+1}) at the end of a chain.

    lambda = 1 is the Monte-Carlo return with a bootstrap, lambda = 0 the one-step target;
    G - V is the generalised advantage estimate (Schulman et al. 2016, equation 16).
    """
    result = np.empty(len(reward), dtype=np.float64)
    following = 0.0
    for k in range(len(reward) - 1, -1, -1):
        tail = next_value[k] if chain_end[k] else (1.0 - lam) * next_value[k] + lam * following
        following = reward[k] + discount[k] * tail
        result[k] = following
    return result


def n_step_returns(
    reward: np.ndarray,
    discount: np.ndarray,
    next_value: np.ndarray,
    chain_end: np.ndarray,
    n: int,
) -> np.ndarray:
    """n rewards and then the value, fewer where the chain ends sooner. n = 1 is the one-step target."""
    count = len(reward)
    result = reward + discount * next_value
    longest = int(np.diff(np.flatnonzero(chain_end), prepend=-1).max(initial=1))
    for _ in range(min(n, longest) - 1):
        longer = result.copy()
        longer[:-1] = reward[:-1] + discount[:-1] * result[1:]
        result = np.where(chain_end, reward + discount * next_value, longer)
    return result if count else np.zeros(0)
