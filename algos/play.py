"""Play episodes with a policy: many simulators, one batch, slots refilled as episodes end.

Yields each episode twice: as text, and as the ids that the model really saw and sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from algos.policy import Decoding, Policy
from algos.sampler import SampledAction, Sampler
from algos.tokens import ContextRule, TokenEpisode, TokenEpisodeBuilder
from algos.vllm_sampler import VllmPolicy, VllmSampler
from envs.core import Episode, Segment, TextEnv
from envs.registry import TaskSpec


@dataclass(frozen=True, slots=True)
class EpisodeRequest:
    """An episode to play. `index` names it among those asked for; `seed` determines it."""

    index: int
    seed: int
    task_id: int | None = None


@dataclass(frozen=True, slots=True)
class PlayedEpisode:
    index: int
    episode: Episode
    tokens: TokenEpisode | None
    """None for an episode that failed."""
    cut_actions: int
    """Actions that reached the limit of tokens before a newline."""


def context_rule(spec: TaskSpec, max_tokens: int) -> ContextRule:
    """How much of an episode of the task a model with a window of `max_tokens` sees."""
    return ContextRule(spec.window, max_tokens, spec.max_action_tokens, spec.forget_on_invalid)


def play(
    spec: TaskSpec,
    make_env: Callable[[], TextEnv],
    policy: Policy | VllmPolicy,
    requests: Iterable[EpisodeRequest],
    *,
    decoding: Decoding,
    slots: int,
    name: str,
) -> Iterator[PlayedEpisode]:
    """Play the requested episodes; they are yielded as they end.

    A simulator that raises, or says more than the model can read, ends its episode, not the run: the
    episode is yielded with `error` set.

    Args:
        make_env: makes one simulator; called once for each slot.
        slots: episodes in play at a time.
        name: what the episodes call the policy.
    """
    queue = list(requests)
    slots = max(1, min(slots, len(queue)))
    actions = None if spec.actions is None else [policy.codec.encode(a) for a in spec.actions]
    sampler: Sampler | VllmSampler
    if isinstance(policy, VllmPolicy):
        sampler = policy.sampler(decoding, slots, spec.max_action_tokens)
    else:
        sampler = Sampler(policy, decoding, slots, spec.max_action_tokens, actions)
    rule = context_rule(spec, policy.max_tokens)
    if decoding.mode == "rerank" and actions:
        # A listed action may be longer than what is ever sampled, and is scored whole.
        rule = replace(rule, reserve=max(rule.reserve, *map(len, actions)))
    tables = [_Table(spec, make_env(), policy, rule, name) for _ in range(slots)]
    waiting = iter(queue)
    while True:
        for slot, table in enumerate(tables):
            while not table.running and (request := next(waiting, None)) is not None:
                if table.seat(request):
                    sampler.start(slot, np.random.default_rng([request.seed, 2]))
                else:
                    yield table.finished()
        running = {slot: table for slot, table in enumerate(tables) if table.running}
        if not running:
            return
        chunks = {}
        for slot, table in running.items():
            try:
                chunks[slot], slid = table.new_tokens()
            except ValueError as error:  # an observation that is longer than the model's window
                yield table.failed(error)
                continue
            if slid:
                sampler.forget(slot)
        if not chunks:
            continue
        sampled = sampler.act(chunks)
        _step([tables[slot] for slot in sampled], list(sampled.values()))
        for slot, action in sampled.items():
            if tables[slot].take_in(action):
                yield tables[slot].finished()


def _step(tables: list[_Table], actions: list[SampledAction]) -> None:
    """Play an action at each table: at the same time where simulators wait for a model."""
    texts = [
        t.policy.codec.decode(a.ids).split("\n", 1)[0] + "\n" for t, a in zip(tables, actions, strict=True)
    ]
    if not tables[0].env.waits:
        for table, text in zip(tables, texts, strict=True):
            table.step(text)
        return
    with ThreadPoolExecutor(len(tables)) as pool:
        list(pool.map(_Table.step, tables, texts))


@dataclass
class _Table:
    """One simulator and the episode in play at it."""

    spec: TaskSpec
    env: TextEnv
    policy: Policy | VllmPolicy
    rule: ContextRule
    name: str
    running: bool = False
    _info: dict[str, Any] = field(default_factory=dict)

    def seat(self, request: EpisodeRequest) -> bool:
        """Start the episode; False where the simulator failed at once."""
        self._request = request
        self._builder = TokenEpisodeBuilder(self.rule)
        self._segments: list[Segment] = []
        self._read = 0
        self._context = 0
        self._cut = 0
        self._terminated = self._truncated = False
        self._info = {"success": False, "task_id": request.task_id or 0}
        self._error: str | None = None
        options = None if request.task_id is None else {"task_id": request.task_id}
        try:
            observation, self._info = self.env.reset(seed=request.seed, options=options)
        except Exception as error:
            self._error = _describe(error)
            return False
        self._observe(observation)
        self.running = True
        return True

    def new_tokens(self) -> tuple[np.ndarray, bool]:
        """Tokens that the sampler has not read, and whether the context slid (then it is all of them)."""
        start = self._builder.context_start()
        slid = start != self._context
        begin = start if slid else self._read
        self._context = start
        chunk = self._builder.tokens(begin)
        self._read = begin + len(chunk)
        return chunk, slid

    def step(self, text: str) -> None:
        """Play an action's text; `take_in` says what came of it."""
        self._text = text
        try:
            self._result = self.env.step(text)
        except Exception as error:
            self._error = _describe(error)

    def take_in(self, action: SampledAction) -> bool:
        """Record the sampled action that was played; True when the episode is over."""
        if self._error is not None:
            self.running = False
            return True
        observation, reward, self._terminated, self._truncated, self._info = self._result
        self._builder.add_action(action.ids, action.logprobs, reward, self._info["valid"])
        self._read += action.read
        self._segments.append(Segment(self._text, True, reward, self._info["valid"]))
        self._cut += not action.stopped
        if not action.stopped:  # it gets its newline from our side, so that the text is what was played
            self._builder.close_action(self.policy.codec.newline)
        self._observe(observation)
        self.running = not (self._terminated or self._truncated)
        return not self.running

    def failed(self, error: Exception) -> PlayedEpisode:
        self._error = _describe(error)
        self.running = False
        return self.finished()

    def finished(self) -> PlayedEpisode:
        tokens = None
        if self._error is None:
            try:
                tokens = self._builder.build(self._terminated, bool(self._info["success"]))
            except ValueError as error:  # the last observation, which is bootstrapped from, is too long
                self._error = _describe(error)
        episode = Episode(
            task=self.spec.id,
            segments=tuple(self._segments),
            terminated=self._terminated,
            truncated=self._truncated,
            success=bool(self._info["success"]),
            seed=self._request.seed,
            task_id=int(self._info["task_id"]),
            simulator=self.env.simulator,
            policy=self.name,
            error=self._error,
        )
        return PlayedEpisode(self._request.index, episode, tokens, self._cut)

    def _observe(self, observation: str) -> None:
        self._builder.add_observation(self.policy.codec.encode(observation))
        self._segments.append(Segment(observation, is_action=False))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
