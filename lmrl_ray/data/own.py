"""The data that runs on a task build for themselves: where the file is, and whether it is theirs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from envs.registry import ANSWERS, get_task
from lmrl_ray.data.reader import EpisodeDataset
from lmrl_ray.data.schema import DataError
from lmrl_ray.simulators import located


def own_path(out: Path, task: str, episodes: int, seed: int, env: Mapping[str, Any]) -> Path:
    """The file of the data set that these arguments determine, below `out`."""
    name = f"{task}-{episodes}-s{seed}"
    if what := (json.dumps(env, sort_keys=True).encode() if env else b"") + _own_code(task):
        name += f"-{hashlib.sha256(what).hexdigest()[:8]}"
    return out / "data" / f"{name}.parquet"


def _own_code(task: str) -> bytes:
    """The file of a task of the user's own: other rules make other data."""
    module = get_task(task.removesuffix(ANSWERS)).entry.partition(":")[0]
    file = None if module.startswith("envs.") else getattr(import_module(module), "__file__", None)
    return Path(file).read_bytes() if file else b""


def check_own(dataset: EpisodeDataset, task: str, episodes: int, seed: int, env: Mapping[str, Any]) -> None:
    """DataError when the data set was not built with these arguments, whatever its file is called."""
    wanted = {"task": task, "seed": seed, "episodes": episodes, "env_kwargs": located(env)}
    # As the file has it: JSON knows no tuples.
    wanted = json.loads(json.dumps(wanted))
    found = dataset.metadata.build
    wrong = [f"{k}: found {found.get(k)!r}, expected {v!r}" for k, v in wanted.items() if found.get(k) != v]
    if wrong:
        raise DataError(
            f"{dataset.path}: holds other data than its name says ({'; '.join(wrong)}); remove it and it is "
            f"built anew, or name it with --data if it is what you want"
        )
