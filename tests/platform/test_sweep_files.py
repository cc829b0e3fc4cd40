"""The files that come with the project: a sweep for every algorithm, and each sweep and benchmark can run."""

import pytest

from algos.base import algorithm_ids, get_algorithm
from envs.registry import get_task
from lmrl_ray.benchmark import read_suite
from lmrl_ray.resolve import configs_folder
from lmrl_ray.sweep import read_sweep, trial_config
from lmrl_ray.sweep.tuning import trial_bundles

BENCHMARKS = sorted(configs_folder().glob("benchmark_*.yaml"))
FILES = sorted({*configs_folder().glob("*.yaml")} - {*BENCHMARKS})


def test_every_algorithm_has_a_file():
    known = {i for i in algorithm_ids() if get_algorithm(i).__module__.startswith("algos.")}
    assert {read_sweep(file, 0)[0].algo for file in FILES} == known


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_a_file_names_a_space_whose_draws_are_configurations(file):
    sweep, base = read_sweep(file, 0)
    algo = "chai" if (base.algo, base.decoding.mode) == ("cql", "propose") else base.algo
    assert file.stem == f"{algo}_{base.task.removesuffix('-fo')}"
    for key, drawn in sweep.space.items():
        assert len(drawn.examples()) > 1, key
    for _ in range(3):
        drawn = {key: values.domain().sample() for key, values in sweep.space.items()}
        config = trial_config(base.dump(), drawn, file.name)
        for key, value in drawn.items():
            section, _, name = key.partition(".")
            assert getattr(getattr(config, section), name) == value


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_a_file_gives_its_scheduler_scores_to_compare_and_its_trials_room(file):
    sweep, base = read_sweep(file, 0)
    training = base.training
    first = {"asha": sweep.asha.grace_steps, "pbt": sweep.pbt.interval_steps, "none": training.eval_every}
    assert training.eval_every <= first[sweep.scheduler] < training.steps
    assert training.save_every <= training.steps
    if get_task(base.task).scale.normalize(0.0) is None:
        assert sweep.metric == "eval/return"
    if sweep.search == "optuna":
        assert sweep.optuna.random_trials < sweep.trials
    head, *actors = trial_bundles(base.resources)
    assert head["CPU"] >= 1
    assert len(actors) == base.resources.rollout_actors
    # A machine with 8 cores has room for two trials.
    assert sum(b["CPU"] for b in (head, *actors)) <= 4


def test_there_are_files_of_benchmarks():
    assert {p.stem.removeprefix("benchmark_") for p in BENCHMARKS} >= {"cpu", "gpu", "learning", "smoke"}


@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda p: p.stem)
def test_a_benchmarks_file_names_cells_that_can_be_trained(file):
    suite = read_suite(file)  # and the configuration of each cell
    assert all(suite.algorithms_of(task) for task in suite.tasks)
