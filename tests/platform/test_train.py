"""The driver of a training run: what it leaves behind, how it goes on, how it fails."""

import fcntl
import json
import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.numpy import load_file
from support import episode_of

from lmrl_ray import checkpoint
from lmrl_ray import learner as learner_module
from lmrl_ray.cli import _note
from lmrl_ray.config import ConfigError
from lmrl_ray.data import DataError, EpisodeDataset, EpisodeWriter, build, own_path
from lmrl_ray.learner import DivergedError
from lmrl_ray.mlflow_store import import_mlflow, tracking_uri
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config, run_config_of
from lmrl_ray.train import Hooks, new_folder, read_config, resume, train

STEPS = 8


@pytest.fixture
def client(out):
    return import_mlflow().MlflowClient(tracking_uri(out))


@pytest.fixture
def config(toy, toy_policy, toy_data):
    def make(algo="bc", task="toy", **over):
        values = {
            "plugins": [toy],
            "init": str(toy_policy),
            "data": str(toy_data),
            "optimizer": {"engine": "torch"},
            "training": {"steps": STEPS, "batch_episodes": 4, "save_every": 3, "log_every": 1},
            "resources": {"slots": 5},
        }
        for key, value in over.items():
            old = values.get(key)
            values[key] = {**old, **value} if isinstance(old, dict) else value
        return resolve_config(algo, task, options={k: v for k, v in values.items() if v is not None})

    return make


@pytest.fixture
def hooks():
    return Hooks(Display(quiet=True))


def runs_of(client):
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def weights(folder: Path):
    last = checkpoint.latest(folder / "checkpoints")
    return {k: v.tobytes() for k, v in load_file(last / "state" / "model.safetensors").items()}


def stop_at(step, error):
    """Hooks of a run that is stopped when `step` was logged."""

    def on_metrics(now, _):
        if now == step:
            raise error

    return Hooks(Display(quiet=True), on_metrics=on_metrics)


def test_a_run_leaves_all_that_the_next_one_needs(config, out, hooks, client):
    run = train(config(), out, hooks)
    assert run.folder == out / "toy-bc-s0"
    assert read_config(run.folder) == config()
    assert [p.name for p in checkpoint.all_checkpoints(run.folder / "checkpoints")] == [
        "step-000006",
        "step-000008",
    ]
    assert json.loads((run.folder / "evaluation.json").read_text()) == run.evaluation.score.row()
    assert run.evaluation.score.episodes == 10
    recorded = client.get_run(run.mlflow_run)
    assert recorded.info.status == "FINISHED"
    assert recorded.data.metrics["final/return"] == run.evaluation.score.raw_return
    assert recorded.data.params["training.batch_episodes"] == "4"
    fingerprint = EpisodeDataset(config().data).fingerprint
    assert recorded.data.params["data.fingerprint"] == fingerprint
    assert [m.step for m in client.get_metric_history(run.mlflow_run, "loss")] == list(range(1, STEPS + 1))
    kept = {a.path for a in client.list_artifacts(run.mlflow_run)}
    assert kept == {"evaluation.json", "sample_episodes.txt", "policy"}


def test_the_same_configuration_gives_the_same_weights_and_score(config, out, hooks):
    first, second = (train(config(), out, hooks, name) for name in ("a", "b"))
    assert weights(first.folder) == weights(second.folder)
    assert first.evaluation.score == second.evaluation.score
    assert first.evaluation.episodes == second.evaluation.episodes


@pytest.mark.parametrize("algo", ["bc", "ilql"])
@pytest.mark.parametrize("stop", [2, 5, 6])
def test_an_interrupted_and_resumed_run_is_bit_by_bit_one_that_was_never_stopped(
    config, out, hooks, client, algo, stop
):
    whole = train(config(algo), out, hooks, "whole")
    with pytest.raises(KeyboardInterrupt):
        train(config(algo), out, stop_at(stop, KeyboardInterrupt()), "stopped")
    (interrupted,) = (r for r in runs_of(client) if r.info.run_name == "stopped")
    assert interrupted.info.status == "KILLED"
    resumed = resume("stopped", out, hooks)
    assert weights(resumed.folder) == weights(whole.folder)
    assert resumed.evaluation.score == whole.evaluation.score
    assert resumed.mlflow_run == interrupted.info.run_id
    assert client.get_run(resumed.mlflow_run).info.status == "FINISHED"
    assert len(runs_of(client)) == 2
    for key in ("loss", "seconds_per_step"):
        history = client.get_metric_history(resumed.mlflow_run, key)
        assert [m.step for m in history] == list(range(1, STEPS + 1))
    theirs = [m.value for m in client.get_metric_history(whole.mlflow_run, "loss")]
    assert [m.value for m in client.get_metric_history(resumed.mlflow_run, "loss")] == theirs


def test_a_run_whose_plugin_was_edited_goes_on_and_says_so(config, out, hooks, toy, monkeypatch):
    run = train(config(training={"steps": 1}), out, hooks)
    said: list[str] = []
    monkeypatch.setattr(hooks.display, "say", said.append)
    resume(run.folder.name, out, hooks)
    file = run.folder / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "code": {Path(toy).name: "another"}}))
    assert not any("has changed" in line for line in said)
    resume(run.folder.name, out, hooks)
    assert f"{run.folder.name}: {Path(toy).name} has changed since it began; the new one holds" in said


def test_a_run_that_fails_is_marked_so_and_can_be_resumed(config, out, hooks, client):
    with pytest.raises(RuntimeError, match="on the way"):
        train(config(), out, stop_at(4, RuntimeError("on the way")), "failing")
    assert [r.info.status for r in runs_of(client)] == ["FAILED"]
    resume("failing", out, hooks)
    assert [r.info.status for r in runs_of(client)] == ["FINISHED"]


def test_a_loss_that_is_not_finite_stops_the_run_and_says_what_to_change(
    config, out, hooks, client, monkeypatch
):
    numbers = SimpleNamespace(isfinite=lambda x: not math.isnan(x) and x < -1, cos=math.cos, pi=math.pi)
    monkeypatch.setattr(learner_module, "math", numbers)
    with pytest.raises(DivergedError, match=r"lower optimizer\.lr"):
        train(config(), out, hooks)
    assert [r.info.status for r in runs_of(client)] == ["FAILED"]


def test_a_finished_run_can_be_resumed_and_trains_no_further(config, out, hooks):
    run = train(config(), out, hooks, "done")
    again = resume("done", out, stop_at(STEPS, AssertionError("it trained")))
    assert weights(again.folder) == weights(run.folder)
    assert again.evaluation.score == run.evaluation.score


def test_a_second_run_of_one_name_takes_another_folder(config, out, hooks):
    first = train(config(), out, hooks, "same")
    second = train(config(), out, hooks, "same")
    assert first.folder != second.folder
    assert second.folder.name.startswith("same-")


def test_an_algorithm_that_needs_a_clone_trains_one_first(
    config, out, hooks, toy_policy, client, monkeypatch
):
    quick = {"training": {"steps": 2}, "optimizer": {"engine": "torch"}}
    monkeypatch.setattr("lmrl_ray.resolve.tuned_defaults", lambda algo, task: quick)
    resolved = config("ilql", init=None, model={"name": str(toy_policy)}, training={"steps": 2})
    run = train(resolved, out, hooks, "ilql")
    assert read_config(out / "ilql-bc").algo == "bc"
    start = json.loads((run.folder / "run.json").read_text())["start"]
    assert Path(start).parents[1] == (out / "ilql-bc").resolve()
    assert {r.info.run_name for r in runs_of(client)} == {"ilql", "ilql-bc"}

    # A clone of that name that is not finished is gone on with.
    shutil.rmtree(run.folder)
    (out / "ilql-bc" / "evaluation.json").unlink()
    assert json.loads((train(resolved, out, hooks, "ilql").folder / "run.json").read_text())["start"] == start
    assert {p.name for p in out.glob("ilql*")} == {"ilql", "ilql-bc"}
    assert (out / "ilql-bc" / "evaluation.json").is_file()

    # The clone of other data is not taken for this one's.
    shutil.rmtree(out / "ilql")
    recorded = json.loads((out / "ilql-bc" / "run.json").read_text())
    (out / "ilql-bc" / "run.json").write_text(json.dumps({**recorded, "fingerprint": "another"}))
    train(resolved, out, hooks, "ilql")
    assert len(list(out.glob("ilql-bc*"))) == 2


def test_the_tasks_own_data_are_built_once_for_each_seed_and_simulator(config, out, hooks):
    over = {"data": None, "data_episodes": 12, "training": {"steps": 1}}
    first = train(config(**over), out, hooks, "a")
    train(config(**over), out, hooks, "b")
    train(config(**over, seed=1), out, hooks, "c")
    train(config(**over, env={"log": str(out / "log")}), out, hooks, "d")
    names = sorted(p.name for p in (out / "data").iterdir())
    assert len(names) == 3
    assert {own_path(out, "toy", 12, seed, {}).name for seed in (0, 1)} <= set(names)
    assert len(EpisodeDataset(json.loads((first.folder / "run.json").read_text())["data"])) == 12


def test_scores_on_the_way_are_logged(config, out, hooks, client):
    run = train(config(training={"eval_every": 4, "eval_episodes": 5, "log_every": 100}), out, hooks)
    history = client.get_metric_history(run.mlflow_run, "eval/return")
    assert [m.step for m in history] == [4, 8]


def test_evaluations_on_the_way_change_no_weight(config, out, hooks):
    without = train(config(), out, hooks, "without")
    with_them = train(config(training={"eval_every": 2, "eval_episodes": 5}), out, hooks, "with")
    assert weights(without.folder) == weights(with_them.folder)


@pytest.mark.parametrize(
    ("over", "error"),
    [
        ({"data": "nowhere.parquet"}, "nowhere.parquet: there is no such file"),
        ({"init": "nowhere"}, "nowhere: neither a folder nor a run"),
        ({"init": None, "model": {"name": "./no-model"}}, "no-model"),
    ],
)
def test_a_run_that_cannot_begin_leaves_nothing(config, out, hooks, over, error):
    there = sorted(p.name for p in out.iterdir())
    with pytest.raises(ValueError, match=error):
        train(config(**over), out, hooks)
    assert sorted(p.name for p in out.iterdir()) == there


def test_a_model_in_a_folder_is_found_again_from_anywhere(config, out, hooks, toy_policy, monkeypatch):
    monkeypatch.chdir(toy_policy.parent)
    run = train(config(init=None, model={"name": toy_policy.name}, training={"steps": 1}), out, hooks)
    assert json.loads((run.folder / "run.json").read_text())["start"] == str(toy_policy)


def test_no_run_begins_on_data_that_could_not_be_learnt_from(config, out, hooks, tmp_path):
    """A player ends each action with a newline; who never saw one goes on until it is cut."""
    write(tmp_path / "mine.parquet", ("ant\n", -1.0), ("ant", -1.0))
    there = sorted(p.name for p in out.iterdir())
    with pytest.raises(DataError, match=r"mine\.parquet: episode 1: segment 1 .* is the action 'ant'"):
        train(config(data=str(tmp_path / "mine.parquet")), out, hooks)
    assert sorted(p.name for p in out.iterdir()) == there


def write(file, *actions):
    """Episodes of one action each, with its reward."""
    with EpisodeWriter(file, "toy") as writer:
        for text, reward in actions:
            writer.write(episode_of(("?\n", False), (text, True, reward), task="toy"))


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_no_finite_number_is_found_wherever_it_is(config, out, hooks, tmp_path, reward):
    data = {"data": str(tmp_path / "mine.parquet")}
    write(tmp_path / "mine.parquet", ("ant\n", -1.0), ("ant\n", reward))
    with pytest.raises(DataError, match=rf"mine\.parquet: episode 1: segment 1 .* with a reward of {reward}"):
        train(config(**data), out, hooks)
    write(tmp_path / "mine.parquet", *[("ant\n", -1.0)] * 300, ("ant\n", reward))
    with pytest.raises(DataError, match=rf"mine\.parquet: episode 300 has a return of {reward}, no finite"):
        train(config("filtered-bc", **data), out, hooks)


def test_no_run_begins_on_an_empty_data_set(config, out, hooks, tmp_path):
    with EpisodeWriter(tmp_path / "empty.parquet", "toy"):
        pass
    with pytest.raises(DataError, match="holds no episodes"):
        train(config(data=str(tmp_path / "empty.parquet")), out, hooks)
    assert not (out / "toy-bc-s0").exists()


def test_no_run_begins_on_another_tasks_data(config, out, hooks):
    with pytest.raises(ConfigError, match="holds episodes of toy, not of toy-free"):
        train(config(task="toy-free"), out, hooks)


@pytest.mark.parametrize("clone_has_begun", [True, False])
def test_a_run_that_was_stopped_while_its_clone_was_trained_is_resumed_with_that_clone(
    config, out, hooks, toy_policy, monkeypatch, clone_has_begun
):
    quick = {"training": {"steps": 2}, "optimizer": {"engine": "torch"}}
    monkeypatch.setattr("lmrl_ray.resolve.tuned_defaults", lambda algo, task: quick)
    resolved = config("ilql", init=None, model={"name": str(toy_policy)}, training={"steps": 2})
    with monkeypatch.context() as patched:
        patched.setattr("lmrl_ray.train._learn" if clone_has_begun else "lmrl_ray.train.Tracker", stopped)
        with pytest.raises(KeyboardInterrupt) as interrupt:
            train(resolved, out, hooks, "ilql")
    assert _note(interrupt.value) == "continue with --resume ilql"
    assert not (out / "ilql" / "run.json").exists()
    assert (out / "ilql-bc" / "run.json").is_file() == clone_has_begun

    run = resume("ilql", out, hooks, {"resources": {"slots": 3}})
    assert {p.name for p in out.glob("ilql*")} == {"ilql", "ilql-bc"}
    start = Path(json.loads((run.folder / "run.json").read_text())["start"])
    assert start.parents[1] == (out / "ilql-bc").resolve()
    assert run.evaluation.score.episodes > 0


def stopped(*_args, **_settings):
    raise KeyboardInterrupt


def test_a_run_that_is_not_there_cannot_be_resumed(out, hooks):
    (out / "begun").mkdir()
    (out / "begun" / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"run 'other' was not found .*begun"):
        resume("other", out, hooks)


def test_a_checkpoint_says_how_it_was_trained(config, out, hooks):
    run = train(config(), out, hooks)
    last = checkpoint.latest(run.folder / "checkpoints")
    assert run_config_of(last) == config()


def test_a_start_that_is_of_another_task_or_model_is_refused(config, out, hooks, toy):
    clone = train(config(init=None), out, hooks, "clone")
    data = {"data": None, "data_episodes": 5}
    with pytest.raises(ConfigError, match=r"clone was trained on toy, but ilql needs .* actions of toy-free"):
        train(config("ilql", "toy-free", init=str(clone.folder), **data), out, hooks)
    with pytest.raises(ConfigError, match=r"model\.name: found 'small', .*clone, whose model is 'tiny'"):
        train(config(init=str(clone.folder), model={"name": "small"}), out, hooks)
    # What a clone's word is worth elsewhere is for the user to find out.
    moved = train(config("bc", "toy-free", init=str(clone.folder), **data), out, hooks)
    assert read_config(moved.folder).model.name == "tiny"


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew_in_silence(config, out, hooks, client):
    with pytest.raises(KeyboardInterrupt):
        train(config(training={"keep_checkpoints": 1}), out, stop_at(5, KeyboardInterrupt()), "stopped")
    checkpoints, journal = out / "stopped" / "checkpoints", out / "stopped" / "metrics.jsonl"
    (only,) = checkpoint.all_checkpoints(checkpoints)
    (only / "state" / "model.safetensors").write_bytes(b"")
    told = journal.read_text()
    with pytest.raises(ConfigError, match=r"stopped: none of its checkpoints is whole; .* or remove"):
        resume("stopped", out, hooks)
    assert [r.info.status for r in runs_of(client)] == ["KILLED"]
    assert checkpoint.all_checkpoints(checkpoints) == [only]
    assert journal.read_text() == told
    shutil.rmtree(checkpoints)
    assert resume("stopped", out, hooks).evaluation.score.episodes > 0


def test_no_run_starts_from_one_that_will_remove_what_it_starts_from(config, out, hooks):
    with pytest.raises(KeyboardInterrupt):
        train(config(), out, stop_at(5, KeyboardInterrupt()), "clone")
    with pytest.raises(ConfigError, match=r"init: clone is not trained to its end; .*--resume clone.*step-"):
        train(config("ilql", init="clone"), out, hooks)
    shutil.copytree(out / "clone" / "checkpoints" / "step-000003", out / "copy")
    assert train(config("ilql", init="copy", training={"steps": 1}), out, hooks).evaluation.score.episodes > 0
    resume("clone", out, hooks)
    assert (
        train(config("ilql", init="clone", training={"steps": 1}), out, hooks).evaluation.score.episodes > 0
    )


def test_a_run_that_is_interrupted_before_it_is_one_leaves_nothing_and_promises_nothing(
    config, out, hooks, monkeypatch
):
    monkeypatch.setattr("lmrl_ray.mlflow_store.check", stopped)
    with pytest.raises(KeyboardInterrupt) as interrupt:
        train(config(), out, hooks, "mine")
    assert not (out / "mine").exists()
    assert not hasattr(interrupt.value, "__notes__")


def test_only_one_process_at_a_time_is_at_a_run(config, out, hooks):
    run = train(config(), out, hooks, "busy")
    with (run.folder / ".lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="busy: another process is at this run"):
            resume("busy", out, hooks)
    resume("busy", out, hooks)


def test_a_resumed_run_notices_that_its_data_have_been_replaced(config, out, hooks, toy_data, tmp_path):
    data = tmp_path / "data.parquet"
    shutil.copy(toy_data, data)
    with pytest.raises(KeyboardInterrupt):
        train(config(data=str(data)), out, stop_at(5, KeyboardInterrupt()), "stopped")
    build("toy", 40, 1, data)
    with pytest.raises(ConfigError, match=r"data\.parquet has been replaced"):
        resume("stopped", out, hooks)
    shutil.copy(toy_data, data)
    resume("stopped", out, hooks)


def test_runs_of_one_name_in_one_second_have_folders_of_their_own(out, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    assert [new_folder(out, "run").name for _ in range(4)] == ["run", "run-now", "run-now-2", "run-now-3"]


def test_the_seconds_of_a_step_count_the_steps_since_the_last_line(config, out, hooks):
    run = train(config(training={"log_every": 3}), out, hooks)
    lines = [json.loads(x) for x in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 8]
    between = (lines[2]["time"] - lines[1]["time"]) / 2
    assert lines[2]["seconds_per_step"] == pytest.approx(between, rel=0.1)


def test_a_run_does_not_take_another_environments_data_for_its_own(config, out, hooks):
    own = {"init": None, "data": None, "data_episodes": 5}
    build("toy", 5, 0, own_path(out, "toy", 5, 0, {}), env_kwargs={"raises_in": [1000]})
    with pytest.raises(DataError, match=r"holds other data than its name says .*env_kwargs"):
        train(config(**own), out, hooks)
