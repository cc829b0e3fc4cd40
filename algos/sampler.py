"""Batched decoding for many running episodes: slots, a KV cache kept across turns, one generator each.

A slot belongs to one episode at a time. What is drawn for it depends on its own history and its own
generator, never on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from algos.cache import SlotCache
from algos.policy import Decoding, Policy


@dataclass(frozen=True, slots=True)
class SampledAction:
    """An action as it was sampled: its ids with their log-probabilities, the stop token included."""

    ids: np.ndarray
    logprobs: np.ndarray
    stopped: bool
    """False where the limit of tokens was reached before a newline."""
    read: int
    """How many of its tokens are in the slot's history already."""


class Sampler:
    """Draws actions for `slots` histories with one policy.

    Args:
        actions: the legal actions as ids, for `mode="rerank"`.
        max_action_tokens: an action longer than this is cut.

    Raises ValueError for reranking without a list of actions.
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
        hidden = self._read(chunks)
        if self._decoding.mode == "rerank":
            return self._rerank(list(chunks), hidden)
        return self._decode(list(chunks), hidden)

    def _read(self, chunks: dict[int, np.ndarray]) -> list[torch.Tensor]:
        none = np.zeros(0, dtype=np.int32)
        self.tokens_read += sum(len(c) for c in chunks.values())
        return self._cache.append([chunks.get(i, none) for i in range(len(self._generators))])

    def _decode(self, slots: list[int], hidden: list[torch.Tensor]) -> dict[int, SampledAction]:
        ids: dict[int, list[int]] = {s: [] for s in slots}
        logprobs: dict[int, list[float]] = {s: [] for s in slots}
        open_slots = slots
        while open_slots:
            logp = self._policy.log_probs([h[open_slots] for h in hidden], self._decoding).cpu()
            tokens = self._draw(open_slots, logp)
            chosen = logp.gather(1, torch.from_numpy(tokens)[:, None]).squeeze(1).tolist()
            for slot, token, value in zip(open_slots, tokens.tolist(), chosen, strict=True):
                ids[slot].append(token)
                logprobs[slot].append(value)
            open_slots = [
                s for s in open_slots if not self._ends[ids[s][-1]] and len(ids[s]) < self._max_tokens
            ]
            if open_slots:
                hidden = self._read({s: np.asarray(ids[s][-1:], dtype=np.int32) for s in open_slots})
        return {s: self._action(ids[s], logprobs[s], read=len(ids[s]) - 1) for s in slots}

    def _draw(self, slots: list[int], logp: torch.Tensor) -> np.ndarray:
        """One token for each slot: the likeliest, or by inversion of the slot's next uniform number."""
        if self._decoding.mode == "greedy":
            return logp.argmax(-1).numpy()
        cumulative = logp.double().exp().cumsum(-1)
        uniform = torch.tensor([self._generator(s).random() for s in slots], dtype=torch.float64)
        tokens = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)
        return tokens.squeeze(1).clamp(max=logp.shape[1] - 1).numpy()

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
