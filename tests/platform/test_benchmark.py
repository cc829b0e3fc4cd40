"""The comparison: a suite's file, its statistics, and a small matrix run, interrupted and gone on with."""

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from envs.registry import get_task
from lmrl_ray.benchmark import BenchmarkError, _baselines, _check_cell, _jobs, read_suite, run_benchmark
from lmrl_ray.cells import Job, run_cell
from lmrl_ray.cli.comparing import compare, print_runs
from lmrl_ray.config import ConfigError
from lmrl_ray.journal import read
from lmrl_ray.mlflow_store import import_mlflow, tracking_uri
from lmrl_ray.report.comparison import (
    Cell,
    _is_best,
    bootstrap,
    improvement_interval,
    print_comparison,
    probability_of_improvement,
    summarize,
)
from lmrl_ray.report.curves import figure_of
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config
from lmrl_ray.train import Hooks, alone


def cell(policy="bc", seed=0, raw=-83.0, run="somewhere"):
    return Cell("maze-fo", policy, seed, run, raw, None, 0.5, "rule")


def test_a_row_is_the_mean_over_seeds_with_the_paper_beside_it():
    rows = summarize([cell(seed=1, raw=-73.0), cell(seed=0)], [cell("random", run="")])
    assert [(r.policy, r.scripted) for r in rows] == [("random", True), ("bc", False)]
    row = rows[1]
    assert row.seeds == [0, 1]
    assert row.raw_returns == [-83.0, -73.0]
    assert row.raw_return == -78.0
    assert row.ci95 == (-83.0, -73.0)
    assert row.normalized_score == pytest.approx(50 + 50 * 5 / (83 - 6.84), abs=0.01)
    assert row.paper_normalized == 58.2


def test_a_curve_goes_through_the_means_in_a_band_that_is_their_interval():
    steps, returns = np.array([10, 20]), np.array([[-9.0, -3.0], [-7.0, -3.0], [-5.0, -3.0]])
    (axes,) = figure_of("maze-fo", {"ilql": (steps, returns)}).axes
    assert axes.lines[0].get_xydata().tolist() == [[10, -7], [20, -3]]
    band = axes.collections[0].get_paths()[0].vertices
    assert sorted({(x, y) for x, y in band.tolist()}) == [(10, -9), (10, -5), (20, -3)]
    assert axes.get_legend().get_texts()[0].get_text() == "ilql (3 seeds)"


def test_policies_that_are_as_good_as_the_best_are_all_bold_and_a_script_never_is():
    cells = [cell("bc", raw=-9.0), cell("ilql", raw=-6.841), cell("ppo", raw=-6.844)]
    rows = summarize(cells, [cell("optimal", raw=-6.84, run="")])
    assert {r.policy for r in rows if _is_best(r, -6.841)} == {"ilql", "ppo"}


def test_the_table_shows_each_figure_and_the_best_learnt_one_in_bold(capsys, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "200"}.items():
        monkeypatch.setenv(name, value)
    learnt = [cell(seed=0), cell(seed=1, raw=-73.0), cell("ilql", raw=-6.84)]
    print_comparison(summarize(learnt, [cell("optimal", raw=-6.84, run="")]))
    printed = capsys.readouterr().out
    assert re.findall(r"\x1b\[1m([\d.]+)\x1b", printed) == ["100.0"]
    plain = re.sub(r"\x1b\[[\d;]*m", "", printed)
    for part in ("maze-fo", "simulator: rule", "bc", "53.3", "-78.00 [-83.00, -73.00]", "paper 58.2 (-72.1)"):
        assert part in plain
    for part in ("optimal", "ilql", "paper 99.9 (-6.97)", "for orientation, not a comparison"):
        assert part in plain
    assert plain.count("100.0") == plain.count("-6.84 [-6.84, -6.84]") == 2


def test_the_bootstrap_interval_holds_the_mean_and_narrows():
    rng = np.random.default_rng(1)
    narrow, wide = bootstrap(rng.normal(5, 1, 400)), bootstrap(rng.normal(5, 1, 10))
    assert narrow[0] < 5 < narrow[1]
    assert narrow[1] - narrow[0] == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert wide[1] - wide[0] > narrow[1] - narrow[0]
    assert bootstrap(np.array([3.0])) == (3.0, 3.0)


def test_the_probability_of_improvement_counts_pairs_and_half_of_the_ties():
    ours, theirs = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])
    assert probability_of_improvement(ours, theirs) == pytest.approx((0.5 + 0.75 + 1.0) / 3)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - 0.75)
    assert probability_of_improvement(ours, ours) == 0.5
    low, high = improvement_interval(np.arange(50.0) + 20, np.arange(50.0))
    assert low < probability_of_improvement(np.arange(50.0) + 20, np.arange(50.0)) < high


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: [maze-of]\nalgorithms: [bc]\n", "maze-fo"),
        ("tasks: [maze-fo]\nalgorithms: [iqll]\n", "ilql"),
        ("tasks: [maze-fo]\nalgorithms: []\n", "algorithms"),
        ("tasks: [maze-fo]\nalgorithms: [bc]\nseed: 3\n", "seeds"),
        ("tasks: [maze-fo]\nalgorithms: [bc]\noverrides: {maze-po: {}}\n", "overrides.maze-po"),
        ("tasks: [maze-fo]\nalgorithms: [bc]\nonly: {maze-po: [bc]}\n", "only.maze-po"),
        ("tasks: [maze-fo]\nalgorithms: [bc]\nonly: {maze-fo: [ilql]}\n", "only.maze-fo"),
        (
            "tasks: [maze-fo]\nalgorithms: [ilql, ppo]\nonly: {maze-fo: [ilql]}\n"
            "overrides: {maze-fo/ppo: {}}\n",
            "overrides.maze-fo/ppo",
        ),
        ("tasks: [maze-fo]\nalgorithms: [bc]\nconfig: {training: {step: 3}}\n", "training.steps"),
        ("tasks: [maze-fo]\nalgorithms: [ilql]\nconfig: {algorithm: {tau: 0.9}}\n", "algorithm.tau"),
        ("tasks: [maze-fo]\nalgorithms: [bc]\nseeds: [0, 0]\n", "seeds: found .0, 0."),
        ("tasks: [maze-fo]\nalgorithms: [bc]\nconfig: {seed: 7}\n", "config: seed has no effect"),
        (
            "tasks: [maze-fo]\nalgorithms: [ilql]\noverrides: {maze-fo/ilql: {env: {layout: umaze}}}\n",
            "overrides.maze-fo/ilql.env: the algorithms and baselines of a task are compared in one world",
        ),
        (
            "tasks: [maze-fo]\nalgorithms: [bc, ilql]\noverrides: {bc: {env: {layout: umaze}}}\n",
            "overrides.bc.env: the algorithms .* give it to the task",
        ),
        (
            "tasks: [maze-fo]\nalgorithms: [ilql]\noverrides: {ilql: {init: clone}}\n",
            "overrides.ilql.init: ilql takes it",
        ),
        (
            "tasks: [maze-fo]\nalgorithms: [ilql]\noverrides: {ilql: {model: {name: small}}}\n",
            r"overrides\.ilql\.model\.name: ilql has the model of its task's bc; give it to the task",
        ),
        (
            "tasks: [maze-fo]\nalgorithms: [ilql]\noverrides: {maze-fo/ilql: {algorithm: {taw: 1}}}\n",
            r"^\S+suite\.yaml: overrides\.maze-fo/ilql .*: algorithm\.taw: unknown key",
        ),
        (
            "tasks: [maze-fo]\nalgorithms: [bc]\noverrides: {maze-fo: {env: {layoutt: umaze}}}\n",
            r"^\S+suite\.yaml: overrides\.maze-fo .*: env: .*Did you mean env\.layout",
        ),
        (
            "tasks: [maze-fo]\nalgorithms: [ilql]\nconfig: {algorithm: {tau: 0.9}}\n",
            r"^\S+suite\.yaml: config \(of maze-fo/bc\): algorithm\.tau: unknown key",
        ),
        ("tasks: [maze-fo]\nalgorithms: [bc, iql]\n", r"^\S+suite\.yaml: algorithms: algorithm 'iql' is"),
        ("tasks: [maze-of]\nalgorithms: [bc]\n", r"^\S+suite\.yaml: tasks: task 'maze-of' is unknown"),
        ("tasks: [maze-fo]\nalgorithms: [bc]\nseeds: [-1]\n", r"suite\.yaml: seeds\.0: found -1, but"),
        (
            "tasks: maze-fo\nalgorithms: [bc]\n",
            r"tasks: found 'maze-fo', but it should be a list, as in \[maze",
        ),
        ("tasks: [maze-fo, maze-fo]\nalgorithms: [bc]\n", r"tasks: found .*; give each of them once"),
        ("tasks: [maze-fo]\nalgorithms: [bc, bc]\n", r"algorithms: found .*; give each of them once"),
        (
            "algo: bc\ntask: maze-fo\nspace: {optimizer.lr: {choice: [1]}}\n",
            r"suite\.yaml: is a sweep, not a suite; run it with `lmrl sweep \S+suite\.yaml`$",
        ),
    ],
)
def test_a_suite_that_cannot_be_run_is_refused_before_anything_runs(text, said, tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_suite(file)


def test_a_benchmark_has_no_name_that_leads_elsewhere(tmp_path):
    with pytest.raises(ConfigError, match=r"--name '\.\./escape': should be a folder's name"):
        run_benchmark(tmp_path / "s.yaml", tmp_path, Hooks(Display(quiet=True)), name="../escape")


def test_a_suite_may_say_something_of_an_algorithm_of_a_plugin(tmp_path, toy):
    file = tmp_path / "suite.yaml"
    file.write_text(
        f"tasks: [toy]\nalgorithms: [bc, toy-bc]\nconfig: {{plugins: [{toy}]}}\n"
        "overrides: {toy-bc: {optimizer: {lr: 1.0}}}\n"
    )
    assert read_suite(file).settings("toy", "toy-bc")["optimizer"] == {"lr": 1.0}


def test_what_is_said_of_a_cell_wins_over_what_is_said_of_all(tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text(
        "tasks: [maze-fo]\nalgorithms: [bc, ilql]\n"
        "config: {training: {steps: 1, save_every: 1}}\n"
        "overrides:\n  maze-fo: {training: {steps: 2}}\n  maze-fo/ilql: {training: {steps: 3}}\n"
    )
    suite = read_suite(file)
    assert suite.settings("maze-fo", "bc") == {"training": {"steps": 2, "save_every": 1}}
    assert suite.settings("maze-fo", "ilql") == {"training": {"steps": 3, "save_every": 1}}


def test_a_task_may_run_some_of_the_algorithms_alone(tmp_path):
    file = tmp_path / "suite.yaml"
    file.write_text("tasks: [maze-fo, maze-po]\nalgorithms: [bc, ilql, ppo]\nonly: {maze-po: [bc, ilql]}\n")
    suite = read_suite(file)
    assert suite.algorithms_of("maze-fo") == ("bc", "ilql", "ppo")
    assert suite.algorithms_of("maze-po") == ("bc", "ilql")


SUITE = """
tasks: [toy]
algorithms: [bc, mc]
seeds: [0, 1]
config:
  plugins: [TOY]
  data_episodes: 20
  training: {steps: 2, batch_episodes: 4, save_every: 1, eval_every: 1, eval_episodes: 2}
  optimizer: {engine: torch}
"""
BEGUN = json.dumps({"data": "gone.parquet", "start": "start"})


def one_after_the_other(runs):
    """Each run's configuration was written after the evaluation of the one before."""
    times = [((r / "config.yaml").stat().st_mtime, (r / "evaluation.json").stat().st_mtime) for r in runs]
    return all(end <= begin for (_, end), (begin, _) in pairwise(sorted(times)))


def evaluated(out):
    """When each run was."""
    return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("*/evaluation.json")}


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("algo", ["bc", "mc"])
def test_no_cell_is_taken_from_a_run_of_another_configuration(tmp_path, toy, algo, finished):
    file, run = tmp_path / "small.yaml", tmp_path / "runs" / f"small-toy-{algo}-s1"
    file.write_text(SUITE.replace("TOY", str(toy)))
    run.mkdir(parents=True)
    settings = read_suite(file).settings("toy", algo)
    settings["training"] = {**settings["training"], "steps": 9}
    config = resolve_config(algo, "toy", options={**settings, "seed": 1})
    (run / "config.yaml").write_text(yaml.safe_dump(config.dump()))
    (run / "run.json").write_text(BEGUN)
    if finished:
        (run / "evaluation.json").write_text("{}")
    with pytest.raises(ConfigError, match=rf"toy-{algo}-s1: .*\(training\.steps 9, not 2\); .*remove it"):
        run_benchmark(file, tmp_path / "runs", Hooks(Display(quiet=True)))
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [run.name]


def finished_cell(tmp_path, toy, **begun):
    """A suite's file, and a run of its first cell that has ended."""
    file = tmp_path / "small.yaml"
    file.write_text(SUITE.replace("TOY", str(toy)))
    (job, *_) = _jobs(read_suite(file), "small", tmp_path / "runs")
    job.folder.mkdir(parents=True)
    (job.folder / "config.yaml").write_text(yaml.safe_dump(job.config().dump()))
    (job.folder / "run.json").write_text(json.dumps(json.loads(BEGUN) | begun))
    (job.folder / "evaluation.json").write_text("{}")
    return file, job


def test_no_finished_cell_is_taken_for_one_of_data_that_were_replaced(tmp_path, toy, toy_data):
    file, job = finished_cell(tmp_path, toy, data=str(toy_data), fingerprint="another")
    with pytest.raises(ConfigError, match=rf"{job.name}: its data file .* has been replaced"):
        run_benchmark(file, tmp_path / "runs", Hooks(Display(quiet=True)))


def test_a_plugin_that_was_changed_since_a_cell_was_finished_is_told(tmp_path, toy, monkeypatch):
    _, job = finished_cell(tmp_path, toy, code={Path(toy).name: "another"})
    display, said = Display(quiet=True), []
    monkeypatch.setattr(display, "say", said.append)
    _check_cell(job, "small", display)
    assert said == [f"{job.name}: {Path(toy).name} has changed since it began; what is finished stands"]


def test_failed_episodes_are_told_beneath_the_table(capsys):
    cells = [replace(cell(), failed=2), replace(cell(seed=1), failed=3), cell("ilql")]
    rows = summarize(cells, [])
    assert [r.failed for r in rows] == [5, 0]
    print_comparison(rows)
    assert "maze-fo, bc: 5 episodes failed in their simulator and are in no figure" in capsys.readouterr().out


def test_a_baseline_whose_simulator_fails_costs_the_others_nothing(tmp_path, toy):
    file = tmp_path / "small.yaml"
    broken = f"overrides: {{toy: {{env: {{raises_in: {[*range(5)]}}}}}}}\n"
    file.write_text(SUITE.replace("TOY", str(toy)).replace("[0, 1]", "[0]") + broken)
    failed: dict[str, str] = {}
    played = [c.policy for c in _baselines(read_suite(file), failed)]
    assert played == ["optimal"]  # whose episodes end before the simulator breaks
    assert failed.keys() == {
        f"toy, {name}, seed 0" for name in get_task("toy").baselines if name != "optimal"
    }
    assert all("the simulator broke" in reason for reason in failed.values())


def test_cells_of_a_clone_that_is_pre_trained_are_gone_on_with(tmp_path, toy, toy_policy):
    file, out = tmp_path / "small.yaml", tmp_path / "runs"
    file.write_text(
        SUITE.replace("TOY", str(toy)) + f"overrides: {{bc: {{model: {{name: {toy_policy}}}}}}}\n"
    )
    job = {j.name: j for j in _jobs(read_suite(file, out), "small", out)}["small-toy-mc-s0"]
    clone = out / job.clone
    (clone / "policy").mkdir(parents=True)
    config = resolve_config("bc", "toy", options={"plugins": [str(toy)], "model": {"name": str(toy_policy)}})
    (clone / "config.yaml").write_text(yaml.safe_dump(config.dump()))
    (clone / "run.json").write_text(BEGUN)
    trained = job.config({"init": str(clone)})
    assert trained.optimizer != job.config().optimizer
    job.folder.mkdir()
    (job.folder / "config.yaml").write_text(yaml.safe_dump(trained.dump()))
    (job.folder / "run.json").write_text(BEGUN)
    _check_cell(job, "small", Display(quiet=True))


def test_a_start_by_name_has_its_models_defaults_wherever_the_runs_are(tmp_path, toy, toy_policy):
    file, out = tmp_path / "small.yaml", tmp_path / "elsewhere"
    config = resolve_config("bc", "toy", options={"plugins": [str(toy)], "model": {"name": str(toy_policy)}})
    (out / "base" / "policy").mkdir(parents=True)
    (out / "base" / "config.yaml").write_text(yaml.safe_dump(config.dump()))
    file.write_text(SUITE.replace("TOY", str(toy)) + "overrides: {bc: {init: base}}\n")
    (job, *_) = _jobs(read_suite(file, out), "small", out)
    assert job.config().optimizer.lr == config.optimizer.lr


def test_a_benchmark_is_run_by_one_process_at_a_time(tmp_path, toy, monkeypatch):
    monkeypatch.setattr("lmrl_ray.benchmark.make_room", lambda *_: None)
    file, folder = tmp_path / "small.yaml", tmp_path / "runs" / "benchmarks" / "small"
    file.write_text(SUITE.replace("TOY", str(toy)))
    folder.mkdir(parents=True)
    with alone(folder), pytest.raises(ConfigError, match="small: another process is at this run"):
        run_benchmark(file, tmp_path / "runs", Hooks(Display(quiet=True)))


def test_no_cell_is_taken_from_a_run_whose_clone_would_be_another(tmp_path, toy):
    file, run = tmp_path / "small.yaml", tmp_path / "runs" / "small-toy-mc-s0"
    file.write_text(SUITE.replace("TOY", str(toy)))
    run.mkdir(parents=True)
    config = resolve_config("mc", "toy", options=read_suite(file).settings("toy", "mc"))
    (run / "config.yaml").write_text(yaml.safe_dump(config.dump()))
    (run / "run.json").write_text(BEGUN)
    with pytest.raises(ConfigError, match="toy-mc-s0: started from small-toy-bc-s0, which is not there"):
        run_benchmark(file, tmp_path / "runs", Hooks(Display(quiet=True)))


def test_a_cell_that_was_killed_while_setting_up_is_started_again(toy, toy_policy, toy_data, out):
    settings = {
        "plugins": [toy],
        "init": str(toy_policy),
        "data": str(toy_data),
        "optimizer": {"engine": "torch"},
        "training": {"steps": 1, "batch_episodes": 4},
    }
    job = Job("toy", "bc", 0, settings, {"CPU": 1.0}, str(out), "small-toy-bc-s0", "small-toy-bc-s0")
    job.folder.mkdir()
    (job.folder / "config.yaml").write_text("algo: bc\n")
    with alone(job.folder), pytest.raises(ConfigError, match="another process is at this run"):
        run_cell(job, "")
    assert (job.folder / "config.yaml").is_file()
    found = run_cell(job, "")
    assert found.run == str(job.folder)
    assert [p.name for p in out.glob("small-toy-*")] == [job.name]


def finished_run(out, name, **over):
    """What `lmrl compare` reads of a run."""
    config = {"algo": "bc", "task": "maze-fo", "seed": 0, "env": over.pop("env", {})}
    row = {"raw_return": -7.0, "ci95": None, "normalized_score": None, "success_rate": 1.0, "episodes": 1}
    (out / name).mkdir()
    (out / name / "config.yaml").write_text(yaml.safe_dump(config))
    (out / name / "evaluation.json").write_text(json.dumps({**row, "simulator": "rule", **over}))
    (out / name / "returns.json").write_text("[-7.0]")


def test_only_runs_of_the_same_game_are_compared(tmp_path, capsys):
    umaze = {"env": {"layout": "umaze"}}
    for name, over in {"a": {}, "b": {}, "umaze": umaze, "lm": {"simulator": "lm"}}.items():
        finished_run(tmp_path, name, **over)
    rows = compare(["a", "b"], tmp_path)
    assert [r["simulator"] for r in rows] == ["rule", "rule"]
    print_runs(rows)
    assert "simulator: rule" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"umaze: env\.layout: is 'umaze', but not given in .*a;"):
        compare(["a", "umaze"], tmp_path)
    with pytest.raises(ConfigError, match=r"a: env\.layout: is not given, but 'umaze' in .*umaze;"):
        compare(["umaze", "a"], tmp_path)
    with pytest.raises(ConfigError, match=r"lm: simulator: is 'lm', but 'rule' in .*a;"):
        compare(["a", "lm"], tmp_path)
    (tmp_path / "b" / "evaluation.json").unlink()
    with pytest.raises(ConfigError, match=r"b: has no evaluation .*lmrl train --resume b"):
        compare(["a", "b"], tmp_path)


@pytest.mark.slow
def test_a_matrix_is_run_once_and_gone_on_with(tmp_path, ray_cluster, toy):
    file = tmp_path / "small.yaml"
    suite = SUITE.replace("TOY", str(toy))
    file.write_text(suite)
    hooks = Hooks(Display(quiet=True))
    result = run_benchmark(file, tmp_path / "runs", hooks, max_concurrent=1)
    assert one_after_the_other((tmp_path / "runs").glob("small-toy-*"))
    learnt = [r for r in result.rows if not r.scripted]
    assert [(r.policy, r.seeds) for r in learnt] == [("bc", [0, 1]), ("mc", [0, 1])]
    assert {r.policy for r in result.rows if r.scripted} == {"random", "behaviour", "optimal"}
    written = json.loads(result.file.read_text())
    assert [r["raw_returns"] for r in written["rows"]] == [r.raw_returns for r in result.rows]
    assert (result.file.parent / "curves" / "toy.png").stat().st_size > 1000

    (result.file.parent / "cells" / "toy" / "mc-1.json").unlink()
    half = tmp_path / "runs" / "small-toy-mc-s1"
    (half / "evaluation.json").unlink()
    shutil.rmtree(half / "checkpoints" / "step-000002")
    first, last = read(half / "metrics.jsonl")
    before = evaluated(tmp_path / "runs")
    again = run_benchmark(file, tmp_path / "runs", hooks)
    assert again.rows == result.rows
    assert again.mlflow_run == result.mlflow_run
    after = evaluated(tmp_path / "runs")
    assert after.pop(half.name) > max(before.values())
    assert after == before
    same, other = read(half / "metrics.jsonl")
    assert same == first, "it began where the checkpoint that was left is"
    assert (other.step, other.time > last.time) == (2, True)

    names = [r.name for r in sorted((tmp_path / "runs").glob("small-toy-*"))]
    client = import_mlflow().MlflowClient(tracking_uri(tmp_path / "runs"))
    experiments = [e.experiment_id for e in client.search_experiments()]
    children = client.search_runs(experiments, f"tags.`mlflow.parentRunId` = '{result.mlflow_run}'")
    assert sorted(c.info.run_name for c in children) == names
    assert [a.path for a in client.list_artifacts(result.mlflow_run, "curves")] == ["curves/toy.png"]

    rows = compare(names, tmp_path / "runs")
    assert rows[0]["probability_of_improvement"] == 0.5
    assert [r["run"] for r in rows] == names

    file.write_text(suite.replace("seeds: [0, 1]", "seeds: [0]"))
    with pytest.raises(ConfigError, match="another suite of that name"):
        run_benchmark(file, tmp_path / "runs", hooks)

    shutil.rmtree(result.file.parent)
    file.write_text(suite.replace("steps: 2", "steps: 3"))
    with pytest.raises(ConfigError, match=r"small-toy-bc-s0: .*training\.steps 2, not 3"):
        run_benchmark(file, tmp_path / "runs", hooks)
    # The suite that left them goes on with them: a clone's data and policy are no difference.
    file.write_text(suite)
    assert run_benchmark(file, tmp_path / "runs", hooks).rows == result.rows


@pytest.mark.slow
def test_a_cell_that_fails_is_named_at_the_end_and_costs_the_others_nothing(tmp_path, ray_cluster, toy):
    file = tmp_path / "small.yaml"
    suite = SUITE.replace("TOY", str(toy)).replace("[0, 1]", "[0]")
    diverges = "overrides: {mc: {optimizer: {lr: 1.0e+37}}}\n"
    file.write_text(suite.replace("mc]", "mc, filtered-bc]") + diverges)
    hooks = Hooks(Display(quiet=True))
    earlier = tmp_path / "runs" / "benchmarks" / "small" / "cells" / "toy" / "mc-0.json"
    earlier.parent.mkdir(parents=True)
    earlier.write_text("what a run that was removed came to")
    with pytest.raises(BenchmarkError, match=r"1 failed.*\n  small-toy-mc-s0: DivergedError: ") as failed:
        run_benchmark(file, tmp_path / "runs", hooks, max_concurrent=1)
    result = failed.value.result
    assert [r.policy for r in result.rows if not r.scripted] == ["bc", "filtered-bc"]
    assert list(json.loads(result.file.read_text())["failed"]) == ["small-toy-mc-s0"]


@pytest.mark.slow
def test_cells_have_room_for_their_rollout_actors_or_are_refused(tmp_path, ray_cluster, toy):
    file = tmp_path / "small.yaml"
    suite = SUITE.replace("TOY", str(toy)) + "  resources: {rollout_actors: 1}\n"
    file.write_text(suite)
    result = run_benchmark(file, tmp_path / "runs", Hooks(Display(quiet=True)))
    assert [(r.policy, r.seeds) for r in result.rows if not r.scripted] == [("bc", [0, 1]), ("mc", [0, 1])]
    file.write_text(suite + "gpus_per_cell: 1000\n")
    with pytest.raises(ConfigError, match="other-toy-bc-s0 needs 1000 GPUs, the cluster has"):
        run_benchmark(file, tmp_path / "runs", Hooks(Display(quiet=True)), name="other")
    assert not (tmp_path / "runs" / "benchmarks" / "other").exists()
