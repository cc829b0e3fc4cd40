"""What the value-based algorithms share: Q heads on a trained trunk, their regression, their targets.

    L_Q   = sum_i 1/2 E[(Q_i(s_t, a_t) - y_t)^2]
    L_CQL = sum_i E[logsumexp_a Q_i(s_t, a) - Q_i(s_t, a_t)]

over action tokens. Source: LMRL-Gym section 5; Snell et al. 2023, equations 3-6; Kumar et al. 2020 (CQL).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import nn

from algos.base import Algorithm, AlgorithmConfig
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import QHead, ValueHead, copy_learnt, different_rows, hidden_states, polyak_
from algos.policy import ValueHeads, ValuePolicy
from algos.tokens import TokenEpisode

Per = Literal["token", "turn"]


class QConfig(AlgorithmConfig):
    gamma: float = Field(0.99, gt=0, le=1, description="discount")
    discount: Per = Field("token", description="gamma once per action token, or per turn")
    cql_weight: float = Field(0.0, ge=0, description="w: pushes down tokens that the data do not take")
    initial_value: float = Field(0.0, description="constant that Q and V start from, in units of return")
    trunk_start: Literal["clone", "fresh"] = Field(
        "clone",
        description="weights that the values' trunk starts from: the behaviour policy's, or new ones "
        "(cloning nearly random actions makes a small model's states all alike)",
    )
    tie_heads: bool = Field(False, description="Q's output matrix is the frozen token embedding")
    lse_chunk: int = Field(1024, ge=1, description="states whose CQL log-sum-exp is computed at a time")


class TargetedQConfig(QConfig):
    polyak: float = Field(0.005, gt=0, le=1, description="share of the online weights in a target's update")


class TargetedQ(Algorithm):
    """Value heads, and a target copy of the trunk and the Q heads that follows by Polyak averaging."""

    starts_from_clone = True
    has_q = True

    def __init__(self, config: TargetedQConfig, language_model: LanguageModel, values: ValueHeads) -> None:
        super().__init__(config, language_model)
        self.online_values = values
        self.target_trunk = copy_learnt(values.trunk).requires_grad_(False)
        self.target_q = copy.deepcopy(values.q).requires_grad_(False)
        self._polyak = config.polyak

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.target_trunk.eval()  # a target is a value: it drops nothing out
        return self

    @torch.no_grad()
    def target_hidden(self, batch: PackedBatch) -> torch.Tensor:
        """All states of the batch as the target trunk sees them, [B*T, h]."""
        return hidden_states(self.target_trunk, batch.input_ids, batch.mask)

    @torch.no_grad()
    def min_target_q(
        self, target_hidden: torch.Tensor, state_idx: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """min_i Q_i_target(s, a) of token i in state i: [B*T, h], [N], [N] -> [N]."""
        states, rows = different_rows(target_hidden, state_idx)
        heads = [head(states, tokens, rows=rows)[0] for head in self.target_q]
        return torch.stack(heads).amin(0)

    def after_step(self) -> None:
        polyak_(self.target_trunk.parameters(), self.online_values.trunk.parameters(), self._polyak)
        polyak_(self.target_q.parameters(), self.online_values.q.parameters(), self._polyak)

    def policy(self) -> ValuePolicy:
        return ValuePolicy(self._start[0], self.online_values)


def make_values(config: QConfig, language_model: LanguageModel, *, heads: int, v: bool) -> ValueHeads:
    """A trunk like the language model's with so many Q heads, and a V head where `v`."""
    if config.trunk_start == "fresh":
        trunk = language_model.fresh_trunk()
    else:
        trunk = copy_learnt(language_model.trunk)
    width = language_model.width
    q = q_heads(language_model, heads, config.initial_value, config.tie_heads)
    return ValueHeads(trunk, q, ValueHead(width, config.initial_value) if v else None)


def q_heads(language_model: LanguageModel, count: int, initial: float, tie: bool) -> list[QHead]:
    """So many Q heads over the language model's vocabulary, tied to its token embedding where `tie`."""
    vocab = language_model.model.config.vocab_size
    tied = language_model.model.get_output_embeddings().weight if tie else None
    return [QHead(language_model.width, vocab, initial, tied) for _ in range(count)]


def regress_q(
    heads: Iterable[nn.Module],
    hidden: torch.Tensor,
    batch: PackedBatch,
    target: torch.Tensor,
    config: QConfig,
    counts: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """L_Q + w L_CQL, and what to log of it.

    Args:
        hidden: [B*T, h], all states of the batch.
        target: y, [N], without gradient.
        counts: [N], 0 for the action tokens that have no target.
    """
    chunk = config.lse_chunk if config.cql_weight else 0
    states, rows = different_rows(hidden, batch.state_idx)
    outs = [head(states, batch.action_tok, chunk, rows) for head in heads]
    errors = [0.5 * (out[0] - target).square() for out in outs]
    if counts is not None:
        errors = [e * counts for e in errors]
    loss = torch.stack([e.sum() for e in errors]).sum() / batch.denominator
    first, last = outs[0][0], outs[-1][0]
    metrics = {
        "loss/q": loss,
        "q/mean": first.sum() / batch.denominator,
        "target/mean": target.sum() / batch.denominator,
    }
    if len(outs) > 1:
        metrics["q/twin_gap"] = (first - last).abs().sum() / batch.denominator
    if chunk:
        loss_cql = torch.stack([(out[1] - out[0]).sum() for out in outs]).sum() / batch.denominator
        metrics["loss/cql"] = loss_cql
        loss = loss + config.cql_weight * loss_cql
    return loss, metrics


def value_at(head: ValueHead, hidden: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """V of the states at `index` [N] of all hidden states [B*T, h]: [N]."""
    states, rows = different_rows(hidden, index)
    values: torch.Tensor = head(states)[rows]
    return values


def discounts(batch: PackedBatch, gamma: float, per: Per) -> torch.Tensor:
    """What the value after each action token is multiplied by, [N]: 0 after a terminal one."""
    if per == "token":
        return gamma * batch.continues
    return torch.where(batch.turn_end, gamma, 1.0) * batch.continues


def episode_discounts(episode: TokenEpisode, gamma: float, per: Per) -> np.ndarray:
    """The same for the action tokens of a whole episode, float64 [N]."""
    factor = np.full(int(episode.is_action.sum()), gamma if per == "token" else 1.0)
    turn_ends = np.cumsum(episode.actions[:, 1] - episode.actions[:, 0]) - 1
    factor[turn_ends] = gamma
    if episode.terminated and len(factor):
        factor[-1] = 0.0
    return factor
