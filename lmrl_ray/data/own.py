"""The data that runs on a task build for themselves: where the file is, and whether it is theirs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmrl_ray.data.reader import EpisodeDataset
from lmrl_ray.data.schema import DataError
from lmrl_ray.simulators import located


def own_path(out: Path, task: str, episodes: int, seed: int, env: Mapping[str, Any]) -> Path:
    """The file of the data set that these arguments determine, below `out`."""
    name = f"{task}-{episodes}-s{seed}"
    if env:
        arguments = json.dumps(env, sort_keys=True).encode()
        name += f"-{hashlib.sha256(arguments).hexdigest()[:8]}"
    return out / "data" / f"{name}.parquet"


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
