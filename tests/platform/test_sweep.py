"""Sweeps: the file is checked before anything runs, and every trial ends as what happened to it."""

import json
import os
import signal
import time

import pytest
import yaml
from sweeps import STEPS, runs_of

from lmrl_ray.config import ConfigError
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import configs_folder, resolve_config
from lmrl_ray.sweep import read_sweep, run_sweep, trial_config
from lmrl_ray.sweep.config import nested
from lmrl_ray.sweep.results import Trial, collect
from lmrl_ray.sweep.run import _begin
from lmrl_ray.sweep.trial import Plan
from lmrl_ray.train import Hooks, alone, prepare

QUIET = Hooks(Display(quiet=True))


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"space": {"algorithm.ta": {"choice": [1]}}, "algo": "ilql"}, r"algorithm\.ta: unknown key.*tau"),
        ({"space": {"optimizer.lr": {"choice": [-1.0]}}}, r"optimizer\.lr: found -1\.0"),
        (
            {"space": {"optimizer.lr": {"uniform": [0.1, 0.2], "choice": [0.1]}}},
            r"space\.optimizer\.lr: .*exactly one of uniform, loguniform, choice",
        ),
        ({"space": {"optimizer.lr": {}}}, r"space\.optimizer\.lr: .*exactly one of"),
        ({"space": {"optimizer.lr": {"uniform": None}}}, r"space\.optimizer\.lr: .*exactly one of"),
        ({"asha": {"grace_step": 1}}, r"asha\.grace_step: unknown key.*asha\.grace_steps"),
        ({"space": {"optimizer.lr": {"normal": [0, 1]}}}, r"space\.optimizer\.lr\.normal"),
        ({"config": {"training": {"eval_every": 0}}}, r"eval_every: is 0, so eval/return is never measured"),
        ({"config": {"training": {"stepz": 9}}}, r"training\.stepz: unknown key.*training\.steps"),
        ({"trails": 4}, r"trails: unknown key.*trials"),
        ({"task": "toi"}, "'toi' is unknown"),
        ({"algo": "bd"}, "'bd' is unknown"),
        ({"trials": 0}, "trials"),
        ({"config": {"seed": 7}}, r"config\.seed: found 7, but it has no effect here; give --seed"),
        ({"config": {"task": "toy"}}, r"config\.task: found 'toy'.*edit task of the file"),
        ({"config": {"algo": "mc"}}, r"config\.algo: found 'mc'.*edit algo of the file"),
        (
            {"stop": {"plateau": {"std": 0.1, "reports": 4}}},
            r"stop\.plateau\.reports: found 4, but eval/return is reported 3 times before a trial ends",
        ),
        (
            {"metric": "eval/normalised_score"},
            r"metric: found 'eval/normalised_score', but a score on toy .*eval/return.*eval/normalized_score",
        ),
        (
            {"metric": "eval/normalized_score", "task": "car-dealer"},
            r"metric: found 'eval/normalized_score', but a score on car-dealer .*eval/return",
        ),
    ],
)
def test_a_sweeps_file_is_checked_before_anything_runs(sweep_file, out, over, message):
    there = sorted(p.name for p in out.iterdir())
    with pytest.raises(ValueError, match=message):
        run_sweep(sweep_file(**over), out, 0, QUIET)
    assert sorted(p.name for p in out.iterdir()) == there


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"space": {}}, r"space: found \{\}, but it should search something, e\.g\. `optimizer\.lr: "),
        ({"space": {"task": {"choice": ["toy"]}}}, r"space\.task: all trials share their task; edit task of"),
        ({"space": {"algo": {"choice": ["mc"]}}}, r"space\.algo: all trials share their algo; edit algo of"),
        ({"space": {"seed": {"choice": [1, 2]}}}, r"space\.seed: all trials share their seed; give --seed"),
        ({"space": {"data": {"choice": ["x"]}}}, r"space\.data: all trials share .*; give it in `config`"),
        ({"space": {"data_episodes": {"choice": [9]}}}, r"space\.data_episodes: all trials share"),
        ({"space": {"init": {"choice": ["run"]}}}, r"space\.init: all trials share their init"),
        (
            {"space": {"training.steps": {"choice": [10, 50]}}},
            r"space\.training\.steps: trials are compared after as many steps; give it in `config`",
        ),
        ({"space": {"env.speed": {"choice": [3]}}}, r"space\.env\.speed: all trials share their env"),
        ({"space": {"plugins": {"choice": [["x.py"]]}}}, r"space\.plugins: all trials share"),
        (
            {"space": {"resources.workers": {"choice": [0, 1]}}},
            r"space\.resources\.workers: all trials share",
        ),
    ],
)
def test_a_space_has_something_in_which_trials_can_differ(sweep_file, over, message):
    with pytest.raises(ConfigError, match=message):
        read_sweep(sweep_file(**over), 0)


@pytest.mark.parametrize("space", [{"model.name": ["tiny", "small"]}, {"model": [{"name": "small"}]}])
@pytest.mark.parametrize("algo", ["bc", "ilql"])
def test_the_model_is_searched_only_where_trials_start_from_nothing(sweep_file, tmp_path, algo, space):
    file = sweep_file(algo=algo, space={key: {"choice": values} for key, values in space.items()})
    with pytest.raises(ConfigError, match=r"space\.model.*: all trials start from .*untrained, and have its"):
        read_sweep(file, 0)
    values = yaml.safe_load(file.read_text())
    values["config"]["init"] = None
    file.write_text(yaml.safe_dump(values))
    if algo == "bc":
        assert read_sweep(file, 0)[1].init is None
        return
    with pytest.raises(ConfigError, match=r"space\.model.*: all trials start from one clone"):
        read_sweep(file, 0)


def test_a_run_below_out_is_known_by_its_name(sweep_file, tmp_path):
    (tmp_path / "cloned" / "policy").mkdir(parents=True)
    (tmp_path / "cloned" / "config.yaml").write_text("task: maze-fo\nmodel: {name: gpt2}\n")
    file = sweep_file(algo="ilql", task="maze-fo", space={"algorithm.tau": {"uniform": [0.6, 0.9]}})
    _, base = read_sweep(file, 0, ["init=cloned"], tmp_path)
    assert base.optimizer.lr == 5e-5  # a pre-trained model's


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        ({"training": {"stepz": 9}}, [], r"toy_sweep\.yaml: config: training\.stepz: unknown key"),
        ({}, ["training.stepz=9"], r"^--set: training\.stepz: unknown key"),
    ],
)
def test_an_error_names_the_place_that_is_to_blame(sweep_file, config, settings, said):
    with pytest.raises(ConfigError, match=said):
        read_sweep(sweep_file(config=config), 0, settings)


@pytest.mark.parametrize("over", [{"algo": "tabular-q"}, {"task": "maze-symbolic"}])
def test_the_symbolic_maze_is_not_swept(sweep_file, over):
    with pytest.raises(ConfigError, match=r"toy_sweep\.yaml: .*: is for `lmrl train` alone"):
        read_sweep(sweep_file(**over), 0)


def test_a_suite_is_no_sweep(tmp_path):
    (tmp_path / "suite.yaml").write_text("tasks: [maze-fo]\nalgorithms: [bc]\n")
    with pytest.raises(
        ConfigError, match=r"is a suite, not a sweep; run it with `lmrl benchmark .*suite\.yaml`$"
    ):
        read_sweep(tmp_path / "suite.yaml", 0)


def test_a_range_ends_before_it_begins_or_holds_nothing(sweep_file):
    for drawn in ({"choice": []}, {"uniform": [2.0, 1.0]}, {"loguniform": [0.0, 1.0]}):
        with pytest.raises(ConfigError, match=r"space\.optimizer\.lr"):
            read_sweep(sweep_file(space={"optimizer.lr": drawn}), 0)


def test_both_ends_of_a_range_are_checked(sweep_file):
    with pytest.raises(ConfigError, match=r"decoding\.top_p"):
        read_sweep(sweep_file(space={"decoding.top_p": {"uniform": [0.5, 7.0]}}), 0)
    with pytest.raises(ConfigError, match=r"decoding\.top_k"):
        read_sweep(sweep_file(space={"decoding.top_k": {"choice": [5, "many"]}}), 0)


def test_a_range_over_whole_numbers_is_refused_though_its_ends_are_some(sweep_file):
    for drawn in ({"uniform": [2, 8]}, {"loguniform": [1, 100]}):
        with pytest.raises(ConfigError, match=r"top_k: found \d+\.\d+.*space\.decoding\.top_k.*`choice`"):
            read_sweep(sweep_file(space={"decoding.top_k": drawn}), 0)


@pytest.mark.parametrize("setting", ["seed=7", "task=toy-free", "algo=mc"])
def test_what_would_have_no_effect_on_a_sweep_is_refused(sweep_file, setting):
    with pytest.raises(ConfigError, match=rf"--set {setting.split('=')[0]}: found .*no effect here"):
        read_sweep(sweep_file(), 0, [setting])


def test_a_sweep_that_is_not_there_cannot_be_resumed(sweep_file, out):
    with pytest.raises(ConfigError, match="--resume never: there is no sweep of that name"):
        run_sweep(sweep_file(), out, None, QUIET, resume_name="never")


def test_what_a_sweep_began_with_cannot_be_changed_by_its_resume(sweep_file, out):
    for given, option in [
        ({"settings": ["seed=2"]}, "--set"),
        ({"seed": 0}, "--seed"),
        ({"max_concurrent": 1}, "--max-concurrent"),
    ]:
        given = {"seed": None, **given}
        with pytest.raises(ConfigError, match=f"--resume some: what a sweep began with .* out {option}"):
            run_sweep(sweep_file(), out, hooks=QUIET, resume_name="some", **given)


def test_a_sweep_that_cannot_begin_leaves_nothing_behind(sweep_file, out, monkeypatch):
    file = sweep_file(config={"init": "nowhere"})
    with pytest.raises(ConfigError, match="nowhere: neither a folder nor a run"):
        run_sweep(file, out, 0, QUIET)
    assert not (out / "sweeps").exists()
    monkeypatch.setattr("lmrl_ray.sweep.tuning.room_for", lambda *_: 1 / 0)
    monkeypatch.setattr("lmrl_ray.sweep.run.prepare", lambda *_: pytest.fail("a clone is trained"))
    with pytest.raises(ZeroDivisionError):
        run_sweep(sweep_file(), out, 0, QUIET)
    assert not list((out / "sweeps").iterdir())


def test_only_one_process_at_a_time_is_at_a_sweep(sweep_file, out):
    file = sweep_file()
    folder, _ = _begin(file, out, 0, None, ())
    with alone(folder), pytest.raises(ConfigError, match="another process is at this run"):
        run_sweep(file, out, None, QUIET, resume_name=folder.name)


@pytest.mark.slow
def test_a_sweep_that_was_stopped_before_its_first_trial_goes_on(sweep_file, out, ray_cluster, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    file = sweep_file(trials=1, scheduler="none", asha=None)
    with monkeypatch.context() as patch:
        patch.setattr("lmrl_ray.sweep.run.prepare", stopped)
        with pytest.raises(KeyboardInterrupt):
            run_sweep(file, out, 7, QUIET)
    with pytest.raises(ConfigError, match="is not what that sweep began with"):
        run_sweep(sweep_file("other", trials=2), out, None, QUIET, resume_name="toy_sweep")
    with monkeypatch.context() as patch:
        patch.setattr("lmrl_ray.sweep.run.prepare", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_sweep(file, out, None, QUIET, resume_name="toy_sweep")
    result = run_sweep(file, out, None, QUIET, resume_name="toy_sweep")
    assert [t.status for t in result.trials] == ["done"]
    assert result.name == "toy_sweep"


def test_a_trials_configuration_is_the_shared_one_with_its_draw_on_top(sweep_file):
    _, base = read_sweep(sweep_file(), 7, ["training.batch_episodes=2"])
    trial = trial_config(base.dump(), {"optimizer.lr": 0.5, "decoding.top_k": 9}, "trial")
    assert (trial.optimizer.lr, trial.decoding.top_k, trial.seed) == (0.5, 9, 7)
    assert (trial.optimizer.engine, trial.training.batch_episodes) == ("torch", 2)
    assert nested({"a.b": 1, "a.c": 2, "d": 3}) == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_trial_that_diverged_is_not_the_best(sweep_file, tmp_path):
    sweep, base = read_sweep(sweep_file(), 0)
    plan = Plan("some", 0, sweep.model_dump(mode="json"), base.dump(), None)
    trials = [Trial(str(s), {"optimizer.lr": s}, 4, s, "done") for s in (float("nan"), 0.5, 0.75)]
    result = collect(trials, [], plan, tmp_path, tmp_path)
    assert [t.name for t in result.trials] == ["0.75", "0.5", "nan"]
    assert yaml.safe_load(result.best_config.read_text())["optimizer"]["lr"] == 0.75


def test_the_best_file_names_the_model_that_the_trials_started_from(sweep_file, tmp_path, toy_data):
    (tmp_path / "cloned" / "policy").mkdir(parents=True)
    (tmp_path / "cloned" / "config.yaml").write_text("task: toy\nmodel: {name: small}\n")
    sweep, base = read_sweep(sweep_file(config={"data": str(toy_data)}), 0, ["init=cloned"], tmp_path)
    base = prepare(base, tmp_path, QUIET, "some")
    assert (base.model.name, base.init) == ("small", str((tmp_path / "cloned").resolve()))
    plan = Plan("some", 0, sweep.model_dump(mode="json"), base.dump(), None)
    best = collect([Trial("a", {}, 4, 1.0, "done")], ["a\nbroke"], plan, tmp_path, tmp_path)
    assert yaml.safe_load(best.best_config.read_text())["model"]["name"] == "small"
    assert best.errors == ["broke"]


def test_the_sweep_that_comes_with_the_project_is_sound():
    sweep, base = read_sweep(configs_folder() / "ilql_maze.yaml", 0)
    assert (base.algo, base.task) == ("ilql", "maze-fo")
    assert {"algorithm.tau", "decoding.beta", "optimizer.lr"} <= set(sweep.space)
    assert sweep.scheduler == "asha"


@pytest.mark.slow
def test_a_sweep_is_a_parent_with_children_and_a_best_file_that_trains(
    sweep_file, out, client, ray_cluster, toy, toy_policy, monkeypatch
):
    # Trials work elsewhere: what the file names from here must be found from there.
    monkeypatch.chdir(toy_policy.parent)
    relative = {"init": toy_policy.name, "plugins": [os.path.relpath(toy)]}
    result = run_sweep(sweep_file(config=relative), out, 0, QUIET, max_concurrent=2)
    runs = runs_of(client)
    parent = runs.pop("toy_sweep")
    assert parent.info.run_id == result.mlflow_run
    assert len(runs) == 4
    assert {r.data.tags["mlflow.parentRunId"] for r in runs.values()} == {parent.info.run_id}
    assert {r.info.status for r in [parent, *runs.values()]} == {"FINISHED"}

    assert [t.name for t in result.trials if t.score is None] == []
    assert {t.name for t in result.trials} == set(runs)
    scores = [t.score for t in result.trials]
    assert scores == sorted(scores, reverse=True)
    assert {t.status for t in result.trials} <= {"done", "stopped"}
    assert "done" in {t.status for t in result.trials}
    for trial in result.trials:
        whole = (out / trial.name / "evaluation.json").is_file()
        assert whole or trial.status == "stopped"
        history = client.get_metric_history(runs[trial.name].info.run_id, "eval/return")
        assert [m.step for m in history][: trial.steps] == list(range(1, trial.steps + 1))
        drawn = float(runs[trial.name].data.params["optimizer.lr"])
        assert drawn == pytest.approx(trial.parameters["optimizer.lr"])

    shown = {a.path for a in client.list_artifacts(parent.info.run_id, "summary")}
    assert shown == {"summary/best.yaml", "summary/coordinates.png"}
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    best = resolve_config("bc", "toy", file=result.best_config)
    assert best.optimizer.lr == pytest.approx(result.trials[0].parameters["optimizer.lr"])
    assert best.decoding.top_k == result.trials[0].parameters["decoding.top_k"]
    assert json.loads(json.dumps(result.summary()))["trials"][0]["name"] == result.trials[0].name


@pytest.mark.slow
def test_a_trial_that_learns_on_workers_is_scored(sweep_file, out, ray_cluster):
    workers = {"resources": {"workers": 1, "rollout_actors": 1}}
    file = sweep_file(config=workers, trials=1, scheduler="none", asha=None)
    (trial,) = run_sweep(file, out, 0, QUIET).trials
    assert (trial.status, trial.steps) == ("done", STEPS)
    assert trial.score is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"config": {"env": {"raises_in": [0, 1, 2, 3, 4]}}}, "the simulator broke"),
        ({"algo": "toy-killed"}, "died"),
    ],
)
def test_a_sweep_whose_trials_all_fail_says_why_and_is_marked_so(
    sweep_file, out, client, ray_cluster, broken, said
):
    config = {**broken.get("config", {}), "resources": {"max_failures": 0}}
    file = sweep_file(**{**broken, "config": config}, trials=1, scheduler="none", asha=None)
    with pytest.raises(ConfigError, match=rf"no trial was scored: .*{said}"):
        run_sweep(file, out, 0, QUIET, max_concurrent=1)
    assert len(runs_of(client)) == 2
    assert {r.info.status for r in runs_of(client).values()} == {"FAILED"}


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_it_goes_on_and_is_marked_killed(sweep_file, out, client, started):
    file = sweep_file(config={"training": {"steps": 100_000}})
    sweep = started("sweep", file, "--out", out, "--max-concurrent", 1)
    while not list(out.glob("toy_sweep-*/checkpoints/step-*")):
        assert sweep.poll() is None, sweep.stderr.read()
        time.sleep(0.05)
    sweep.send_signal(signal.SIGINT)
    _, said = sweep.communicate(timeout=120)
    assert sweep.returncode == 130
    assert said.splitlines()[-1] == "interrupted; continue with --resume"
    assert "Traceback" not in said
    assert not (out / "sweeps" / "toy_sweep" / "best.yaml").exists()
    assert [r.info.status for r in runs_of(client).values()] == ["KILLED", "KILLED"]


@pytest.mark.reliability
@pytest.mark.slow
def test_a_sweep_killed_in_the_middle_is_resumed_where_it_was(sweep_file, out, client, started):
    file = sweep_file(search="optuna", scheduler="none", asha=None, trials=3)
    first = started("sweep", file, "--out", out, "--max-concurrent", 1, "--json")
    while not list(out.glob("toy_sweep-*/evaluation.json")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    (finished,) = out.glob("toy_sweep-*/evaluation.json")
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before = finished.stat().st_mtime_ns, len(list(finished.parent.glob("checkpoints/*")))

    second = started("sweep", file, "--out", out, "--resume", "toy_sweep", "--json")
    printed, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    trials = json.loads(printed)["trials"]
    assert [t["status"] for t in trials] == ["done"] * 3
    assert {t["steps"] for t in trials} == {STEPS}
    assert (finished.stat().st_mtime_ns, len(list(finished.parent.glob("checkpoints/*")))) == before
    runs = runs_of(client)
    assert set(runs) == {"toy_sweep"} | {t["name"] for t in trials}
    assert {r.info.status for r in runs.values()} == {"FINISHED"}
    for trial in trials:
        history = client.get_metric_history(runs[trial["name"]].info.run_id, "eval/return")
        assert [m.step for m in history] == list(range(1, STEPS + 1))
