"""A toy task, a policy for it, and an MLflow database that is ready."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support import tiny_language_model
from sweeps import STEPS

from lmrl_ray.data import build
from lmrl_ray.mlflow_store import import_mlflow, tracking_uri
from lmrl_ray.plugins import load_plugins

ROOT = Path(__file__).parents[2]
TOY = str(Path(__file__).with_name("toy.py"))


@pytest.fixture(scope="session")
def toy() -> str:
    """The plugin file of the toy tasks, loaded in this process."""
    load_plugins([TOY])
    return TOY


@pytest.fixture(scope="session")
def toy_policy(toy, tmp_path_factory) -> Path:
    """A transformers folder: a few thousand untrained parameters that can read the toy tasks."""
    folder = tmp_path_factory.mktemp("policies") / "untrained"
    tiny_language_model(["Animal 3?\nNo, 71.\nYes.\n", "ant\n", "bee\n", "cat\n"]).save(folder)
    return folder


@pytest.fixture(scope="session")
def other_policy(toy, tmp_path_factory) -> Path:
    """The same shape, other weights."""
    folder = tmp_path_factory.mktemp("policies") / "other"
    tiny_language_model(["Animal 3?\nNo, 71.\nYes.\n", "ant\n", "bee\n", "cat\n"], seed=1).save(folder)
    return folder


@pytest.fixture(scope="session")
def toy_data(toy, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.parquet"
    build("toy", 40, 0, path)
    return path


@pytest.fixture
def out(tmp_path, fresh_mlflow_db) -> Path:
    """An `--out` folder in which MLflow's database was made already (it takes seconds)."""
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(fresh_mlflow_db, folder / "mlflow.db")
    return folder


@dataclass(frozen=True)
class Answer:
    code: int
    stdout: str
    stderr: str

    @property
    def json(self):
        return json.loads(self.stdout, parse_constant=_not_json)


def _not_json(name: str):
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
def lmrl(capfd, monkeypatch):
    """Run a command line of `lmrl` in this process, from `main()` on."""
    from lmrl_ray.cli import main

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["lmrl", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capfd.readouterr()
        return Answer(int(stopped.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def started():
    """Start `lmrl` as a process of its own; killed when the test ends."""
    processes = []

    def start(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", "from lmrl_ray.cli import main; main()", *map(str, arguments)],
            cwd=cwd or ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def sweep_file(toy, toy_policy, toy_data, tmp_path):
    """A sweep's file; keywords replace its entries, or take them out (None)."""

    def write(name="toy_sweep", **over):
        values = {
            "algo": "bc",
            "task": "toy",
            "trials": 4,
            "metric": "eval/return",
            "config": {
                "plugins": [toy],
                "init": str(toy_policy),
                "data": str(toy_data),
                "optimizer": {"engine": "torch", "warmup_steps": 0},
                "training": {
                    "steps": STEPS,
                    "batch_episodes": 4,
                    "eval_every": 1,
                    "eval_episodes": 5,
                    "save_every": 1,
                },
            },
            "space": {"optimizer.lr": {"loguniform": [1.0e-4, 1.0e-2]}, "decoding.top_k": {"choice": [5, 9]}},
            "asha": {"grace_steps": 1, "reduction_factor": 2},
        }
        config = over.pop("config", {})
        values = {k: v for k, v in {**values, **over}.items() if v is not None}
        for section, entries in config.items():
            old = values["config"].get(section)
            values["config"][section] = {**old, **entries} if isinstance(old, dict) else entries
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


@pytest.fixture
def client(out):
    return import_mlflow().MlflowClient(tracking_uri(out))
