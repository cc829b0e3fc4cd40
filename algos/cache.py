"""A KV cache for slots whose histories have different lengths, kept across turns.

Every forward pass adds the same number of columns to all slots; a slot that has nothing to say in a
column has it masked. Positions are given explicitly, so where a key stands in the cache does not
matter, only that its slot sees it: cleared or masked columns are dropped when they pile up.

A layer with a sliding window is kept as any other: no history is longer than the shortest window
(`LanguageModel.max_tokens`), and up to there such a layer sees all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def shortest_window(config: Any) -> int | None:
    """Of a model's sliding windows, in tokens; None where all its layers see everything."""
    layers = DynamicCache(config=config).layers
    return min((n.sliding_window for n in layers if type(n) is DynamicSlidingWindowLayer), default=None)


def foreign_layers(config: Any) -> set[str]:
    """Kinds of a model's layers that keep something else than keys and values, for which this is no cache."""
    kinds = {type(layer) for layer in DynamicCache(config=config).layers}
    return {kind.__name__ for kind in kinds - {DynamicLayer, DynamicSlidingWindowLayer}}


class SlotCache:
    """Keys and values of `slots` independent histories for each of several trunks.

    Attributes:
        lengths: tokens that each slot's history holds.
    """

    def __init__(self, trunks: Sequence[Any], slots: int, device: torch.device) -> None:
        self._trunks = trunks
        self._device = device
        self._caches = [_growing_cache(t) for t in trunks]
        self._mask = torch.zeros(slots, 0, dtype=torch.bool, device=device)
        self.lengths = np.zeros(slots, dtype=np.int64)

    def clear(self, slot: int) -> None:
        """Forget the slot's history."""
        self._mask[slot] = False
        self.lengths[slot] = 0

    @torch.no_grad()
    def append(self, chunks: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Read chunk i (ids, possibly none) into slot i's history.

        Returns for each trunk the hidden state after each slot's last new token, [slots, h]
        (of no meaning for a slot with an empty chunk).
        """
        self._compact()
        width = max(len(c) for c in chunks)
        ids = np.zeros((len(chunks), width), dtype=np.int64)
        new = np.zeros((len(chunks), width), dtype=bool)
        for i, chunk in enumerate(chunks):
            ids[i, : len(chunk)] = chunk
            new[i, : len(chunk)] = True
        positions = np.where(new, self.lengths[:, None] + np.arange(width), 0)
        self._mask = torch.cat([self._mask, torch.from_numpy(new).to(self._device)], dim=1)
        self.lengths += new.sum(1)
        inputs = {
            "input_ids": torch.from_numpy(ids).to(self._device),
            "position_ids": torch.from_numpy(positions).to(self._device),
            "attention_mask": self._attention(width),
        }
        last = torch.from_numpy(np.maximum(new.sum(1) - 1, 0)).to(self._device)
        rows = torch.arange(len(chunks), device=self._device)
        return [h[rows, last] for h in self._run(inputs)]

    @torch.no_grad()
    def peek(self, slots: Sequence[int], continuations: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Hidden states over hypothetical continuations, without changing any history.

        Every continuation is tried in every slot named. Returns for each trunk
        [len(slots), len(continuations), width, h], `width` being the longest continuation's length.
        """
        count, width = len(continuations), max(len(c) for c in continuations)
        branch = self.branch(np.repeat(np.asarray(slots), count).tolist())
        ids = np.zeros((count, width), dtype=np.int64)
        for i, continuation in enumerate(continuations):
            ids[i, : len(continuation)] = continuation
        positions = branch.lengths[:, None] + np.arange(width)
        new = torch.ones(len(positions), width, dtype=torch.bool, device=self._device)
        inputs = {
            "input_ids": torch.from_numpy(ids).to(self._device).repeat(len(slots), 1),
            "position_ids": torch.from_numpy(positions).to(self._device),
            "attention_mask": _attend(torch.cat([branch._mask, new], dim=1), width),
        }
        return [h.reshape(len(slots), count, width, -1) for h in branch._run(inputs)]

    def branch(self, slots: Sequence[int]) -> SlotCache:
        """A cache whose slot i begins with a copy of the history of `slots[i]`; one may be named often."""
        index = torch.tensor(slots, device=self._device)
        copy = SlotCache(self._trunks, len(slots), self._device)
        for own, cache in zip(copy._caches, self._caches, strict=True):
            for i, layer in enumerate(cache.layers):
                own.update(layer.keys[index], layer.values[index], i)
        copy._mask, copy.lengths = self._mask[index], self.lengths[np.asarray(slots)]
        return copy

    def _run(self, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return [
            trunk(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
            for trunk, cache in zip(self._trunks, self._caches, strict=True)
        ]

    def _attention(self, width: int) -> torch.Tensor:
        return _attend(self._mask, width)

    def _compact(self) -> None:
        """Drop columns that no history needs once they outnumber the needed ones."""
        columns, longest = self._mask.shape[1], int(self.lengths.max())
        if columns <= 2 * longest + 32 and (longest or not columns):
            return
        order = self._mask.to(torch.int8).argsort(dim=1, stable=True)[:, columns - longest :]
        self._mask = self._mask.gather(1, order)
        for cache in self._caches:
            for layer in cache.layers:
                layer.keys = _gather(layer.keys, order)
                layer.values = _gather(layer.values, order)


class _GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, in buffers with room to spare.

    `DynamicLayer` copies the whole history for every token that is added, which costs more than
    all the rest of a decoding step. `keys` and `values` are views of the buffers' beginning.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self._key_room = self._value_room = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._key_room, self.keys = _extend(self._key_room, self.keys, key_states)
        self._value_room, self.values = _extend(self._value_room, self.values, value_states)
        return self.keys, self.values


def _growing_cache(trunk: Any) -> Any:
    cache = DynamicCache(config=trunk.config)
    cache.layers = [_GrowingLayer() for _ in cache.layers]
    return cache


def _extend(room: torch.Tensor, held: torch.Tensor, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The buffer, and its view that is `held` followed by `new` along dimension 2.

    `held` is copied only where it is no view of `room`, or the room is too small.
    """
    length = held.shape[2] if held.dim() == 4 else 0
    end = length + new.shape[2]
    if held.data_ptr() != room.data_ptr() or room.dim() != 4 or room.shape[2] < end:
        room = new.new_empty(*new.shape[:2], end + end // 2, new.shape[3])
        if length:
            room[:, :, :length] = held
    room[:, :, length:end] = new
    return room, room[:, :, :end]


def _attend(valid: torch.Tensor, width: int) -> torch.Tensor:
    """Which keys the last `width` columns may look at: valid [B, C] -> bool [B, 1, width, C].

    Causal and valid, and always itself: a masked column that saw nothing would be NaN, and NaN times
    the weight 0 is NaN for everyone.
    """
    columns = valid.shape[1]
    query = torch.arange(columns - width, columns, device=valid.device)[:, None]
    key = torch.arange(columns, device=valid.device)[None, :]
    return ((valid[:, None, None, :] & (key <= query)) | (key == query)).contiguous()


def _gather(tensor: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Columns `order` [B, L] of keys or values [B, heads, C, d]."""
    index = order[:, None, :, None].expand(-1, tensor.shape[1], -1, tensor.shape[3])
    return tensor.gather(2, index)
