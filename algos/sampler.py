"""Batched decoding for many running episodes: slots, a KV cache kept across turns, one generator each.

A slot belongs to one episode at a time. What is drawn for it depends on its own history and its own
generator, never on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from algos.cache import SlotCache
from algos.policy import Decoding, Policy, ValuePolicy


@dataclass(frozen=True, slots=True)
class SampledAction:
    """An action as it was sampled: its ids with their log-probabilities, the stop token included."""

    ids: np.ndarray
    logprobs: np.ndarray
    stopped: bool
    """False where the limit of tokens was reached before a newline."""
    read: int
    """How many of its tokens are in the slot's history already."""


@dataclass(slots=True)
class _Draft:
    """An action in the making."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    value: float = 0.0
    """Q of its latest token, for mode: propose."""


class Sampler:
    """Draws actions for `slots` histories with one policy.

    Args:
        actions: the legal actions as ids, for `mode="rerank"`.
        max_action_tokens: an action longer than this is cut.

    Raises ValueError for reranking without a list of actions, and for choosing by Q without values.
    """

    def __init__(
        self,
        policy: Policy,
        decoding: Decoding,
        slots: int,
        max_action_tokens: int,
        actions: Sequence[np.ndarray] | None = None,
    ) -> None:
        if decoding.mode == "rerank" and not actions:
            raise ValueError("decoding.mode: rerank needs a task with a fixed list of actions; use sample")
        if decoding.mode == "propose" and not isinstance(policy, ValuePolicy):
            raise ValueError(
                "decoding.mode: propose chooses among candidates by Q, and this policy has none; use sample, "
                "or a policy of ilql, mc or cql"
            )
        self._policy = policy
        self._decoding = decoding
        self._actions = list(actions or [])
        self._max_tokens = max_action_tokens
        self._ends = policy.codec.ends_action
        self._cache = SlotCache(policy.trunks(), slots, policy.device)
        self._generators: list[np.random.Generator | None] = [None] * slots
        self.tokens_read = 0
        """Tokens that went through the network, prompt and action, over the sampler's life."""

    def start(self, slot: int, generator: np.random.Generator) -> None:
        """Give the slot to a new episode."""
        self._cache.clear(slot)
        self._generators[slot] = generator

    def forget(self, slot: int) -> None:
        """Drop the slot's history (its context window slid); the next chunk holds all of the context."""
        self._cache.clear(slot)

    @torch.no_grad()
    def act(self, chunks: dict[int, np.ndarray]) -> dict[int, SampledAction]:
        """Read each slot's new tokens, then draw its action.

        Args:
            chunks: by slot, the tokens since the last call: at least the action's last token, which was
                sampled but not read back, and the observation. Slots not named stay as they are.
        """
        hidden = self._read(self._cache, chunks)
        if self._decoding.mode == "rerank":
            return self._rerank(list(chunks), hidden)
        if self._decoding.mode == "propose":
            return self._propose(list(chunks), hidden)
        return self._decode(list(chunks), hidden)

    def _read(self, cache: SlotCache, chunks: dict[int, np.ndarray]) -> list[torch.Tensor]:
        none = np.zeros(0, dtype=np.int32)
        self.tokens_read += sum(len(c) for c in chunks.values())
        return cache.append([chunks.get(i, none) for i in range(len(cache.lengths))])

    def _decode(self, slots: list[int], hidden: list[torch.Tensor]) -> dict[int, SampledAction]:
        generators = {slot: self._generator(slot) for slot in slots}
        drafts = self._write(self._cache, hidden, generators)
        return {s: self._action(d.ids, d.logprobs, read=len(d.ids) - 1) for s, d in drafts.items()}

    def _propose(self, slots: list[int], hidden: list[torch.Tensor]) -> dict[int, SampledAction]:
        """Of several actions that the language model would say, the best by Q of the whole.

            u = argmax_i min(Q1, Q2)(s, u_i),   u_1 .. u_n ~ pi_beta(. | s)

        Q of an action is that of its last token, in the state before it. Source: CHAI (Verma et al. 2022),
        which draws from softmax(Q) of the proposals; the best of them is LMRL-Gym's form. They are written in
        copies of the slot's history and share the slot's generator.
        """
        count = self._decoding.candidates
        owners = [slot for slot in slots for _ in range(count)]
        generators = {row: self._generator(slot) for row, slot in enumerate(owners)}
        drafts = self._write(self._cache.branch(owners), [h[owners] for h in hidden], generators)
        chosen = {}
        for i, slot in enumerate(slots):
            own = [drafts[row] for row in range(i * count, (i + 1) * count)]
            best = max(own, key=lambda draft: draft.value)
            chosen[slot] = self._action(best.ids, best.logprobs, read=0)
        return chosen

    def _write(
        self, cache: SlotCache, hidden: list[torch.Tensor], generators: dict[int, np.random.Generator]
    ) -> dict[int, _Draft]:
        """Draw an action in each slot of the cache that has a generator; all but its last token are read.

        Args:
            hidden: the state of every slot of the cache, [slots, h] for each trunk.
        """
        drafts = {slot: _Draft() for slot in generators}
        open_slots = list(drafts)
        while open_slots:
            states = [h[open_slots] for h in hidden]
            logp = self._policy.log_probs(states, self._decoding).cpu()
            tokens = self._draw([generators[s] for s in open_slots], logp)
            chosen = logp.gather(1, tokens[:, None]).squeeze(1).tolist()
            for slot, token, logprob in zip(open_slots, tokens.tolist(), chosen, strict=True):
                drafts[slot].ids.append(token)
                drafts[slot].logprobs.append(logprob)
            if self._decoding.mode == "propose":
                assert isinstance(self._policy, ValuePolicy)
                values = self._policy.action_values(states, tokens.to(self._policy.device)).tolist()
                for slot, value in zip(open_slots, values, strict=True):
                    drafts[slot].value = value
            open_slots = [
                s
                for s in open_slots
                if not self._ends[drafts[s].ids[-1]] and len(drafts[s].ids) < self._max_tokens
            ]
            if open_slots:
                last = {s: np.asarray(drafts[s].ids[-1:], dtype=np.int32) for s in open_slots}
                hidden = self._read(cache, last)
        return drafts

    def _draw(self, generators: list[np.random.Generator], logp: torch.Tensor) -> torch.Tensor:
        """One token for each row: the likeliest, or by inversion of its generator's next uniform number."""
        if self._decoding.mode == "greedy":
            return logp.argmax(-1)
        return invert(logp, [g.random() for g in generators])

    def _rerank(self, slots: list[int], hidden: list[torch.Tensor]) -> dict[int, SampledAction]:
        count, width = len(self._actions), max(len(a) for a in self._actions)
        scores = torch.zeros(len(slots), count)
        tails = self._cache.peek(slots, [a[:-1] for a in self._actions]) if width > 1 else []
        for j in range(width):
            at = [i for i, a in enumerate(self._actions) if len(a) > j]
            tokens = torch.tensor([int(self._actions[i][j]) for i in at], device=self._policy.device)
            states = []
            for k, first in enumerate(hidden):
                state = first[slots][:, None].expand(-1, len(at), -1) if j == 0 else tails[k][:, at, j - 1]
                states.append(state.reshape(len(slots) * len(at), -1))
            part = self._policy.rerank_scores(states, tokens.repeat(len(slots)), self._decoding)
            scores[:, at] += part.reshape(len(slots), len(at)).cpu()
        logp = torch.log_softmax(scores, dim=-1)
        best = scores.argmax(-1)
        chosen = {}
        for i, slot in enumerate(slots):
            ids = self._actions[int(best[i])].tolist()
            logprobs = [float(logp[i, best[i]]), *[0.0] * (len(ids) - 1)]
            chosen[slot] = self._action(ids, logprobs, read=0)
        return chosen

    def _action(self, ids: list[int], logprobs: list[float], read: int) -> SampledAction:
        return SampledAction(
            np.asarray(ids, dtype=np.int32),
            np.asarray(logprobs, dtype=np.float32),
            stopped=bool(self._ends[ids[-1]]),
            read=read,
        )

    def _generator(self, slot: int) -> np.random.Generator:
        generator = self._generators[slot]
        if generator is None:
            raise RuntimeError(f"slot {slot} has no episode: call start() first")
        return generator


def invert(logp: torch.Tensor, uniform: Sequence[float]) -> torch.Tensor:
    """The token of each row at which its cumulative distribution passes `uniform`: [B, V], [B] -> [B]."""
    cumulative = logp.double().exp().cumsum(-1)
    at = torch.tensor(uniform, dtype=torch.float64) * cumulative[:, -1]
    tokens = torch.searchsorted(cumulative, at[:, None], right=True)
    return tokens.squeeze(1).clamp(max=logp.shape[1] - 1)
