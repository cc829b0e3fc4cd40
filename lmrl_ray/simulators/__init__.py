"""Language models that answer in the dialogue tasks: `env.simulator=lm:PATH`, `env.simulator=api:MODEL`.

Importing this package makes `TaskSpec.make(simulator="lm:...")` work; what it needs (torch, Ray, the
OpenAI client) is imported when a model is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envs.answering import TextModel, use_loader

LM = "lm:"


class SimulatorError(RuntimeError):
    """A simulator's model cannot be found, or does not answer."""


def load(name: str, base_url: str | None = None) -> TextModel:
    """The model that "lm:PATH" or "api:MODEL" names; the same object each time in one process.

    Raises SimulatorError when it is not there or cannot be asked.
    """
    from lmrl_ray.simulators import loading

    return loading.load(name, base_url)


def located(env: Mapping[str, Any]) -> dict[str, Any]:
    """An environment's arguments for a process that has another working directory."""
    name = env.get("simulator")
    if isinstance(name, str) and name.startswith(LM) and Path(name.removeprefix(LM)).exists():
        return {**env, "simulator": f"{LM}{Path(name.removeprefix(LM)).resolve()}"}
    return dict(env)


def asks_a_model(env: Mapping[str, Any]) -> bool:
    """Whether these arguments make an environment whose steps wait for a language model."""
    return str(env.get("simulator", "")).partition(":")[0] in ("lm", "api")


use_loader(load)
