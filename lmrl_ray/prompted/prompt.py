"""The prompt: the rules of the task, the form of a reply, examples of play, and the episode so far.

Observations are user messages and actions assistant messages. What the model sees of an episode is the
task's own window of segments, as for any other policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from envs.core import Episode, Segment
from envs.registry import TaskSpec
from lmrl_ray.config import ConfigError
from lmrl_ray.data import EpisodeDataset
from lmrl_ray.prompted.config import PromptedConfig
from lmrl_ray.seeding import episode_seed

Message = dict[str, str]

_FORM = """\
Each message tells you an observation. Answer with one JSON object and nothing else, in this form:
{"thought": "<your reasoning, short>", "action": "<the action>"}"""
_EXAMPLES = """\
Here is how others have played, with what each action earned. They show the form and what may happen; their
actions are not always good ones."""
ASK_AGAIN = """\
That is not a reply in the form that is asked for. Answer with one JSON object and nothing else:
{"thought": "<your reasoning, short>", "action": "<the action>"}"""


def system_text(spec: TaskSpec, config: PromptedConfig, env: Mapping[str, Any], seed: int) -> str:
    """What stays the same in every request of an evaluation. ConfigError for a task that tells no rules."""
    parts = [_instructions(spec, config), _FORM]
    if config.examples:
        shown = [_shown(e, config.example_turns) for e in _examples(spec, config, env, seed)]
        parts += [_EXAMPLES, *(f"Example {i}:\n{text}" for i, text in enumerate(shown, 1))]
    return "\n\n".join(parts)


def messages(
    system: str, segments: Sequence[Segment], window: int | None, forget_on_invalid: bool
) -> list[Message]:
    """The request for the action after `segments`, which end in an observation.

    Of the latest `window` segments (None for all) those are shown that begin with an observation; with
    `forget_on_invalid`, those that follow the latest action that was not understood.
    """
    first = 0 if window is None else max(0, len(segments) - window)
    if forget_on_invalid:
        first = max([first, *(i + 1 for i, s in enumerate(segments) if s.is_action and not s.valid)])
    if segments[first].is_action:
        first += 1
    return [{"role": "system", "content": system}, *map(_message, segments[first:])]


def ask_again(asked: Sequence[Message], reply: str, actions: Sequence[str] | None) -> list[Message]:
    """The same request, with the reply that held no action and what was missing in it."""
    listed = "" if actions is None else f"\nThe legal actions are: {', '.join(a.strip() for a in actions)}."
    said = {"role": "assistant", "content": reply or "(nothing)"}
    return [*asked, said, {"role": "user", "content": f"{ASK_AGAIN}{listed}"}]


def _instructions(spec: TaskSpec, config: PromptedConfig) -> str:
    if config.instructions is not None:
        try:
            return config.instructions.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"api.instructions: {config.instructions} cannot be read: {error}") from error
    if not spec.instructions:
        raise ConfigError(
            f"{spec.id} has no `instructions` in its TaskSpec; write its rules there, or name a text file "
            f"with --set api.instructions=FILE"
        )
    return spec.instructions


def _examples(spec: TaskSpec, config: PromptedConfig, env: Mapping[str, Any], seed: int) -> list[Episode]:
    """The first episodes of the data set that `lmrl data build` makes with this seed, or some of a file."""
    if config.data is not None:
        return _drawn(config.data, spec.id, config.examples, seed)
    simulator = spec.make(**env)
    return [spec.data_episode(simulator, episode_seed(seed, i)) for i in range(config.examples)]


def _drawn(file: Path, task: str, count: int, seed: int) -> list[Episode]:
    """`count` episodes of one row group of the file."""
    dataset = EpisodeDataset(file, require_nonempty=True)
    if dataset.task != task:
        raise ConfigError(f"api.data: {file} holds episodes of {dataset.task}, not of {task}")
    rng = np.random.default_rng(seed)
    group = dataset.read_row_group(int(rng.integers(dataset.num_row_groups)))
    played = [episode for episode in dataset.decode(group) if episode.error is None]
    if len(played) < count:
        raise ConfigError(f"api.examples: asks for {count}, but a row group of {file} holds {len(played)}")
    return [played[i] for i in rng.choice(len(played), count, replace=False)]


def _shown(episode: Episode, turns: int) -> str:
    """The first turns of an episode, and where it is cut that it is."""
    shown = episode.segments[: 2 * turns + 1]
    lines = [_example_line(s) for s in shown]
    return "\n".join(lines if len(shown) == len(episode.segments) else [*lines, "..."])


def _example_line(segment: Segment) -> str:
    if segment.is_action:
        return f"{_action_json(segment)}   (earned {segment.reward:g})"
    return f"Observation: {_plain(segment)}"


def _message(segment: Segment) -> Message:
    if segment.is_action:
        return {"role": "assistant", "content": _action_json(segment)}
    return {"role": "user", "content": _plain(segment)}


def _action_json(segment: Segment) -> str:
    return json.dumps({"action": segment.text.strip()}, ensure_ascii=False)


def _plain(segment: Segment) -> str:
    """Without its newline; some servers refuse a message without text."""
    return segment.text.strip() or "(an empty line)"
