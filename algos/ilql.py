"""Implicit language Q-learning: the values of the best actions in the data, without leaving the data.

    y_t     = r_t + gamma * V(s_{t+1})              (stop-gradient; the online V, or its target copy)
    Qhat_t  = min(Q1_target, Q2_target)(s_t, a_t)
    L_Q     = 1/2 E[(Q1 - y)^2] + 1/2 E[(Q2 - y)^2]
    L_V     = 1/2 E[|tau - 1(Qhat < V)| (V(s_t) - Qhat_t)^2]              (expectile regression)
    L_CQL   = E[logsumexp_a Q1(s, a) - Q1(s, a_t)] + the same for Q2
    L       = L_Q + L_V + w * L_CQL

    pi(a|s) ~ pi_beta(a|s) exp(beta * min(Q1, Q2)(s, a))

Source: Snell et al. 2023 (ILQL), equations 3-6, in the form of LMRL-Gym section 5: the policy is a
frozen clone of the data, the trunk of the values is trained, and the targets (trunk and Q heads)
follow it by Polyak averaging. Time runs over action tokens.
"""

from __future__ import annotations

import copy
from typing import Literal, cast

import torch
from pydantic import Field

from algos.base import AlgorithmConfig, Loss, register_algorithm
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import ValueHead, hidden_states, polyak_
from algos.returns import lambda_returns, n_step_returns
from algos.values import TargetedQ, TargetedQConfig, discounts, make_values, regress_q, value_at


class ILQLConfig(TargetedQConfig):
    tau: float = Field(0.7, gt=0, lt=1, description="expectile; 0.5 is the mean, towards 1 the maximum")
    backup: Literal["one-step", "turn", "n-step", "lambda"] = Field(
        "one-step", description="target of Q; turn: what the turn still earns, then V of the next turn"
    )
    next_value: Literal["online", "target"] = Field(
        "online",
        description="the V that is backed up: the one that is being fitted, as in the paper, or its target "
        "copy, with which the values of a small model are far steadier",
    )
    n_step: int = Field(5, ge=1, description="action tokens of an n-step backup")
    lam: float = Field(0.9, ge=0, le=1, description="lambda of a lambda backup")


@register_algorithm
class ILQL(TargetedQ):
    """Twin Q heads and a V head on a trained copy of the language model's trunk."""

    id = "ilql"
    title = "Implicit language Q-learning"
    source = "Snell et al. 2023, equations 3-6; LMRL-Gym section 5"
    Config = ILQLConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        assert isinstance(config, ILQLConfig)
        super().__init__(config, language_model, make_values(config, language_model, heads=2, v=True))
        self.config: ILQLConfig = config
        self.target_v: ValueHead | None = None
        if config.next_value == "target":
            self.target_v = copy.deepcopy(cast(ValueHead, self.online_values.v)).requires_grad_(False)

    def forward(self, batch: PackedBatch) -> Loss:
        values = self.online_values
        hidden = hidden_states(values.trunk, batch.input_ids, batch.mask)
        target_hidden = self.target_hidden(batch)
        v = value_at(cast(ValueHead, values.v), hidden, batch.state_idx)
        next_v = self._next_v(batch, hidden, target_hidden)
        target_q = self.min_target_q(target_hidden, batch.state_idx, batch.action_tok)
        target = self._backup(batch, next_v)
        weight = torch.where(target_q >= v.detach(), self.config.tau, 1 - self.config.tau)

        loss_q, metrics = regress_q(values.q, hidden, batch, target, self.config)
        loss_v = (0.5 * weight * (v - target_q).square()).sum() / batch.denominator
        loss = loss_q + loss_v
        metrics |= {
            "loss": loss,
            "loss/v": loss_v,
            "v/mean": v.sum() / batch.denominator,
            "v/below_q": (target_q >= v).float().sum() / batch.denominator,
        }
        return Loss(loss, {k: m.detach() for k, m in metrics.items()})

    def after_step(self) -> None:
        super().after_step()
        if self.target_v is not None:
            online = cast(ValueHead, self.online_values.v)
            polyak_(self.target_v.parameters(), online.parameters(), self.config.polyak)

    @torch.no_grad()
    def _next_v(self, batch: PackedBatch, hidden: torch.Tensor, target_hidden: torch.Tensor) -> torch.Tensor:
        """V(s_{t+1}) of the copy that is backed up, [N]."""
        if self.target_v is not None:
            return value_at(self.target_v, target_hidden, batch.next_state_idx)
        return value_at(cast(ValueHead, self.online_values.v), hidden, batch.next_state_idx)

    def _backup(self, batch: PackedBatch, next_v: torch.Tensor) -> torch.Tensor:
        """y [N] from rewards and next values."""
        discount = discounts(batch, self.config.gamma, self.config.discount)
        if self.config.backup == "one-step":
            return batch.reward + discount * next_v
        reward, factor, value = (x.detach().double().cpu().numpy() for x in (batch.reward, discount, next_v))
        ends = batch.chain_end.cpu().numpy()
        if self.config.backup == "turn":
            target = lambda_returns(reward, factor, value, ends | batch.turn_end.cpu().numpy(), 1.0)
        elif self.config.backup == "lambda":
            target = lambda_returns(reward, factor, value, ends, self.config.lam)
        else:
            target = n_step_returns(reward, factor, value, ends, self.config.n_step)
        return torch.from_numpy(target).to(batch.reward)
