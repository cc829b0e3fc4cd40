"""From a simulator's name to the model that answers, once in a process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from envs.answering import TextModel
from lmrl_ray import checkpoint
from lmrl_ray.simulators import LM, SimulatorError
from lmrl_ray.simulators.batching import BatchedModel


@cache
def load(name: str, base_url: str | None) -> TextModel:
    """See `lmrl_ray.simulators.load`."""
    if name.startswith(LM):
        return load_batched(name)
    from lmrl_ray.simulators.api import EndpointModel

    return EndpointModel(name.partition(":")[2], base_url)


def load_batched(name: str, timeout_s: float = 300.0) -> BatchedModel:
    """The weights that "lm:PATH" names, in this process, on its GPU where it has one.

    They are read when the first line is asked for: a driver that only checks its arguments needs none.
    """
    from algos.generation import load_generator, policy_folder
    from algos.models import ModelError, check

    path = _place(name.removeprefix(LM))
    try:
        check(policy_folder(path))
    except ModelError as error:
        raise SimulatorError(f"simulator {name!r}: {error}") from error
    return BatchedModel(lambda: load_generator(path), name, timeout_s=timeout_s)


def _place(path: str) -> Path:
    """A run's newest checkpoint, a folder as it is, or a Hugging Face name."""
    folder = Path(path)
    if (folder / "checkpoints").is_dir():
        newest = checkpoint.latest(folder / "checkpoints")
        if newest is None:
            raise SimulatorError(f"simulator 'lm:{path}': the run has no whole checkpoint; train it first")
        return newest
    if not folder.is_dir() and (folder.is_absolute() or len(folder.parts) > 2 or path.startswith(".")):
        raise SimulatorError(
            f"simulator 'lm:{path}': there is no such folder; train one with `lmrl simulator train TASK`, "
            f"or give a Hugging Face name"
        )
    return folder
