"""ArCHer: a critic of whole utterances teaches an actor that writes them token by token.

A state s is what has been said before a turn, an action u the whole utterance, gamma counts turns.

    L_Q = sum_i 1/2 (Q_i(s, u) - r - gamma V_i_target(s'))^2
    A   = min_i Q_i(s, u) - min_i V_i(s)

online       L_V = sum_i 1/2 (V_i(s) - Q_i_target(s, u))^2,  u ~ pi(.|s)
             L_pi = - A log pi(u|s)

offline      L_V = sum_i 1/2 |tau - 1(Q_i_target < V_i)| (V_i(s) - Q_i_target(s, u))^2,  u as in the data
             L_pi = - exp(min(lambda A, log w_max)) log pi(u|s)

log pi(u|s) is the sum over the utterance's tokens, the one that stops it included. V(s) is read in the
state before the first of them, Q(s, u) in the state before the last, as the row of the last. After a
terminal turn there is no V(s'); where an episode was cut short, s' is its last observation. The sums over
utterances are divided by the action tokens of the step; what is logged as a mean (q/mean and the like)
counts an utterance once for each of its tokens.

Online, each utterance of a round teaches the actor once for each of `online.epochs`, and beside each one
`replayed` older ones teach the critic. An actor that has moved would say something else in the states of
earlier rounds. They are replayed for Q, whose target needs no action of pi, and not for V, which learns
from the utterances of this round alone: those were sampled from pi (where the paper samples anew in every
state of its replay buffer, at the price of decoding in every critic step). So V, and with it the baseline
of the actor, is of the current policy wherever that policy goes.

Online, pi has the temperature of the rollouts (`online.temperature`); offline, it imitates the data as is.

Sources: Zhou et al. 2024 (ArCHer); offline: the authors' OfflineArcher, with the weights bounded.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from pydantic import Field
from torch import nn

from algos.base import Algorithm, AlgorithmConfig, Loss, Prepared, WorkerGroup, register_algorithm
from algos.batch import PackedBatch
from algos.models import LanguageModel
from algos.networks import TokenLogProb, ValueHead, copy_learnt, hidden_states, polyak_
from algos.policy import LanguagePolicy
from algos.ppo import clipped_policy_loss
from algos.rounds import by_episode, look
from algos.tokens import TokenEpisode
from algos.values import q_heads


class ActorCriticConfig(AlgorithmConfig):
    gamma: float = Field(0.99, gt=0, le=1, description="discount per turn")
    polyak: float = Field(0.05, gt=0, le=1, description="share of the online weights in a target's update")
    actor_lr: float = Field(1.0, gt=0, description="the actor's learning rate, as a multiple of optimizer.lr")
    initial_value: float = Field(0.0, description="constant that Q and V start from, in units of return")
    tie_heads: bool = Field(False, description="Q's output matrix is the frozen token embedding")


class Critic(nn.Module):
    """Twin Q and V of utterances on a trunk of their own, a copy of the language model's."""

    def __init__(self, config: ActorCriticConfig, language_model: LanguageModel) -> None:
        super().__init__()
        width = language_model.width
        self.trunk = copy_learnt(language_model.trunk)
        self.q = nn.ModuleList(q_heads(language_model, 2, config.initial_value, config.tie_heads))
        self.v = nn.ModuleList([ValueHead(width, config.initial_value) for _ in range(2)])

    def forward(self, batch: PackedBatch, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Q of the batch's U utterances and V in the given states: flat indices [U] -> [2, U], [2, U]."""
        hidden = hidden_states(self.trunk, batch.input_ids, batch.mask)
        last, tokens = hidden[batch.state_idx[batch.turn_end]], batch.action_tok[batch.turn_end]
        q = torch.stack([head(last, tokens)[0] for head in self.q])
        v = torch.stack([head(hidden[states]) for head in self.v])
        return q, v


class UtteranceActorCritic(Algorithm):
    """What both have in common: the networks, Q's loss, and the advantage of each utterance."""

    starts_from_clone = True
    dropout = False  # targets and advantages are values, and pi is what was sampled

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__(config, language_model)
        assert isinstance(config, ActorCriticConfig)
        self._shared = config
        self.lm = language_model.model
        self.log_prob = TokenLogProb(self.lm.get_output_embeddings())
        self.critic = Critic(config, language_model)
        self.target = copy_learnt(self.critic).requires_grad_(False)

    def forward(self, batch: PackedBatch) -> Loss:
        last, first = batch.turn_end, torch.roll(batch.turn_end, 1)
        q, v = self.critic(batch, batch.state_idx[first])
        with torch.no_grad():
            target_q, next_v = self.target(batch, batch.next_state_idx[last])
            target = batch.reward[last] + self._shared.gamma * batch.continues[last] * next_v
        advantage = (q.amin(0) - v.amin(0)).detach()
        of_token = last.cumsum(0) - last.long()
        error = 0.5 * (v - target_q).square()
        losses = {
            "loss/q": 0.5 * (q - target).square(),
            "loss/v": self._v_weight(target_q - v.detach(), batch) * error,
            "loss/policy": self._actor_loss(self._log_prob(batch), advantage[of_token], batch),
        }
        sums = {name: value.sum() / batch.denominator for name, value in losses.items()}
        loss = torch.stack(list(sums.values())).sum()
        by_utterance = {
            "q/mean": q[0],
            "q/twin_gap": (q[0] - q[1]).abs(),
            "v/mean": v[0],
            "target/mean": target[0],
            "advantage/mean": advantage,
            "advantage/size": advantage.abs(),
        }
        means = {name: value[of_token].sum() / batch.denominator for name, value in by_utterance.items()}
        return Loss(loss, {k: m.detach() for k, m in {"loss": loss, **sums, **means}.items()})

    def _log_prob(self, batch: PackedBatch) -> torch.Tensor:
        """log pi(a|s) of the action tokens, [N]."""
        hidden = hidden_states(self.lm.base_model, batch.input_ids, batch.mask)
        log_prob: torch.Tensor = self.log_prob(hidden[batch.state_idx], batch.action_tok, self.temperature)
        return log_prob

    def after_step(self) -> None:
        polyak_(self.target.parameters(), self.critic.parameters(), self._shared.polyak)

    def lr_scale(self, parameter: str) -> float:
        return 1.0 if parameter.startswith("critic.") else self._shared.actor_lr

    def policy(self) -> LanguagePolicy:
        return LanguagePolicy(self._start[0])

    @abstractmethod
    def _v_weight(self, gap: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """What V's squared error counts, from Q_target - V: [2, U] -> [2, U] or [U]."""

    @abstractmethod
    def _actor_loss(
        self, log_prob: torch.Tensor, advantage: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        """Of each action token, from its log-probability and its utterance's advantage: [N], [N] -> [N]."""


class ArCHerConfig(ActorCriticConfig):
    gamma: float = Field(0.95, gt=0, le=1, description="discount per turn")
    polyak: float = Field(0.1, gt=0, le=1, description="share of the online weights in a target's update")
    actor_lr: float = Field(0.1, gt=0, description="the actor's learning rate, as a multiple of optimizer.lr")
    actor_after: int = Field(
        10, ge=0, description="rounds in which the critic alone learns (the actor's weights still decay)"
    )
    replay: int = Field(10_000, ge=1, description="episodes of past rounds that a worker keeps in memory")
    replayed: float = Field(
        4.0, ge=0, description="episodes that are replayed for Q beside each one of the round"
    )
    clip: float | None = Field(
        None,
        gt=0,
        description="PPO's clip of the ratio to the probability at the round's start; None for REINFORCE, "
        "which is right only while online.epochs is 1",
    )


@register_algorithm
class ArCHer(UtteranceActorCritic):
    """Online: each round's utterances, weighted by their advantage; older ones for the critic.

    The replay buffer is not saved: a resumed run fills it anew.
    """

    id = "archer"
    title = "ArCHer: utterance critic, token actor"
    source = "Zhou et al. 2024 (ArCHer)"
    online = True
    Config = ArCHerConfig

    rounds: torch.Tensor

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__(config, language_model)
        assert isinstance(config, ArCHerConfig)
        self.config = config
        self.register_buffer("rounds", torch.tensor(0))
        self._replay: list[TokenEpisode] = []

    def prepare(self, episodes: list[TokenEpisode], group: WorkerGroup) -> Prepared:
        """Mark the round's episodes, and add some of all that are remembered, these included."""
        self._replay = [*self._replay, *episodes][-self.config.replay :]
        count = int(self.config.replayed * len(episodes) + float(torch.rand(())))
        picks = torch.randint(max(len(self._replay), 1), (count,)).tolist()
        acts = float(self.rounds >= self.config.actor_after)
        self.rounds += 1
        marked = [e.with_actions(fresh=1.0, actor=acts) for e in self._with_old(episodes, group)]
        marked += [self._replay[i].with_actions(fresh=0.0, actor=0.0, old=0.0) for i in picks]
        remembered = float(group.sum(torch.tensor(float(len(self._replay)))))
        return Prepared(marked, {"archer/replay": remembered, "archer/actor_learns": acts})

    def forward(self, batch: PackedBatch, look: bool = False) -> Loss:
        """The loss; with `look` none, but log pi(a|s) of each token, [N], among its metrics."""
        if look:
            log_prob = self._log_prob(batch)
            return Loss(log_prob.sum(), {"old": log_prob})
        return super().forward(batch)

    def _with_old(self, episodes: list[TokenEpisode], group: WorkerGroup) -> list[TokenEpisode]:
        """With log pi_old of each action token, of the learner's own model: what the sampler noted is of
        its decoding, which may be cut off."""
        if self.config.clip is None:
            return [e.with_actions(old=0.0) for e in episodes]
        counts = [int(e.is_action.sum()) for e in episodes]
        old = by_episode(look(self, episodes, group, ("old",))["old"], counts)
        return [e.with_actions(old=o) for e, o in zip(episodes, old, strict=True)]

    def _v_weight(self, gap: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        return batch.extra("fresh")[batch.turn_end]

    def _actor_loss(
        self, log_prob: torch.Tensor, advantage: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        if self.config.clip is None:
            return -batch.extra("actor") * advantage * log_prob
        ratio = (log_prob - batch.extra("old")) * batch.extra("actor")
        loss, _ = clipped_policy_loss(ratio, advantage, self.config.clip)
        return batch.extra("actor") * loss


class OfflineArCHerConfig(ActorCriticConfig):
    tau: float = Field(0.9, gt=0, lt=1, description="expectile; 0.5 is the mean, towards 1 the maximum")
    awr_beta: float = Field(1.0, ge=0, description="lambda: weight of the advantage, in 1/units of return")
    max_weight: float = Field(100.0, ge=1, description="w_max: the most that an utterance counts")


@register_algorithm
class OfflineArCHer(UtteranceActorCritic):
    """Utterance-level IQL, and the data's utterances imitated by how good they are."""

    id = "offline-archer"
    title = "Offline ArCHer: utterance IQL, weighted cloning"
    source = "Zhou et al. 2024 (ArCHer, offline variant)"
    Config = OfflineArCHerConfig

    def __init__(self, config: AlgorithmConfig, language_model: LanguageModel) -> None:
        super().__init__(config, language_model)
        assert isinstance(config, OfflineArCHerConfig)
        self.config = config

    def _v_weight(self, gap: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        return torch.where(gap >= 0, self.config.tau, 1 - self.config.tau)

    def _actor_loss(
        self, log_prob: torch.Tensor, advantage: torch.Tensor, batch: PackedBatch
    ) -> torch.Tensor:
        return -self.weight(advantage) * log_prob

    def weight(self, advantage: torch.Tensor) -> torch.Tensor:
        """exp(min(lambda A, log w_max)), elementwise."""
        return (self.config.awr_beta * advantage).clamp(max=math.log(self.config.max_weight)).exp()
