"""RLlib's DQN on a data set: its learner, fed with batches of the data; nothing is played.

LMRL-Gym's appendix H has CQL here. RLlib's own offline methods that learn a Q (CQL, IQL) take continuous
actions alone, DQN's learner takes discrete ones from anywhere. Nothing holds it back from a move that the
data do not show in a cell: ours show every move in every cell, and for others there is `tabular-q`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.maze.symbolic import SymbolicMaze
from lmrl_ray.cluster import ensure_ray
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.symbolic.config import OfflineDQNConfig
from lmrl_ray.symbolic.dqn import Report, q_values, rllib_config
from lmrl_ray.symbolic.transitions import Transitions

_REPORT_EVERY = 200
"""Updates between reports."""


def learn(
    data: Transitions, config: OfflineDQNConfig, env: dict[str, Any], seed: int, report: Report
) -> NDArray[np.float64]:
    """Q [cells, 4] after `config.updates` batches of moves, drawn with replacement.

    `report` is told the updates that were made, and of the last one the loss and the mean Q.
    """
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

    ensure_ray(ResourcesConfig())
    algorithm = rllib_config(config, config.updates, env, seed).build_algo()
    rng, num_cells = np.random.default_rng(seed), len(SymbolicMaze(**env).cells)
    try:
        for update in range(1, config.updates + 1):
            batch = _batch(data, rng.integers(len(data[0]), size=config.batch), num_cells)
            # The learner's clock, by which the rate falls and the target network follows.
            clock = {NUM_ENV_STEPS_SAMPLED_LIFETIME: update}
            (results,) = algorithm.learner_group.update(batch=batch, timesteps=clock)
            if update % _REPORT_EVERY == 0 or update == config.updates:
                figures = results[DEFAULT_MODULE_ID]
                report(update, {"loss": figures["qf_loss"].peek(), "q/mean": figures["qf_mean"].peek()})
        algorithm.env_runner_group.sync_weights(
            from_worker_or_learner_group=algorithm.learner_group, inference_only=True
        )
        return q_values(algorithm.get_module())
    finally:
        algorithm.stop()


def _batch(data: Transitions, rows: NDArray[np.int64], num_cells: int) -> Any:
    """The moves `rows` as DQN's loss reads them, of equal weight, with cells as unit vectors."""
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.core.columns import Columns
    from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

    cells, actions, rewards, following = (column[rows] for column in data)
    vectors, ones = np.eye(num_cells, dtype=np.float32), np.ones(len(rows), dtype=np.float32)
    columns = {
        Columns.OBS: vectors[cells],
        Columns.NEXT_OBS: vectors[np.maximum(following, 0)],  # the loss does not look beyond the goal
        Columns.ACTIONS: actions,
        Columns.REWARDS: rewards.astype(np.float32),
        Columns.TERMINATEDS: following < 0,
        "weights": ones,
        "n_step": ones,
    }
    return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, env_steps=len(rows))
