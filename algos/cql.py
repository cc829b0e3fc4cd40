"""Token CQL: the value of the data's own next action, with a conservative term. ILQL without V.

    y_t = r_t + gamma * min(Q1_target, Q2_target)(s_{t+1}, a_{t+1})          a_{t+1} as in the data
    L   = L_Q + w * L_CQL

The last token of an episode that was cut short has no successor, and no target.

Source: the reference's `algorithms/cql`; Kumar et al. 2020, equation 4 with the SARSA target.
"""

from __future__ import annotations

from pydantic import Field

from algos.base import AlgorithmConfig, Loss, register_algorithm
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import hidden_states
from algos.values import TargetedQ, TargetedQConfig, discounts, make_values, regress_q


class CQLConfig(TargetedQConfig):
    cql_weight: float = Field(0.1, ge=0, description="w: pushes down tokens that the data do not take")


@register_algorithm
class CQL(TargetedQ):
    """Twin Q heads on a trained copy of the language model's trunk."""

    id = "cql"
    title = "Token CQL"
    source = "Kumar et al. 2020, equation 4; LMRL-Gym's reference code"
    Config = CQLConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        assert isinstance(config, CQLConfig)
        super().__init__(config, language_model, make_values(config, language_model, heads=2, v=False))
        self.config: CQLConfig = config

    def forward(self, batch: PackedBatch) -> Loss:
        hidden = hidden_states(self.online_values.trunk, batch.input_ids, batch.mask)
        is_last = batch.next_tok < 0
        following = self.min_target_q(
            self.target_hidden(batch), batch.next_state_idx, batch.next_tok.clamp(min=0)
        )
        discount = discounts(batch, self.config.gamma, self.config.discount)
        target = batch.reward + discount * following.masked_fill(is_last, 0.0)
        counts = (~(is_last & (batch.continues > 0))).float()
        loss, metrics = regress_q(self.online_values.q, hidden, batch, target, self.config, counts)
        metrics["loss"] = loss
        return Loss(loss, {k: m.detach() for k, m in metrics.items()})
