"""Worlds made of text: tasks, simulators, behaviour policies, episodes. No torch, no Ray."""

from envs.core import Episode, Outcome, ScriptedPolicy, Segment, TextEnv, play_episode
from envs.registry import (
    PaperRow,
    Scale,
    TaskSpec,
    UnknownTaskError,
    get_task,
    make,
    register,
    task_ids,
)

__all__ = [
    "Episode",
    "Outcome",
    "PaperRow",
    "Scale",
    "ScriptedPolicy",
    "Segment",
    "TaskSpec",
    "TextEnv",
    "UnknownTaskError",
    "get_task",
    "make",
    "play_episode",
    "register",
    "task_ids",
]
