"""Implicit language Q-learning: the values of the best actions in the data, without leaving the data.

    y_t     = r_t + gamma * V(s_{t+1})                                    (stop-gradient; online V)
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
from typing import Literal

import torch
from pydantic import Field

from algos.base import Algorithm, AlgorithmConfig, Loss, register_algorithm
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import QHead, ValueHead, hidden_states, polyak_
from algos.policy import ValueHeads, ValuePolicy
from algos.returns import lambda_returns, n_step_returns


class ILQLConfig(AlgorithmConfig):
    gamma: float = Field(0.99, gt=0, le=1, description="discount")
    discount: Literal["token", "turn"] = Field(
        "token", description="gamma once per action token, or per turn"
    )
    tau: float = Field(0.7, gt=0, lt=1, description="expectile; 0.5 is the mean, towards 1 the maximum")
    cql_weight: float = Field(0.0, ge=0, description="w: pushes down tokens that the data do not take")
    polyak: float = Field(0.005, gt=0, le=1, description="share of the online weights in a target's update")
    backup: Literal["one-step", "turn", "n-step", "lambda"] = Field(
        "one-step", description="target of Q; turn: what the turn still earns, then V of the next turn"
    )
    n_step: int = Field(5, ge=1, description="action tokens of an n-step backup")
    lam: float = Field(0.9, ge=0, le=1, description="lambda of a lambda backup")
    initial_value: float = Field(0.0, description="constant that Q and V start from, in units of return")
    tie_heads: bool = Field(False, description="Q's output matrix is the frozen token embedding")
    lse_chunk: int = Field(1024, ge=1, description="states whose CQL log-sum-exp is computed at a time")


@register_algorithm
class ILQL(Algorithm):
    """Twin Q heads and a V head on a trained copy of the language model's trunk."""

    id = "ilql"
    title = "Implicit language Q-learning"
    source = "Snell et al. 2023, equations 3-6; LMRL-Gym section 5"
    starts_from_clone = True
    Config = ILQLConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__(config, language_model)
        assert isinstance(config, ILQLConfig)
        self.config = config
        self.online_values = _value_heads(config, language_model)
        self.target_trunk = copy.deepcopy(self.online_values.trunk).requires_grad_(False)
        self.target_q = copy.deepcopy(self.online_values.q).requires_grad_(False)

    def forward(self, batch: PackedBatch) -> Loss:
        values, n = self.online_values, batch.num_actions
        hidden = hidden_states(values.trunk, batch.input_ids, batch.mask)
        states = hidden[batch.state_idx]
        assert values.v is not None
        both = values.v(hidden[torch.cat([batch.state_idx, batch.next_state_idx])])
        v, next_v = both[:n], both[n:]
        target_q = self._target_q(batch)
        target = self._backup(batch, next_v.detach())
        weight = torch.where(target_q >= v.detach(), self.config.tau, 1 - self.config.tau)

        chunk = self.config.lse_chunk if self.config.cql_weight else 0
        outs = [head(states, batch.action_tok, chunk) for head in values.q]
        loss_q = sum((0.5 * (out[0] - target).square()).sum() for out in outs) / batch.denominator
        loss_v = (0.5 * weight * (v - target_q).square()).sum() / batch.denominator
        loss = loss_q + loss_v
        metrics = {"loss/q": loss_q, "loss/v": loss_v}
        if chunk:
            loss_cql = sum((out[1] - out[0]).sum() for out in outs) / batch.denominator
            loss = loss + self.config.cql_weight * loss_cql
            metrics["loss/cql"] = loss_cql
        metrics |= {
            "loss": loss,
            "q/mean": outs[0][0].sum() / batch.denominator,
            "q/twin_gap": (outs[0][0] - outs[1][0]).abs().sum() / batch.denominator,
            "v/mean": v.sum() / batch.denominator,
            "v/below_q": (target_q >= v).float().sum() / batch.denominator,
            "target/mean": target.sum() / batch.denominator,
        }
        return Loss(loss, {k: torch.as_tensor(m).detach() for k, m in metrics.items()})

    def after_step(self) -> None:
        rate = self.config.polyak
        polyak_(self.target_trunk.parameters(), self.online_values.trunk.parameters(), rate)
        polyak_(self.target_q.parameters(), self.online_values.q.parameters(), rate)

    def policy(self) -> ValuePolicy:
        return ValuePolicy(self._start[0], self.online_values)

    @torch.no_grad()
    def _target_q(self, batch: PackedBatch) -> torch.Tensor:
        hidden = hidden_states(self.target_trunk, batch.input_ids, batch.mask)[batch.state_idx]
        return torch.stack([head(hidden, batch.action_tok)[0] for head in self.target_q]).amin(0)

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


def discounts(batch: PackedBatch, gamma: float, per: Literal["token", "turn"]) -> torch.Tensor:
    """What the value after each action token is multiplied by, [N]: 0 after a terminal one."""
    if per == "token":
        return gamma * batch.continues
    return torch.where(batch.turn_end, gamma, 1.0) * batch.continues


def _value_heads(config: ILQLConfig, language_model: LanguageModel) -> ValueHeads:
    trunk = copy.deepcopy(language_model.trunk).float()
    width, vocab = language_model.model.config.hidden_size, language_model.model.config.vocab_size
    tied = language_model.model.get_output_embeddings().weight if config.tie_heads else None
    q = [QHead(width, vocab, config.initial_value, tied) for _ in range(2)]
    return ValueHeads(trunk, q, ValueHead(width, config.initial_value))
