"""A run that is stopped and resumed ends with the weights, byte for byte, of one that never stopped."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from small_runs import EVERY, STEPS, TASK, Stop, config_of, everything, job_of, learn_here, weights

from algos import models
from algos.base import get_algorithm
from algos.bc import BC
from envs import registry
from lmrl_ray import checkpoint, journal, source
from lmrl_ray.config import OptimizerConfig
from lmrl_ray.data import EpisodeDataset, outcomes
from lmrl_ray.engine import DeepSpeedEngine, TorchEngine
from lmrl_ray.learner import DivergedError, LocalContext, learning_rate
from lmrl_ray.mlflow_store import import_mlflow, tracking_uri
from lmrl_ray.report.progress import Display
from lmrl_ray.source import DatasetSource
from lmrl_ray.train import Hooks, resume, train

MIDDLE = 4
ENGINES = {
    "torch": {"engine": "torch"},
    "zero-0": {"engine": "deepspeed", "zero_stage": 0},
    "zero-2": {"engine": "deepspeed", "zero_stage": 2},
    "zero-3": {"engine": "deepspeed", "zero_stage": 3},
}
LAST = f"step-{STEPS:06d}"


class StopAfterSave(LocalContext):
    """Ends the run as the checkpoint of step `MIDDLE` is in its place."""

    def save(self, write, step, metrics):
        super().save(write, step, metrics)
        if step == MIDDLE:
            raise Stop


def steps_in(job):
    return [e.step for e in journal.read(job.journal)]


def figures_in(job):
    """The journal without what the clock decides."""
    return [
        (e.step, {k: v for k, v in e.metrics.items() if "seconds" not in k})
        for e in journal.read(job.journal)
    ]


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory):
    return tmp_path_factory.mktemp("finished"), {}


@pytest.fixture
def undisturbed(material, tmp_path, finished_runs):
    """A finished run of the configuration, in a folder of the test's own."""
    folder, known = finished_runs

    def run(config):
        key = repr(config)
        if key not in known:
            known[key] = job_of(material, config, folder / str(len(known)))
            assert learn_here(known[key]) == STEPS
        shutil.copytree(known[key].run_dir, tmp_path / "undisturbed")
        return job_of(material, config, tmp_path / "undisturbed")

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "engine"),
    [
        ("bc", "torch"),
        ("bc", "zero-2"),
        ("filtered-bc", "torch"),
        ("mc", "torch"),
        ("mc", "zero-3"),
        ("cql", "torch"),
        ("ilql", "torch"),
        ("ilql", "zero-0"),
        ("ilql", "zero-3"),
        ("offline-archer", "torch"),
        ("offline-archer", "zero-3"),
    ],
)
def test_a_run_stopped_at_half_and_resumed_has_the_bytes_of_one_never_stopped(
    algo, engine, material, undisturbed, tmp_path
):
    config = config_of(material, algo, optimizer=ENGINES[engine])
    whole = undisturbed(config)
    job = job_of(material, config, tmp_path / "stopped")
    with pytest.raises(Stop):
        learn_here(job, StopAfterSave(job.checkpoints, keep=10))
    assert checkpoint.latest(job.checkpoints).name == f"step-{MIDDLE:06d}"
    assert steps_in(job) == list(range(1, MIDDLE + 1))
    assert learn_here(job) == STEPS
    assert weights(job.checkpoints / LAST) == weights(whole.checkpoints / LAST)
    assert figures_in(job) == figures_in(whole)


def test_filtered_bc_learns_from_the_episodes_that_it_keeps_alone(material, tmp_path, monkeypatch):
    config = config_of(material, "filtered-bc", algorithm={"fraction": 0.2})
    dataset = EpisodeDataset(material.data)
    best = get_algorithm("filtered-bc")(config.algorithm, models.load(material.start / "policy"))
    kept = best.select(*outcomes(dataset), np.random.default_rng(config.seed))
    learnt = set()
    encode = source.encode_episode
    monkeypatch.setattr(source, "encode_episode", lambda e, *rest: learnt.add(e.seed) or encode(e, *rest))
    learn_here(job_of(material, config, tmp_path / "run"))
    assert learnt == {e.seed for e, keep in zip(dataset, kept, strict=True) if keep}
    assert len(learnt) == 5


def test_workers_that_find_different_checkpoints_do_not_begin(material, undisturbed, monkeypatch):
    job = undisturbed(config_of(material, "bc", optimizer=ENGINES["torch"]))
    monkeypatch.setattr(TorchEngine, "max", lambda self, value: max(value, -MIDDLE))
    with pytest.raises(
        checkpoint.CheckpointError, match=f"step {MIDDLE} for one worker, of {STEPS} for another"
    ):
        learn_here(job)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["_backward", "_apply", "after_step"])
@pytest.mark.parametrize(("algo", "engine"), [("bc", "torch"), ("ilql", "torch"), ("ilql", "zero-2")])
def test_an_interrupt_within_a_step_loses_no_more_than_what_was_not_saved(
    algo, engine, method, material, undisturbed, tmp_path, monkeypatch
):
    config = config_of(material, algo, optimizer=ENGINES[engine])
    whole = undisturbed(config)
    engine_class = TorchEngine if engine == "torch" else DeepSpeedEngine
    cls = get_algorithm(algo) if method == "after_step" else engine_class
    original, step_in_work = getattr(cls, method), []

    def interrupted(self, *args, **kwargs):
        if len(step_in_work) > MIDDLE:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    def counted(self, step):
        step_in_work.append(step)
        return episodes(self, step)

    episodes = DatasetSource.episodes
    job = job_of(material, config, tmp_path / "interrupted")
    with monkeypatch.context() as patch:
        patch.setattr(cls, method, interrupted)
        patch.setattr(DatasetSource, "episodes", counted)
        with pytest.raises(KeyboardInterrupt):
            learn_here(job)
    assert steps_in(job) == list(range(1, MIDDLE + 1))
    assert learn_here(job) == STEPS
    assert weights(job.checkpoints / LAST) == weights(whole.checkpoints / LAST)
    assert figures_in(job) == figures_in(whole)


@pytest.mark.reliability
def test_an_interrupt_while_a_checkpoint_is_written_leaves_the_earlier_one_and_no_litter(
    material, undisturbed, tmp_path, monkeypatch
):
    config = config_of(material, "bc")
    whole = undisturbed(config)
    job = job_of(material, config, tmp_path / "interrupted")
    written = 0
    original = checkpoint.save_file

    def interrupted(*args, **kwargs):
        nonlocal written
        written += 1
        if written == 4:  # the optimiser's state of the second checkpoint
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learn_here(job)
    assert [p.name for p in job.checkpoints.iterdir()] == [f"step-{EVERY:06d}"]
    learn_here(job)
    assert weights(job.checkpoints / LAST) == weights(whole.checkpoints / LAST)


@pytest.mark.reliability
def test_what_a_killed_process_left_half_written_is_swept_up_by_the_next_checkpoint(material, undisturbed):
    job = undisturbed(config_of(material, "bc"))
    last = job.checkpoints / LAST
    half = job.checkpoints / ".step-abcdef"
    last.rename(half)
    (half / "manifest.json").unlink()
    assert learn_here(job) == STEPS
    assert sorted(p.name for p in job.checkpoints.iterdir())[-1] == LAST
    assert not half.exists()


def test_resuming_a_finished_run_changes_no_file(material, undisturbed):
    job = undisturbed(config_of(material, "bc"))
    before = everything(job.checkpoints.parent)
    assert learn_here(job) == STEPS
    assert everything(job.checkpoints.parent) == before


@pytest.mark.reliability
def test_a_run_resumes_from_the_last_whole_checkpoint_when_a_later_one_is_damaged(
    material, undisturbed, capsys
):
    job = undisturbed(config_of(material, "bc"))
    expected = weights(job.checkpoints / LAST)
    (job.checkpoints / LAST / "state" / "optimizer.safetensors").unlink()
    assert learn_here(job) == STEPS
    assert "optimizer.safetensors is missing" in capsys.readouterr().err
    assert weights(job.checkpoints / LAST) == expected
    assert steps_in(job) == list(range(1, STEPS + 1))


def test_only_the_last_few_checkpoints_are_kept(material, tmp_path):
    job = job_of(material, config_of(material, "bc"), tmp_path / "run")
    learn_here(job, LocalContext(job.checkpoints, keep=2))
    assert [p.name for p in sorted(job.checkpoints.iterdir())] == ["step-000006", LAST]


def nan_loss(loss):
    return loss._replace(metrics={"loss": loss.value.detach() * math.nan})


def nan_gradient(loss):
    return loss._replace(value=loss.value + 0 * (loss.value * 0).sqrt())


@pytest.mark.parametrize(
    ("damaged", "said"), [(nan_loss, "the loss is nan"), (nan_gradient, "the gradient's norm is nan")]
)
def test_a_step_that_is_not_finite_ends_the_run_with_advice_and_without_a_checkpoint_of_it(
    material, tmp_path, monkeypatch, damaged, said
):
    original, calls = BC.forward, 0

    def broken(self, batch):
        nonlocal calls
        calls += 1
        loss = original(self, batch)
        return damaged(loss) if calls > 40 else loss

    monkeypatch.setattr(BC, "forward", broken)
    config = config_of(material, "bc", training={"steps": 200})
    job = job_of(material, config, tmp_path / "run")
    with pytest.raises(DivergedError, match=rf"{said}; .* lower optimizer\.lr \(now 0\.003\)"):
        learn_here(job)
    assert checkpoint.damage(checkpoint.latest(job.checkpoints)) is None


def test_the_learning_rate_warms_up_and_then_stays_or_falls_as_a_cosine():
    constant = OptimizerConfig(lr=1.0, warmup_steps=4)
    assert [learning_rate(constant, s, 10) for s in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    cosine = OptimizerConfig(lr=2.0, warmup_steps=0, schedule="cosine")
    assert learning_rate(cosine, 0, 10) == pytest.approx(2.0)
    assert learning_rate(cosine, 5, 10) == pytest.approx(1.0)
    assert learning_rate(cosine, 10, 10) == pytest.approx(0.0)


class Listening(Display):
    def __init__(self):
        super().__init__(quiet=True)
        self.said = []

    def say(self, text):
        self.said.append(text)


@pytest.mark.slow
def test_an_interrupted_run_is_marked_killed_and_resumed_as_the_same_mlflow_run(
    material, tmp_path, fresh_mlflow_db, monkeypatch
):
    spec = replace(registry.get_task(TASK), quick_episodes=2)
    monkeypatch.setitem(registry._TASKS, TASK, spec)
    shutil.copy(fresh_mlflow_db, tmp_path / "mlflow.db")
    client = import_mlflow().MlflowClient(tracking_uri(tmp_path))

    def interrupt(step, metrics):
        if step == MIDDLE + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config_of(material, "bc"), tmp_path, Hooks(Listening(), on_metrics=interrupt), name="run")
    (recorded,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert recorded.info.status == "KILLED"

    quiet = Listening()
    finished = resume("run", tmp_path, Hooks(quiet), {"resources": {"rollout_actors": 0}})
    assert finished.config.resources.slots == 4, "what is not overridden stays"
    assert finished.mlflow_run == recorded.info.run_id
    assert client.get_run(finished.mlflow_run).info.status == "FINISHED"
    history = client.get_metric_history(finished.mlflow_run, "loss")
    assert sorted(m.step for m in history) == list(range(1, STEPS + 1))
    assert not any("are done" in line for line in quiet.said)

    before = everything(finished.folder / "checkpoints")
    again = Listening()
    resume("run", tmp_path, Hooks(again))
    assert "run: all 8 steps are done; it is evaluated again, not trained" in again.said
    assert everything(finished.folder / "checkpoints") == before
    assert len(client.get_metric_history(finished.mlflow_run, "loss")) == STEPS
    assert client.get_run(finished.mlflow_run).info.status == "FINISHED"
