"""PPO on action tokens: episodes of its own policy, a clipped ratio, a KL penalty to where it started.

    r~_t = r_t - k (log pi_old - log pi_ref)(a_t | s_t)
    A_t  = sum_j (gamma lambda)^j delta_{t+j},   delta_t = r~_t + gamma V(s_{t+1}) - V(s_t)
    R_t  = A_t + V_old(s_t)
    L_pi = E[max(-A rho, -A clip(rho, 1 - e, 1 + e))],   rho = pi(a|s) / pi_old(a|s)
    L_V  = 1/2 E[max((V - R)^2, (V_old + clip(V - V_old, -e_v, e_v) - R)^2)]
    L    = L_pi + c_v L_V - w_bc E_data[log pi(a|s)]

Time runs over the action tokens of the whole episode, across turns; V is 0 after a terminal token, and
of the last observation where the episode was cut short. pi_old is the learner's own model at the start
of the round, recomputed on the very ids that were sampled; pi_ref is the frozen model of the start.
All three have the temperature of the rollouts (`online.temperature`); the clone of the data has none.

Sources: Schulman et al. 2017, equations 7 and 9; 2016, equation 16 (GAE); Ziegler et al. 2019, section
2.2 (adaptive KL); LMRL-Gym section 5.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator

from algos.base import Algorithm, AlgorithmConfig, Loss, Prepared, WorkerGroup, register_algorithm
from algos.batch import PackedBatch
from algos.lora import has_adapters, without_adapters
from algos.models import LanguageModel
from algos.networks import TokenLogProb, ValueHead, copy_learnt, hidden_states
from algos.policy import LanguagePolicy
from algos.returns import lambda_returns
from algos.rounds import by_episode, look
from algos.tokens import TokenEpisode
from algos.values import Per, episode_discounts

_FARTHEST = 20.0
"""Of log pi / pi_old, either way."""


class PPOConfig(AlgorithmConfig):
    gamma: float = Field(0.99, gt=0, le=1, description="discount")
    discount: Per = Field("token", description="gamma once per action token, or per turn")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of the advantage estimate, per action token")
    clip: float = Field(0.2, gt=0, description="e: how far the ratio may move")
    value_clip: float | None = Field(
        None, gt=0, description="e_v, in units of return (the reference has 0.2); None for no clipping"
    )
    value_weight: float = Field(1.0, ge=0, description="c_v")
    value_trunk: Literal["separate", "shared"] = Field(
        "separate", description="whether the values have a trunk of their own or read the policy's"
    )
    initial_value: float = Field(0.0, description="constant that V starts from, in units of return")
    whiten: bool = Field(True, description="advantages of a round to mean 0 and variance 1")
    kl_weight: float = Field(0.001, ge=0, description="k, where it starts")
    kl_target: float | None = Field(
        None, gt=0, description="KL per action token that k is steered to; None keeps k"
    )
    kl_horizon: float = Field(10_000, gt=0, description="episodes in which k can change by a factor e^0.2")
    max_kl: float | None = Field(
        None, gt=0, description="a round ends early when pi is further from pi_old than this, per token"
    )
    bc_weight: float = Field(0.0, ge=0, description="w_bc: weight of cloning the data set beside it")

    @field_validator("kl_target")
    @classmethod
    def _something_to_steer(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("kl_weight") == 0:
            raise ValueError("steers kl_weight by factors, which should be above 0 then")
        return value


@register_algorithm
class PPO(Algorithm):
    """The language model is the policy; a value head reads its trunk or a copy of it."""

    id = "ppo"
    title = "Proximal policy optimisation"
    source = "Schulman et al. 2017, equations 7 and 9; LMRL-Gym section 5"
    online = True
    starts_from_clone = True
    dropout = False  # pi and pi_old must be the same function
    Config = PPOConfig

    kl_weight: torch.Tensor

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__(config, language_model)
        assert isinstance(config, PPOConfig)
        self.config = config
        self.lm = language_model.model
        # In a list: it is no part of what is trained, saved or sharded. With adapters it is the model
        # without them, which needs no copy.
        self._reference = []
        if not has_adapters(self.lm):
            self._reference.append(copy.deepcopy(self.lm).requires_grad_(False).eval())
        self.log_prob = TokenLogProb(self.lm.get_output_embeddings())
        separate = config.value_trunk == "separate"
        self.value_trunk = copy_learnt(language_model.trunk) if separate else None
        self.value = ValueHead(language_model.width, config.initial_value)
        self.register_buffer("kl_weight", torch.tensor(float(config.kl_weight)))

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """A weight that nothing steers is the configuration's, which may have changed since it was saved."""
        loaded = super().load_state_dict(*args, **kwargs)
        if self.config.kl_target is None:
            self.kl_weight.fill_(self.config.kl_weight)
        return loaded

    @property
    def uses_demonstrations(self) -> bool:
        return self.config.bc_weight > 0

    def beside(
        self, own: list[TokenEpisode], demonstrations: list[TokenEpisode], group: WorkerGroup
    ) -> list[TokenEpisode]:
        """Each kind weighted so that its sums, divided by the tokens of both, are means over its own."""
        count = [sum(int(e.is_action.sum()) for e in kind) for kind in (own, demonstrations)]
        of_own, of_data = group.sum(torch.tensor(count, dtype=torch.float64)).tolist()
        both = of_own + of_data
        return [
            *(e.with_actions(own=both / max(of_own, 1.0)) for e in own),
            *(e.with_actions(**_NOTHING, demonstration=both / max(of_data, 1.0)) for e in demonstrations),
        ]

    def prepare(self, episodes: list[TokenEpisode], group: WorkerGroup) -> Prepared:
        """Add what the loss compares with, all of it computed once a round."""
        seen = look(self, episodes, group, ("old", "reference", "value", "next_value"))
        kl = seen["old"] - seen["reference"]
        reward = _joined(e.reward[e.is_action] for e in episodes)
        sampled = _joined(e.logprob[e.is_action] for e in episodes)
        discount = _joined(episode_discounts(e, self.config.gamma, self.config.discount) for e in episodes)
        counts = [int(e.is_action.sum()) for e in episodes]
        ends = np.zeros(len(reward), dtype=bool)
        ends[np.cumsum([c for c in counts if c], dtype=int) - 1] = True
        shaped = reward - float(self.kl_weight) * kl
        returns = lambda_returns(shaped, discount, seen["next_value"], ends, self.config.lam)
        advantage = returns - seen["value"]
        metrics = _means(
            {
                # k3 (Schulman 2020): E_pi[exp(x) - 1 - x], x = log pi_ref - log pi, is KL(pi || pi_ref).
                "ppo/kl_to_start": np.expm1(-kl) + kl,
                "ppo/sampled_gap": np.abs(seen["old"] - sampled),
                "ppo/value_error": np.square(advantage),
                "ppo/return_to_go": returns,
            },
            group,
        )
        metrics["ppo/kl_weight"] = float(self.kl_weight)
        self._steer(metrics["ppo/kl_to_start"], len(episodes), group)
        if self.config.whiten:
            advantage = whiten(advantage, group)
        columns = {"old": seen["old"], "advantage": advantage, "return": returns, "value": seen["value"]}
        parts = {k: by_episode(v, counts) for k, v in columns.items()}
        return Prepared(
            [
                e.with_actions(own=1.0, demonstration=0.0, **{k: v[i] for k, v in parts.items()})
                for i, e in enumerate(episodes)
            ],
            metrics,
        )

    def forward(self, batch: PackedBatch, look: bool = False) -> Loss:
        """The loss; with `look` none, but what the model says of each token, [N] each, as its metrics."""
        hidden = hidden_states(self.lm.base_model, batch.input_ids, batch.mask)
        states = hidden[batch.state_idx]
        log_prob = self.log_prob(states, batch.action_tok, self.temperature)
        value, next_value = self._values(batch, hidden)
        if look:
            seen = {"old": log_prob, "value": value, "next_value": next_value}
            return Loss(log_prob.sum(), {**seen, "reference": self._reference_log_prob(batch)})
        own = batch.extra("own")
        log_ratio = log_prob - batch.extra("old")
        loss_policy, clipped = clipped_policy_loss(log_ratio, batch.extra("advantage"), self.config.clip)
        loss_value = clipped_value_loss(
            value, batch.extra("value"), batch.extra("return"), self.config.value_clip
        )
        terms = {
            "loss/policy": loss_policy * own,
            "loss/value": loss_value * own,
            "ppo/clipped": clipped * own,
            "ppo/kl_to_old": (torch.expm1(log_ratio) - log_ratio) * own,
            "ppo/surprise": -log_prob * own,
        }
        if self.uses_demonstrations:
            # Of the bare model: what the temperature sharpens should not be unlearnt.
            terms["loss/bc"] = -self.log_prob(states, batch.action_tok) * batch.extra("demonstration")
        metrics = {k: v.sum() / batch.denominator for k, v in terms.items()}
        loss = metrics["loss/policy"] + self.config.value_weight * metrics["loss/value"]
        if self.uses_demonstrations:
            loss = loss + self.config.bc_weight * metrics["loss/bc"]
        metrics["loss"] = loss
        return Loss(loss, {k: m.detach() for k, m in metrics.items()})

    def round_is_over(self, metrics: dict[str, float]) -> bool:
        return self.config.max_kl is not None and metrics.get("ppo/kl_to_old", 0.0) > self.config.max_kl

    def policy(self) -> LanguagePolicy:
        return LanguagePolicy(self._start[0])

    def _values(self, batch: PackedBatch, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """V(s) and V(s') of the action tokens, [N] each; `hidden` is the policy's trunk's."""
        if self.value_trunk is not None:
            hidden = hidden_states(self.value_trunk, batch.input_ids, batch.mask)
        both = self.value(hidden[torch.cat([batch.state_idx, batch.next_state_idx])])
        return both[: batch.num_actions], both[batch.num_actions :]

    @torch.no_grad()
    def _reference_log_prob(self, batch: PackedBatch) -> torch.Tensor:
        """log pi_ref(a|s), [N]."""
        reference, head = self.lm, self.log_prob
        if self._reference:
            reference = self._reference[0].to(batch.reward.device)
            head = TokenLogProb(reference.get_output_embeddings())
        with without_adapters(reference):
            hidden = hidden_states(reference.base_model, batch.input_ids, batch.mask)
        log_prob: torch.Tensor = head(hidden[batch.state_idx], batch.action_tok, self.temperature)
        return log_prob

    def _steer(self, kl: float, episodes: int, group: WorkerGroup) -> None:
        """k <- k (1 + clip(KL / target - 1, -0.2, 0.2) min(n / horizon, 1)) after n episodes."""
        if self.config.kl_target is None:
            return
        total = float(group.sum(torch.tensor(float(episodes))))
        error = float(np.clip(kl / self.config.kl_target - 1, -0.2, 0.2))
        self.kl_weight.mul_(1 + error * min(total / self.config.kl_horizon, 1.0))


def clipped_policy_loss(
    log_ratio: torch.Tensor, advantage: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """max(-A rho, -A clip(rho)) and whether the clipped one counts, [N] each."""
    # Where it overflows, the gradient of what `maximum` leaves out is NaN.
    ratio = log_ratio.clamp(-_FARTHEST, _FARTHEST).exp()
    plain, clipped = -advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)
    return torch.maximum(plain, clipped), (clipped > plain).float()


def clipped_value_loss(
    value: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, clip: float | None
) -> torch.Tensor:
    """1/2 max((V - R)^2, (V_clipped - R)^2), [N]."""
    error = (value - returns).square()
    if clip is not None:
        error = torch.maximum(error, (old + (value - old).clamp(-clip, clip) - returns).square())
    return 0.5 * error


def whiten(values: np.ndarray, group: WorkerGroup) -> np.ndarray:
    """(x - mean) / sqrt(var + 1e-8) with the mean and variance of all workers' values."""
    count, total = _totals(values, group)
    mean = total / max(count, 1.0)
    _, squares = _totals(np.square(values - mean), group)
    whitened: np.ndarray = (values - mean) / np.sqrt(squares / max(count, 1.0) + 1e-8)
    return whitened


_NOTHING = {"old": 0.0, "advantage": 0.0, "return": 0.0, "value": 0.0, "own": 0.0}
"""What `prepare` adds, for an episode of the data set."""


def _joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts])


def _totals(values: np.ndarray, group: WorkerGroup) -> tuple[float, float]:
    both = group.sum(torch.tensor([len(values), values.sum()], dtype=torch.float64))
    return float(both[0]), float(both[1])


def _means(values: dict[str, np.ndarray], group: WorkerGroup) -> dict[str, float]:
    """Means over the action tokens of all workers."""
    result = {}
    for name, array in values.items():
        count, total = _totals(array, group)
        result[name] = total / max(count, 1.0)
    return result
