"""Learner workers under Ray Train, for real: the same weights as in one process, also when one is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import faulty_algorithms
import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_runs import ENV, EVERY, STEPS, TASK, config_of, job_of, learn_here, weights

from envs import registry
from lmrl_ray import checkpoint, journal
from lmrl_ray.mlflow_store import import_mlflow, tracking_uri
from lmrl_ray.plugins import load_plugins
from lmrl_ray.report.progress import Display
from lmrl_ray.train import Hooks, TrainedRun, read_config, train
from lmrl_ray.workers import WorkerError, _forget_what_is_gone, learn_on_workers

pytestmark = pytest.mark.slow
PLUGIN = str(Path(faulty_algorithms.__file__).resolve())
LAST = f"step-{STEPS:06d}"
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 1e-5, 3e-5


@pytest.fixture(scope="module")
def out(tmp_path_factory, fresh_mlflow_db):
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(fresh_mlflow_db, folder / "mlflow.db")
    return folder


@pytest.fixture(autouse=True)
def short_evaluations(monkeypatch):
    load_plugins([PLUGIN])
    spec = replace(registry.get_task(TASK), quick_episodes=2)
    monkeypatch.setitem(registry._TASKS, TASK, spec)


@pytest.fixture
def start(material, out, ray_cluster):
    def run(name: str, *, algo: str, marker: Path, workers: int, max_failures: int = 2) -> TrainedRun:
        config = config_of(
            material,
            algo,
            algorithm={"cql_weight": 0.1, "polyak": 0.3, "marker": str(marker)},
            optimizer={"engine": "deepspeed", "zero_stage": 2 if workers else 0},
            training={"save_every": EVERY + 1, "log_every": 1},
            resources={"workers": workers, "max_failures": max_failures, "timeout_s": 60},
            plugins=[PLUGIN],
            env=ENV,
        )
        return train(config, out, Hooks(Display(quiet=True)), name=name)

    return run


@pytest.fixture(scope="module")
def undisturbed():
    """The run on two workers that nothing happens to, made once."""
    return {}


@pytest.fixture
def on_two_workers(start, undisturbed, tmp_path):
    if not undisturbed:
        (tmp_path / "marker").touch()
        undisturbed["run"] = start("two", algo="ilql-killed", marker=tmp_path / "marker", workers=2)
    return undisturbed["run"]


def mlflow_run(out, run_id):
    client = import_mlflow().MlflowClient(tracking_uri(out))
    return client, client.get_run(run_id)


def figures(run):
    return {
        e.step: {k: v for k, v in e.metrics.items() if "seconds" not in k}
        for e in journal.read(run.folder / "metrics.jsonl")
    }


def test_two_workers_train_to_the_weights_of_one_process(start, on_two_workers, tmp_path):
    (tmp_path / "marker").touch()
    here = start("here", algo="ilql-killed", marker=tmp_path / "marker", workers=0)
    ours, theirs = figures(on_two_workers), figures(here)
    assert list(ours) == list(theirs) == list(range(1, STEPS + 1))
    for step, metrics in theirs.items():
        assert ours[step] == pytest.approx(metrics, rel=LOSS_TOLERANCE, abs=1e-6)
    found, expected = (
        load_file(run.folder / "checkpoints" / LAST / "state" / "model.safetensors")
        for run in (on_two_workers, here)
    )
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=WEIGHT_TOLERANCE, msg=name)


@pytest.mark.reliability
def test_a_killed_worker_is_restarted_from_the_last_checkpoint_and_the_run_ends_as_if_undisturbed(
    start, on_two_workers, out, tmp_path, record_property
):
    marker = tmp_path / "killed"
    killed = start("killed", algo="ilql-killed", marker=marker, workers=2)
    assert marker.exists()
    checkpoints = [run.folder / "checkpoints" / LAST for run in (killed, on_two_workers)]
    assert weights(checkpoints[0]) == weights(checkpoints[1])
    assert figures(killed) == figures(on_two_workers)

    client, recorded = mlflow_run(out, killed.mlflow_run)
    assert recorded.info.status == "FINISHED"
    names = [r.info.run_name for r in client.search_runs([recorded.info.experiment_id])]
    assert names.count("killed") == 1
    for metric in ("loss", "grad_norm", "q/mean"):
        logged = Counter(m.step for m in client.get_metric_history(killed.mlflow_run, metric))
        assert logged == dict.fromkeys(range(1, STEPS + 1), 1), metric
    record_property(
        "reliability",
        f"1 of 2 learner workers killed in step {faulty_algorithms.FATAL_STEP} of {STEPS}: "
        f"weights and journal are the undisturbed run's, bit for bit",
    )


def test_two_workers_play_a_round_together_and_learn_from_it(material, tmp_path, ray_cluster):
    online = {"online": {"episodes": 6, "epochs": 2}, "training": {"batch_episodes": 3}}
    online["optimizer"] = {"engine": "deepspeed", "zero_stage": 2}
    resources = {"workers": 2, "rollout_actors": 2, "timeout_s": 60}
    config = config_of(material, "ppo", resources=resources, env=ENV, **online)
    job = job_of(material, config, tmp_path / "run")
    learn_on_workers(job, config)
    steps = {e.step: e.metrics for e in journal.read(job.journal)}
    assert list(steps) == list(range(1, STEPS + 1))
    assert {metrics["rollout/episodes"] for metrics in steps.values()} == {6}
    assert steps[1]["ppo/sampled_gap"] < 0.01


def test_workers_go_on_where_a_checkpoint_that_ray_remembers_was_removed(
    material, on_two_workers, tmp_path, ray_cluster
):
    shutil.copytree(on_two_workers.folder, tmp_path / "run")
    config = read_config(on_two_workers.folder)
    training = config.training.model_copy(update={"steps": STEPS + 1})
    resources = config.resources.model_copy(update={"workers": 1})
    longer = config.model_copy(update={"training": training, "resources": resources})
    job = job_of(material, longer, tmp_path / "run")
    shutil.rmtree(job.checkpoints / f"step-{EVERY + 1:06d}")
    learn_on_workers(job, longer)
    assert checkpoint.latest(job.checkpoints).name == f"step-{STEPS + 1:06d}"


def test_damaged_checkpoints_at_the_end_are_gone_before_ray_begins(tmp_path, on_two_workers):
    found = shutil.copytree(on_two_workers.folder / "checkpoints", tmp_path / "checkpoints")
    *_, before, last = checkpoint.all_checkpoints(found)
    (last / "state" / "model.safetensors").write_bytes(b"damaged")
    _forget_what_is_gone(found)
    assert checkpoint.all_checkpoints(found)[-1] == before
    assert not (found / "checkpoint_manager_snapshot.json").exists()


def test_an_interrupt_ends_the_workers_and_the_run_is_marked_killed(material, out, ray_cluster):
    import ray

    free = ray.available_resources()["CPU"]
    config = config_of(material, "bc", training={"steps": 100_000}, resources={"workers": 1}, env=ENV)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests

    pressed = []

    def interrupt(*_):
        if not pressed:
            pressed.append(True)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(config, out, Hooks(Display(quiet=True), on_metrics=interrupt), name="interrupted")
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    run_id = json.loads((out / "interrupted" / "mlflow.json").read_text())["run_id"]
    assert mlflow_run(out, run_id)[1].info.status == "KILLED"
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != free:
        assert time.monotonic() < deadline, "a worker still holds its CPU"
        time.sleep(0.1)


def test_an_error_in_a_worker_is_told_in_its_own_words_in_one_line(start, out, tmp_path):
    with pytest.raises(WorkerError) as caught:
        start("failing", algo="ilql-failing", marker=tmp_path / "failed", workers=2, max_failures=0)
    message = str(caught.value)
    assert f"step {faulty_algorithms.FATAL_STEP}: the moon is in the wrong phase" in message
    assert len(message.splitlines()) == 1
    run_id = json.loads((out / "failing" / "mlflow.json").read_text())["run_id"]
    assert mlflow_run(out, run_id)[1].info.status == "FAILED"


def test_elastic_workers_become_two_when_a_node_comes_and_the_run_ends_as_in_one_process(
    material, out, tmp_path
):
    """On a cluster of its own, in a process of its own: Ray counts nodes, and this session has one."""
    sections = {"training": {"save_every": EVERY, "log_every": 1}, "plugins": [PLUGIN], "env": ENV}
    learnt = {"cql_weight": 0.1, "polyak": 0.3, "marker": str(tmp_path / "steps")}
    config = config_of(
        material,
        "ilql-waiting",
        algorithm=learnt,
        optimizer={"engine": "deepspeed", "zero_stage": 2},
        resources={
            "workers": [1, 2],
            "resize_every_s": 1,
            "timeout_s": 60,
            "learner_resource": "learner",
        },
        **sections,
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.dump()))
    script = Path(__file__).with_name("elastic_run.py")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, script, tmp_path / "config.yaml", out, tmp_path / "steps"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=400, env=environment)
    assert ended.returncode == 0, ended.stderr
    worlds = [int(line) for line in (tmp_path / "steps").read_text().split()]
    assert worlds == sorted(worlds)
    assert set(worlds) == {1, 2}

    alone = job_of(
        material, config_of(material, "ilql", algorithm={"cql_weight": 0.1, "polyak": 0.3}), tmp_path
    )
    learn_here(alone)
    found, expected = (
        load_file(folder / LAST / "state" / "model.safetensors")
        for folder in (out / "elastic" / "checkpoints", alone.checkpoints)
    )
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=WEIGHT_TOLERANCE, msg=name)
    assert [e.step for e in journal.read(out / "elastic" / "metrics.jsonl")] == list(range(1, STEPS + 1))
