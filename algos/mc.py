"""Monte-Carlo returns: Q regressed on what the rest of the episode earned.

    G_t = sum_{j >= t} gamma^(j - t) r_j              over the action tokens of the whole episode
    L   = 1/2 E[(Q(s_t, a_t) - G_t)^2] + w * E[logsumexp_a Q(s_t, a) - Q(s_t, a_t)]

    pi(a|s) ~ pi_beta(a|s) exp(beta * Q(s, a))

with `bootstrap`, where the episode was cut short at T, not over:

    G_t = sum_{t <= j < T} gamma^(j - t) r_j + gamma^(T - t) V(s_T)
    L_V = 1/2 E[(V(s_t) - G_t)^2]                     (so V is the mean of what the data earn)

Source: LMRL-Gym section 5 (MC returns): one Q head, neither V nor targets; the trunk is trained, and
the policy is a frozen clone of the data. Returns are scanned backwards in float64. The bootstrap is
ours: what a walk would still have cost is no part of what it earned before the data's collector cut it.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from pydantic import Field

from algos.base import Algorithm, AlgorithmConfig, Loss, Prepared, WorkerGroup, register_algorithm
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import ValueHead, hidden_states
from algos.policy import ValuePolicy
from algos.returns import lambda_returns
from algos.rounds import by_episode, look
from algos.tokens import TokenEpisode
from algos.values import QConfig, episode_discounts, make_values, regress_q, value_at


class MCConfig(QConfig):
    bootstrap: bool = Field(
        False,
        description="an episode that was cut short goes on with V of its last observation; in LMRL-Gym it "
        "counts what it earned until then",
    )


@register_algorithm
class MonteCarlo(Algorithm):
    """One Q head on a trained copy of the language model's trunk."""

    id = "mc"
    title = "Monte-Carlo returns"
    source = "LMRL-Gym section 5"
    starts_from_clone = True
    has_q = True
    Config = MCConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__(config, language_model)
        assert isinstance(config, MCConfig)
        self.config = config
        self.values = make_values(config, language_model, heads=1, v=config.bootstrap)

    def prepare(self, episodes: list[TokenEpisode], group: WorkerGroup) -> Prepared:
        after = self._last_values(episodes, group) if self.config.bootstrap else [0.0] * len(episodes)
        returns = [self._returns(e, v) for e, v in zip(episodes, after, strict=True)]
        return Prepared([e.with_actions(returns=g) for e, g in zip(episodes, returns, strict=True)])

    def forward(self, batch: PackedBatch, look: bool = False) -> Loss:
        """The loss; with `look` none, but V(s_{t+1}) of each token, [N], among its metrics."""
        hidden = hidden_states(self.values.trunk, batch.input_ids, batch.mask)
        if look:
            next_v = value_at(cast(ValueHead, self.values.v), hidden, batch.next_state_idx)
            return Loss(next_v.sum(), {"next_v": next_v})
        target = batch.extra("returns")
        loss, metrics = regress_q(self.values.q, hidden, batch, target, self.config)
        if self.config.bootstrap:
            v = value_at(cast(ValueHead, self.values.v), hidden, batch.state_idx)
            metrics["loss/v"] = 0.5 * (v - target).square().sum() / batch.denominator
            metrics["v/mean"] = v.sum() / batch.denominator
            loss = loss + metrics["loss/v"]
        metrics["loss"] = loss
        return Loss(loss, {k: m.detach() for k, m in metrics.items()})

    def policy(self) -> ValuePolicy:
        return ValuePolicy(self._start[0], self.values)

    def _last_values(self, episodes: list[TokenEpisode], group: WorkerGroup) -> list[float]:
        """V of each episode's last observation, without the dropout of learning."""
        learning = self.training
        self.eval()
        next_v = look(self, episodes, group, ("next_v",))["next_v"]
        self.train(learning)
        counts = [int(e.is_action.sum()) for e in episodes]
        return [float(v[-1]) if len(v) else 0.0 for v in by_episode(next_v, counts)]

    def _returns(self, episode: TokenEpisode, after: float) -> np.ndarray:
        """G [N], from the value of what follows an episode that did not terminate."""
        factor = episode_discounts(episode, self.config.gamma, self.config.discount)
        next_value, one_chain = np.full(len(factor), after), np.arange(len(factor)) == len(factor) - 1
        return lambda_returns(episode.reward[episode.is_action], factor, next_value, one_chain, 1.0)
