"""Index form: token episodes packed into padded rows, with the places of their action tokens.

A *row* is what the model reads: a context with the actions that were taken in it. Actions that share
a context share a row; where the context slides (a window of segments), each has its own, and the
next state of its last token is the end of the next row's prompt. Identical rows, and rows that are a
prefix of another, are computed once: with a maze of 25 observations, 128 episodes make 100 rows.

Heads and losses then run on the N action tokens alone, 5-30 % of all tokens, never on [B, T, V].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch

from algos.tokens import TokenEpisode


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One micro-batch: B rows of T tokens, N action tokens.

    The action tokens of an episode stand one after the other in the order of time.

    Attributes:
        input_ids: int64 [B, T], padded on the right with 0.
        mask: bool [B, T], True on tokens (padding is data, never inferred from ids).
        state_idx: int64 [N], flat index into B*T of the state in which the token was chosen.
        action_tok: int64 [N].
        next_state_idx: int64 [N], state of the next action token, or of the last observation.
        next_tok: int64 [N], the action token that follows in the episode; -1 after its last one.
        reward: float32 [N].
        continues: float32 [N], 0 where the episode terminated after the token, else 1.
        turn_end: bool [N], the last token of its action.
        chain_end: bool [N], the next entry belongs to another episode (or another piece of this one).
        logprob: float32 [N], under the distribution the token was sampled from.
        observed_idx: int64 [M], flat index of the state before each environment token; each is listed
            once an episode, with the action that follows it.
        observed_tok: int64 [M], the environment token.
        entry: int64 [N], the action token's number among those of all episodes that were packed, in
            their order (see `in_order`).
        extras: float32 [N] each, what the algorithm added to the episodes.
        denominator: what sums over N are divided by: the action tokens of the whole optimiser step,
            over all micro-batches and workers.
    """

    input_ids: torch.Tensor
    mask: torch.Tensor
    state_idx: torch.Tensor
    action_tok: torch.Tensor
    next_state_idx: torch.Tensor
    next_tok: torch.Tensor
    reward: torch.Tensor
    continues: torch.Tensor
    turn_end: torch.Tensor
    chain_end: torch.Tensor
    logprob: torch.Tensor
    observed_idx: torch.Tensor
    observed_tok: torch.Tensor
    entry: torch.Tensor
    extras: dict[str, torch.Tensor] = field(default_factory=dict)
    denominator: float = 1.0

    @property
    def num_actions(self) -> int:
        return int(self.state_idx.shape[0])

    def extra(self, name: str) -> torch.Tensor:
        """An extra by name; a batch without any action has none of them."""
        return self.extras[name] if self.num_actions else self.reward

    def to(self, device: torch.device | str) -> PackedBatch:
        moved: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, torch.Tensor):
                moved[f.name] = value.to(device, non_blocking=True)
        moved["extras"] = {k: v.to(device, non_blocking=True) for k, v in self.extras.items()}
        return replace(self, **moved)

    def normalized_by(self, denominator: float) -> PackedBatch:
        return replace(self, denominator=denominator)


@dataclass(frozen=True, slots=True)
class _Row:
    """Tokens [start, end) of an episode, with the actions number [first, last) that it owns."""

    start: int
    end: int
    first: int
    last: int


def pack(episodes: Iterable[TokenEpisode], max_tokens: int) -> list[PackedBatch]:
    """Micro-batches of at most `max_tokens` padded tokens each (a single longer row is let through).

    The loss over all of them does not depend on how the episodes are split, unless it chains targets
    over more than one action: a chain ends where a long episode is cut. Each has `denominator` set to
    the action tokens of all of them together.
    """
    batches = [packer.build() for packer in _fill(episodes, max_tokens)]
    total = float(sum(b.num_actions for b in batches))
    return [b.normalized_by(total) for b in batches]


def in_order(batches: Sequence[PackedBatch], values: Sequence[torch.Tensor]) -> np.ndarray:
    """Values that were computed batch by batch ([N] each) in the order of the episodes, float64."""
    result = np.zeros(sum(b.num_actions for b in batches))
    for batch, part in zip(batches, values, strict=True):
        result[batch.entry.cpu().numpy()] = part.detach().double().cpu().numpy()
    return result


def empty_batch() -> PackedBatch:
    """One dummy token and no action: what a worker computes that has nothing, so that all stay in step."""
    return _Packer().build()


def _fill(episodes: Iterable[TokenEpisode], max_tokens: int) -> Iterator[_Packer]:
    packer = _Packer()
    pieces: list[tuple[TokenEpisode, list[_Row], int]] = []
    entries = 0
    for episode in episodes:
        pieces += [(episode, rows, entries) for rows in _pieces(episode, max_tokens)]
        entries += int(episode.is_action.sum())
    pieces.sort(key=lambda piece: max(r.end - r.start for r in piece[1]))
    for episode, rows, first_entry in pieces:
        if packer.has_rows and packer.size_with(episode, rows) > max_tokens:
            yield packer
            packer = _Packer()
        packer.add(episode, rows, first_entry)
    if packer.has_rows:
        yield packer


def _rows(episode: TokenEpisode) -> list[_Row]:
    """The rows of an episode in the order of time."""
    count = len(episode.actions)
    context = episode.context
    starts = [0, *(np.flatnonzero(context[1:count] != context[: count - 1]) + 1).tolist()]
    rows = []
    for first, last in zip(starts, [*starts[1:], count], strict=True):
        rows.append(_Row(int(context[first]), int(episode.actions[last - 1, 1]), first, last))
    return rows


def _pieces(episode: TokenEpisode, max_tokens: int) -> Iterator[list[_Row]]:
    """Runs of rows that fit into `max_tokens` padded tokens together, each with the prompt that its last
    state needs."""
    if len(episode.actions) == 0:
        return
    piece: list[_Row] = []
    width = 0
    for row in _rows(episode):
        closing = _closing(episode, row)
        widest = max(width, *(r.end - r.start for r in [row, *closing]))
        if piece and (len(piece) + 1 + len(closing)) * widest > max_tokens:
            yield [*piece, *_closing(episode, piece[-1])]
            piece, width = [], 0
        piece.append(row)
        width = max(width, row.end - row.start)
    yield [*piece, *_closing(episode, piece[-1])]


def _closing(episode: TokenEpisode, row: _Row) -> list[_Row]:
    """The prompt that the state after `row` needs; none where the episode terminated."""
    ended = episode.terminated and row.last == len(episode.actions)
    return [] if ended else [_prompt_after(episode, row)]


def _prompt_after(episode: TokenEpisode, row: _Row) -> _Row:
    """The row, owning no action, that ends in the state after `row`'s last action."""
    end = len(episode.ids) if row.last == len(episode.actions) else int(episode.actions[row.last, 0])
    return _Row(int(episode.context[row.last]), end, row.last, row.last)


class _Packer:
    """One micro-batch in the making."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}
        self._width = 0
        self._state: list[tuple[int, int]] = []
        self._next: list[tuple[int, int]] = []
        self._observed: list[tuple[int, int]] = []
        self._observed_tok: list[int] = []
        self._columns: dict[str, list[np.ndarray]] = {}

    @property
    def has_rows(self) -> bool:
        return bool(self._index)

    def size_with(self, episode: TokenEpisode, rows: list[_Row]) -> int:
        """Padded tokens after adding the rows."""
        new = {_key(episode, r) for r in rows} - self._index.keys()
        return (len(self._index) + len(new)) * max(self._width, *(r.end - r.start for r in rows))

    def add(self, episode: TokenEpisode, rows: list[_Row], first_entry: int) -> None:
        """Add a run of rows; one that owns no action stands last and only gives the last next state.

        `first_entry` is the number of the episode's first action token.
        """
        keys = [_key(episode, r) for r in rows]
        slots = [self._index.setdefault(k, len(self._index)) for k in keys]
        self._width = max(self._width, *(r.end - r.start for r in rows))
        states: list[tuple[int, int]] = []
        tokens: list[int] = []
        for row, slot in zip(rows, slots, strict=True):
            for number in range(row.first, row.last):
                start, end = episode.actions[number].tolist()
                states += [(slot, t - 1 - row.start) for t in range(start, end)]
                tokens += range(start, end)
                previous_end = int(episode.actions[number - 1, 1]) if number else 0
                observed = range(max(row.start + 1, previous_end), start)
                self._observed += [(slot, t - 1 - row.start) for t in observed]
                self._observed_tok += episode.ids[observed.start : observed.stop].tolist()
        bootstrap = rows[-1]
        if bootstrap.first == bootstrap.last:
            last_state = (slots[-1], bootstrap.end - 1 - bootstrap.start)
        else:
            last_state = states[-1]
        self._state += states
        self._next += [*states[1:], last_state]
        self._columns.setdefault("next_tok", []).append(_following(episode, tokens, bootstrap.last))
        self._add_columns(episode, np.asarray(tokens), terminal=bootstrap.first != bootstrap.last)
        entries = np.flatnonzero(episode.is_action).searchsorted(tokens) + first_entry
        self._columns.setdefault("entry", []).append(entries)

    def build(self) -> PackedBatch:
        place, rows = self._merge_prefixes()
        width = max(self._width, 1)
        ids = np.zeros((max(len(rows), 1), width), dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        mask[:, 0] = True
        for i, key in enumerate(rows):
            row = np.frombuffer(key, dtype=">i4")
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        column = {k: np.concatenate(v) for k, v in self._columns.items()}
        extras = {k[6:]: v for k, v in column.items() if k.startswith("extra/")}
        return PackedBatch(
            input_ids=torch.from_numpy(ids),
            mask=torch.from_numpy(mask),
            state_idx=_flat(self._state, place, width),
            action_tok=_tensor(column.get("action"), torch.int64),
            next_state_idx=_flat(self._next, place, width),
            next_tok=_tensor(column.get("next_tok"), torch.int64),
            reward=_tensor(column.get("reward"), torch.float32),
            continues=_tensor(column.get("continues"), torch.float32),
            turn_end=_tensor(column.get("turn_end"), torch.bool),
            chain_end=_tensor(column.get("chain_end"), torch.bool),
            logprob=_tensor(column.get("logprob"), torch.float32),
            observed_idx=_flat(self._observed, place, width),
            observed_tok=torch.tensor(self._observed_tok, dtype=torch.int64),
            entry=_tensor(column.get("entry"), torch.int64),
            extras={k: _tensor(v, torch.float32) for k, v in extras.items()},
        )

    def _add_columns(self, episode: TokenEpisode, tokens: np.ndarray, terminal: bool) -> None:
        continues = np.ones(len(tokens), np.float32)
        continues[-1] = 0.0 if terminal else 1.0
        turn_end = np.isin(tokens, episode.actions[:, 1] - 1)
        chain_end = np.zeros(len(tokens), bool)
        chain_end[-1] = True
        columns = {
            "action": episode.ids[tokens],
            "reward": episode.reward[tokens],
            "continues": continues,
            "turn_end": turn_end,
            "chain_end": chain_end,
            "logprob": episode.logprob[tokens],
            **{f"extra/{k}": v[tokens] for k, v in episode.extras.items()},
        }
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)

    def _merge_prefixes(self) -> tuple[np.ndarray, list[bytes]]:
        """Rows that are not a prefix of another, and for each row added the one that holds it.

        Keys are big-endian, so in sorted order a row that is a prefix stands right before one it is
        a prefix of.
        """
        order = sorted(self._index)
        holder: dict[bytes, bytes] = {}
        for i in reversed(range(len(order))):
            key = order[i]
            longer = order[i + 1] if i + 1 < len(order) else b""
            holder[key] = holder[longer] if longer.startswith(key) and longer else key
        kept = [k for k in self._index if holder[k] == k]
        number = {k: i for i, k in enumerate(kept)}
        place = np.asarray([number[holder[k]] for k in self._index], dtype=np.int64)
        return place, kept


def _following(episode: TokenEpisode, tokens: list[int], action: int) -> np.ndarray:
    """The action token after each of those at `tokens`, the last of which stands right before `action`."""
    after = episode.ids[episode.actions[action, 0]] if action < len(episode.actions) else -1
    return np.asarray([*episode.ids[tokens[1:]], after], dtype=np.int64)


def _key(episode: TokenEpisode, row: _Row) -> bytes:
    return episode.ids[row.start : row.end].astype(">i4").tobytes()


def _flat(places: list[tuple[int, int]], place: np.ndarray, width: int) -> torch.Tensor:
    if not places:
        return torch.zeros(0, dtype=torch.int64)
    pairs = np.asarray(places, dtype=np.int64)
    return torch.from_numpy(place[pairs[:, 0]] * width + pairs[:, 1])


def _tensor(values: np.ndarray | None, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(0, dtype=dtype) if values is None else torch.as_tensor(values).to(dtype)
