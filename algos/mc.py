"""Monte-Carlo returns: Q regressed on what the rest of the episode earned.

    G_t = sum_{j >= t} gamma^(j - t) r_j              over the action tokens of the whole episode
    L   = 1/2 E[(Q(s_t, a_t) - G_t)^2] + w * E[logsumexp_a Q(s_t, a) - Q(s_t, a_t)]

    pi(a|s) ~ pi_beta(a|s) exp(beta * Q(s, a))

Source: LMRL-Gym section 5 (MC returns): one Q head, neither V nor targets; the trunk is trained, and
the policy is a frozen clone of the data. Returns are scanned backwards in float64.
"""

from __future__ import annotations

import numpy as np

from algos.base import Algorithm, AlgorithmConfig, Loss, Prepared, WorkerGroup, register_algorithm
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import hidden_states
from algos.policy import ValuePolicy
from algos.returns import lambda_returns
from algos.tokens import TokenEpisode
from algos.values import QConfig, episode_discounts, make_values, regress_q


class MCConfig(QConfig):
    pass


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
        self.values = make_values(config, language_model, heads=1, v=False)

    def prepare(self, episodes: list[TokenEpisode], group: WorkerGroup) -> Prepared:
        return Prepared([e.with_actions(returns=self._returns(e)) for e in episodes])

    def forward(self, batch: PackedBatch) -> Loss:
        hidden = hidden_states(self.values.trunk, batch.input_ids, batch.mask)
        target = batch.extra("returns")
        loss, metrics = regress_q(self.values.q, hidden, batch, target, self.config)
        metrics["loss"] = loss
        return Loss(loss, {k: m.detach() for k, m in metrics.items()})

    def policy(self) -> ValuePolicy:
        return ValuePolicy(self._start[0], self.values)

    def _returns(self, episode: TokenEpisode) -> np.ndarray:
        """G [N]. An episode that was cut short counts for what it earned until then."""
        factor = episode_discounts(episode, self.config.gamma, self.config.discount)
        nothing, one_chain = np.zeros(len(factor)), np.arange(len(factor)) == len(factor) - 1
        return lambda_returns(episode.reward[episode.is_action], factor, nothing, one_chain, 1.0)
