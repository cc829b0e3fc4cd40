"""Play a task with a prompted language model: several episodes at a time, each kept as it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from algos.play import EpisodeRequest, PlayedEpisode
from envs.core import Episode, Segment, TextEnv
from envs.registry import TaskSpec
from lmrl_ray.evaluate import Score, failed_episode, requests_for, score
from lmrl_ray.prompted.client import ChatClient, Usage
from lmrl_ray.prompted.config import HOW, PromptedConfig, find_endpoint
from lmrl_ray.prompted.prompt import ask_again, messages, system_text
from lmrl_ray.prompted.record import EpisodeRecord, Finished
from lmrl_ray.prompted.reply import parse_action

FOLDER = "prompted"
"""Where the records are, below `--out`."""


@dataclass(frozen=True)
class PromptedScore:
    score: Score
    usage: Usage
    """Of all its episodes, also those that an earlier call has played, or has not played to the end."""
    cost: float | None
    record: Path


@dataclass(frozen=True)
class Player:
    """A model at a task: what does not change from episode to episode."""

    spec: TaskSpec
    client: ChatClient
    config: PromptedConfig
    system: str
    name: str

    async def play(self, env: TextEnv, request: EpisodeRequest) -> Finished:
        """One episode. A simulator that raises ends its episode (`error`), an ApiError the evaluation."""
        options = None if request.task_id is None else {"task_id": request.task_id}
        segments: list[Segment] = []
        usage, replies, cut = Usage(), [], 0
        terminated = truncated = False
        try:
            observation, info = await _call(env, env.reset, seed=request.seed, options=options)
        except Exception as error:
            return self._failed(env, request, error)
        segments.append(Segment(observation, is_action=False))
        while not (terminated or truncated):
            action, reply, was_cut, spent = await self._act(segments)
            usage, cut = usage + spent, cut + was_cut
            replies.append(reply)
            try:
                observation, reward, terminated, truncated, info = await _call(env, env.step, action)
            except Exception as error:
                return self._failed(env, request, error)
            segments.append(Segment(action, is_action=True, reward=reward, valid=info["valid"]))
            segments.append(Segment(observation, is_action=False))
        episode = Episode(
            task=self.spec.id,
            segments=tuple(segments),
            terminated=terminated,
            truncated=truncated,
            success=info["success"],
            seed=request.seed,
            task_id=info["task_id"],
            simulator=env.simulator,
            policy=self.name,
        )
        return Finished(PlayedEpisode(request.index, episode, None, cut), usage, tuple(replies))

    async def _act(self, segments: Sequence[Segment]) -> tuple[str, str, bool, Usage]:
        """The next action, the reply that it is from, whether that was cut, and what it took."""
        actions, usage = self.spec.actions, Usage()
        window = self.config.history or self.spec.window
        asked = messages(self.system, segments, window, self.spec.forget_on_invalid)
        action: str | None = None
        for attempt in range(1 + self.config.reasks):
            reply = await self.client.ask(asked)
            usage += reply.usage + Usage(reasked=int(attempt > 0))
            action = parse_action(reply.text, actions) or action
            if action is not None and (actions is None or action in actions):
                return action, reply.text, reply.cut, usage
            asked = ask_again(asked, reply.text, actions)
        # What it said last, for the simulator to judge: an evaluation hides no failure to answer.
        return action or "\n", reply.text, reply.cut, usage + Usage(unanswered=int(action is None))

    def _failed(self, env: TextEnv, request: EpisodeRequest, error: Exception) -> Finished:
        episode = failed_episode(self.spec, env.simulator, self.name, request, error)
        return Finished(PlayedEpisode(request.index, episode, None, 0), Usage(), ())


def evaluate_prompted(
    spec: TaskSpec,
    model: str,
    config: PromptedConfig,
    *,
    env: Mapping[str, Any],
    episodes: int,
    seed: int,
    out: Path,
    on_progress: Callable[[int], None],
) -> PromptedScore:
    """Score a model; episodes that the record has are not played again.

    ConfigError without an endpoint or a key. ApiError when the endpoint fails for good: what is finished
    is kept, and the same call goes on from there.
    """
    endpoint = find_endpoint(config)
    system = system_text(spec, config, env, seed)
    name = f"api:{model}"
    settings = {
        "model": model,
        "task": spec.id,
        "env": dict(env),
        "seed": seed,
        "api": config.model_dump(mode="json", exclude=set(HOW)) | {"base_url": endpoint.url},
        "prompt": hashlib.sha256(system.encode()).hexdigest(),
    }
    requests = requests_for(spec, episodes, seed, env)
    with EpisodeRecord(out / FOLDER, f"{spec.id}-{model}", settings) as record:
        on_progress(sum(r.index in record.finished for r in requests))

        def keep(finished: Finished) -> None:
            if finished.played.episode.error is None:  # one that failed is tried again by the next call
                record.add(finished)
            else:
                failed.append(finished)
            on_progress(1)

        failed: list[Finished] = []
        missing = [r for r in requests if r.index not in record.finished]
        if missing:
            client = ChatClient(endpoint, model, config)
            try:
                asyncio.run(_play_all(Player(spec, client, config, system, name), missing, env, keep))
            finally:
                lost = client.spent.beyond(sum((f.usage for f in record.of(missing)), Usage()))
                if lost != Usage():
                    record.add_unfinished(lost)
        found = record.of(requests)
    usage = sum((f.usage for f in found), record.unfinished)
    found += failed
    return PromptedScore(score(spec, name, [f.played for f in found]), usage, usage.cost(config), record.path)


async def _play_all(
    player: Player,
    requests: Sequence[EpisodeRequest],
    env: Mapping[str, Any],
    keep: Callable[[Finished], None],
) -> None:
    """Play all of them, some at a time; the first error cancels the others and is raised."""
    waiting: Iterator[EpisodeRequest] = iter(requests)

    async def work() -> None:
        simulator = player.spec.make(**env)
        for request in waiting:
            keep(await player.play(simulator, request))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(player.config.concurrency, len(requests))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    finally:
        await player.client.close()


async def _call(env: TextEnv, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Simulators take turns in one thread (they may share an engine), but nobody waits for a simulator
    that is itself waiting for a language model."""
    if env.waits:
        return await asyncio.to_thread(method, *args, **kwargs)
    return method(*args, **kwargs)
