"""Token episodes: what an episode is to a model, and which tokens it sees when it acts.

Time runs over action tokens: a reward sits on the last token of its action, and an action's context
is a suffix of the episode that begins at a segment boundary (all of it, the last `window` segments,
or as many as the model's window holds).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from algos.codec import TextCodec
from envs.core import Episode, Segment


class ContextError(ValueError):
    """What an action follows from does not fit into the model's window."""


@dataclass(frozen=True, slots=True)
class ContextRule:
    """How much of the past is in a prompt."""

    window: int | None
    """Segments, the latest observation included; None for no limit."""
    max_tokens: int
    """The model's window: prompt and action together."""
    reserve: int
    """Tokens of `max_tokens` that are kept free for the action."""
    forget_on_invalid: bool = False
    """An action that the environment could not parse wipes what came before the next observation."""

    def start(self, bounds: Sequence[int], segment: int, last_invalid: int, action_tokens: int = 0) -> int:
        """First token of the context in which segment number `segment` is an action.

        Args:
            bounds: token offset at which each segment begins, and the end of the last one.
            last_invalid: index of the latest invalid action segment before `segment`, or -1.
            action_tokens: length of the action where it is known; data may hold longer ones than `reserve`.

        Raises ContextError when there is none, or the latest observation does not fit.
        """
        first = 0 if self.window is None else max(0, segment - self.window)
        if self.forget_on_invalid:
            first = max(first, last_invalid + 1)
        room = max(self.reserve, action_tokens)
        limit = self.max_tokens - room
        while first < segment and bounds[segment] - bounds[first] > limit:
            first += 1
        if bounds[first] == bounds[segment]:
            if self.forget_on_invalid and 0 <= last_invalid == segment - 1:
                raise ContextError("an action needs a context: an invalid one has wiped it, nothing follows")
            latest = bounds[segment] - bounds[max(segment - 1, 0)]
            raise ContextError(
                f"an action needs a context: the latest observation has {latest} tokens, the model's "
                f"window {self.max_tokens}, of which {room} are kept for the action; use a model with a "
                f"longer window, or a tokenizer that makes fewer tokens of it"
            )
        return int(bounds[first])


@dataclass(frozen=True, slots=True, eq=False)
class TokenEpisode:
    """An episode as ids. T tokens, A actions; arrays are numpy, on the host.

    Attributes:
        ids: int32 [T], all segments one after the other.
        is_action: bool [T].
        reward: float64 [T], non-zero only on the last token of an action.
        logprob: float32 [T], log-probability under the distribution it was sampled from; 0 elsewhere.
        actions: int32 [A, 2], first token and end of each action.
        context: int32 [A + 1], where the context of each action begins; the last entry is for the
            action that would come after the last observation.
        terminated: the last state has no value. Otherwise the record stops while the game goes on
            (a time limit, or a collector that stopped), and the last observation is bootstrapped from.
        success: the environment's verdict.
        extras: per-token float arrays [T] that an algorithm adds (returns, advantages).
    """

    ids: np.ndarray
    is_action: np.ndarray
    reward: np.ndarray
    logprob: np.ndarray
    actions: np.ndarray
    context: np.ndarray
    terminated: bool
    success: bool = False
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def with_extras(self, **arrays: np.ndarray) -> TokenEpisode:
        return replace(self, extras={**self.extras, **arrays})

    def with_actions(self, **values: np.ndarray | float) -> TokenEpisode:
        """With extras that are given for the action tokens alone: [N] each, or one number for all."""
        arrays = {name: np.zeros(len(self.ids)) for name in values}
        for name, array in arrays.items():
            array[self.is_action] = values[name]
        return self.with_extras(**arrays)


def encode_episode(episode: Episode, codec: TextCodec, rule: ContextRule) -> TokenEpisode:
    """Tokenise an episode segment by segment. ValueError where `check_episode` has one."""
    check_episode(episode)
    pieces = [codec.encode(s.text) for s in episode.segments]
    builder = TokenEpisodeBuilder(rule)
    for segment, ids in zip(episode.segments, pieces, strict=True):
        if segment.is_action:
            builder.add_action(ids, np.zeros(len(ids)), segment.reward, segment.valid)
        else:
            builder.add_observation(ids)
    return builder.build(episode.terminated, episode.success)


def check_episode(episode: Episode) -> None:
    """ValueError for an episode that cannot be learnt from as it is played.

    It begins with an observation; an action is one line, with its newline; rewards are finite, and an
    observation has none.
    """
    if not episode.segments:
        raise ValueError(f"an episode of {episode.task} is without segments")
    for number, segment in enumerate(episode.segments):
        if wrong := _wrong(segment, number == 0):
            raise ValueError(f"segment {number} of an episode of {episode.task} is {wrong}")


def _wrong(segment: Segment, is_first: bool) -> str | None:
    if not math.isfinite(segment.reward):
        return f"one with a reward of {segment.reward}; a reward is a finite number"
    if not segment.is_action:
        if segment.reward == 0:
            return None
        return (
            f"an observation with a reward of {segment.reward}; a reward belongs to the action that earned it"
        )
    if is_first:
        return "an action; an episode begins with an observation"
    if segment.text.endswith("\n") and "\n" not in segment.text[:-1]:
        return None
    return (
        f"the action {segment.text[:80]!r}; an action is one line that ends in a newline, by which a player "
        f"ends it, too"
    )


class TokenEpisodeBuilder:
    """Collects an episode segment by segment, as it is read or played."""

    def __init__(self, rule: ContextRule) -> None:
        self.rule = rule
        self.bounds: list[int] = [0]
        self._ids: list[np.ndarray] = []
        self._logprobs: list[np.ndarray] = []
        self._actions: list[tuple[int, int]] = []
        self._rewards: list[float] = []
        self._context: list[int] = []
        self._last_invalid = -1

    def add_observation(self, ids: np.ndarray) -> None:
        self._add(ids, np.zeros(len(ids)))

    def add_action(self, ids: np.ndarray, logprobs: np.ndarray, reward: float, valid: bool) -> None:
        if len(ids) == 0:
            raise ValueError("an action has no tokens; an action ends in a newline at least")
        if not math.isfinite(reward):
            raise ValueError(f"an action has the reward {reward}, which is not a finite number")
        self._context.append(self.context_start(len(ids)))
        self._actions.append((self.bounds[-1], self.bounds[-1] + len(ids)))
        self._rewards.append(reward)
        self._add(ids, logprobs)
        if not valid:
            self._last_invalid = len(self.bounds) - 2

    def close_action(self, ids: np.ndarray) -> None:
        """Tokens that end the last action and were not sampled: no context begins with them."""
        self._ids.append(ids)
        self._logprobs.append(np.zeros(len(ids)))
        self.bounds[-1] += len(ids)

    def context_start(self, action_tokens: int = 0) -> int:
        """First token of the context of an action (of so many tokens, if known) that comes now."""
        return self.rule.start(self.bounds, len(self.bounds) - 1, self._last_invalid, action_tokens)

    def tokens(self, start: int) -> np.ndarray:
        """All ids from token `start` on."""
        return np.concatenate([np.zeros(0, np.int32), *self._ids])[start:]

    def build(self, terminated: bool, success: bool = False) -> TokenEpisode:
        ids = self.tokens(0).astype(np.int32)
        is_action = np.zeros(len(ids), dtype=bool)
        reward = np.zeros(len(ids), dtype=np.float64)
        for (start, end), value in zip(self._actions, self._rewards, strict=True):
            is_action[start:end] = True
            reward[end - 1] = value
        final = 0 if terminated else self.context_start()
        return TokenEpisode(
            ids=ids,
            is_action=is_action,
            reward=reward,
            logprob=np.concatenate([np.zeros(0), *self._logprobs]).astype(np.float32),
            actions=np.asarray(self._actions, dtype=np.int32).reshape(-1, 2),
            context=np.asarray([*self._context, final], dtype=np.int32),
            terminated=terminated,
            success=success,
        )

    def _add(self, ids: np.ndarray, logprobs: np.ndarray) -> None:
        self._ids.append(ids)
        self._logprobs.append(logprobs)
        self.bounds.append(self.bounds[-1] + len(ids))
