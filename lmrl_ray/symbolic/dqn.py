"""RLlib's DQN (new API stack) on the symbolic maze: a plain user of `DQNConfig`, no learner of our own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TransformObservation
from numpy.typing import NDArray

from envs.maze.symbolic import SymbolicMaze
from lmrl_ray.cluster import ensure_ray
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.symbolic.config import TASK, DQNConfig, ValueNetworkConfig

Report = Callable[[int, dict[str, float]], None]
_REPORT_EVERY = 1000
"""Moves between reports."""


def learn(config: DQNConfig, env: dict[str, Any], seed: int, report: Report) -> NDArray[np.float64]:
    """Train for `config.env_steps` moves. Returns Q [cells, 4].

    `report` is told the moves that were played and the figures of the latest ones.
    """
    first, last = config.epsilon
    rllib = (
        rllib_config(config, config.env_steps, env, seed)
        .env_runners(num_env_runners=config.env_runners, rollout_fragment_length=config.moves_per_update)
        .training(
            training_intensity=None,
            num_steps_sampled_before_learning_starts=config.env_steps // 10,
            epsilon=[(0, first), (config.env_steps // 2, last)],
            replay_buffer_config={"type": "EpisodeReplayBuffer", "capacity": 50_000},
        )
        .reporting(min_sample_timesteps_per_iteration=_REPORT_EVERY)
    )
    ensure_ray(ResourcesConfig(rollout_actors=config.env_runners))
    algorithm = rllib.build_algo()
    # The seed that RLlib is given does not reach its replay buffer.
    algorithm.local_replay_buffer.rng = np.random.default_rng(seed)
    try:
        played = 0
        while played < config.env_steps:
            played, metrics = _figures(algorithm.train())
            report(played, metrics)
        return q_values(algorithm.get_module())
    finally:
        algorithm.stop()


def rllib_config(config: ValueNetworkConfig, steps: int, env: dict[str, Any], seed: int) -> Any:
    """RLlib's configuration of the network and of its updates, whose rate falls over `steps`."""
    from ray.rllib.algorithms.dqn import DQNConfig as RLlibConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
    from ray.tune import register_env

    register_env(TASK, _make)
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)
    return (
        RLlibConfig()
        .environment(TASK, env_config=env)
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .rl_module(
            # Orthogonal features of the cells: at first no cell's values are tied to another's.
            model_config=DefaultModelConfig(
                fcnet_hiddens=[config.hidden],
                fcnet_activation="linear",
                fcnet_kernel_initializer="orthogonal_",
                fcnet_bias_initializer="zeros_",
            )
        )
        .training(
            gamma=config.gamma,
            lr=[(0, config.lr), (steps, config.lr / 10)],
            train_batch_size_per_learner=config.batch,
            target_network_update_freq=config.target_every,
        )
        .debugging(seed=seed % 2**32, log_level="ERROR")
    )


def _make(env: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """The maze with its cells as unit vectors, as a network reads them."""
    maze = SymbolicMaze(**env)
    vectors = np.eye(len(maze.cells), dtype=np.float32)
    space = gymnasium.spaces.Box(0.0, 1.0, (len(maze.cells),))
    return TransformObservation(maze, lambda cell: vectors[cell], space)


def _figures(result: dict[str, Any]) -> tuple[int, dict[str, float]]:
    """Moves so far, and what RLlib says about the last ones."""
    runners = result["env_runners"]
    learner = result.get("learners", {}).get("default_policy", {})
    metrics = {
        "return/mean": runners.get("episode_return_mean"),
        "length/mean": runners.get("episode_len_mean"),
        "loss": learner.get("qf_loss"),
        "q/mean": learner.get("qf_mean"),
    }
    played = int(runners["num_env_steps_sampled_lifetime"])
    return played, {k: float(v) for k, v in metrics.items() if v is not None and np.isfinite(v)}


def q_values(module: Any) -> NDArray[np.float64]:
    """Q [cells, 4] of RLlib's module."""
    import torch

    cells = module.observation_space.shape[0]
    with torch.no_grad():
        found = module.compute_q_values({"obs": torch.eye(cells)})["qf_preds"]
    return np.asarray(found, dtype=np.float64)
