"""A sweep's searcher, stop rules and placement, without running a trial."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from lmrl_ray.cluster import outside_bundles, room_for
from lmrl_ray.config import ConfigError, ResourcesConfig
from lmrl_ray.sweep import SweepConfig
from lmrl_ray.sweep.tuning import _scheduler, _searcher, _stopper, trial_bundles

SPACE = {"a.x": {"uniform": [0.0, 1.0]}, "a.y": {"loguniform": [1e-4, 1.0]}, "a.z": {"choice": ["u", "v"]}}


def sweep(**over):
    return SweepConfig.model_validate({"algo": "bc", "task": "toy", "space": SPACE, **over})


def proposals(seed, count):
    """What Optuna proposes for a metric that is best at x = 0.3, y = 0.01, z = v."""
    config = sweep(search="optuna", optuna={"random_trials": 8})
    searcher = _searcher(config, seed, None)
    space = {key: drawn.domain() for key, drawn in config.space.items()}
    assert searcher.set_search_properties("score", "max", space)
    drawn = []
    for i in range(count):
        values = searcher.suggest(str(i))
        miss = abs(values["a.x"] - 0.3) + abs(np.log10(values["a.y"]) + 2) + (values["a.z"] != "v")
        searcher.on_trial_complete(str(i), {"score": -miss, "training_iteration": 1})
        drawn.append((miss, values))
    return drawn


def test_optuna_proposes_better_values_than_it_began_with_and_the_same_ones_for_a_seed():
    drawn = proposals(0, 40)
    assert np.mean([miss for miss, _ in drawn[-10:]]) < 0.5 * np.mean([miss for miss, _ in drawn[:8]])
    assert proposals(0, 12) == drawn[:12]
    assert proposals(1, 12) != drawn[:12]


def test_a_trial_is_over_at_its_last_step_or_at_the_target():
    rule = _stopper(sweep(metric="m", stop={"target": 0.5}), 10)
    assert [rule("t", {"step": s, "m": m}) for s, m in ((1, 0.4), (2, 0.5), (10, 0.1))] == [False, True, True]
    lowest = _stopper(sweep(metric="m", mode="min", stop={"target": 0.5}), 10)
    assert [lowest("t", {"step": 1, "m": m}) for m in (0.6, 0.5)] == [False, True]


def test_a_trial_on_a_plateau_is_over_and_another_is_not():
    rule = _stopper(sweep(metric="m", stop={"plateau": {"std": 0.1, "reports": 3}}), 100)
    for step in (1, 2):
        assert not rule("flat", {"step": step, "m": 1.0})
        assert not rule("rising", {"step": step, "m": step})
    assert rule("flat", {"step": 3, "m": 1.05})
    assert not rule("rising", {"step": 3, "m": 3})


def test_a_population_shifts_a_choice_to_its_neighbour_and_scales_a_range():
    scheduler = _scheduler(sweep(scheduler="pbt", trials=4), 100)
    mutations = scheduler._hyperparam_mutations
    assert mutations["a.z"] == ["u", "v"]
    assert (mutations["a.x"].lower, mutations["a.x"].upper) == (0.0, 1.0)


def test_a_trial_reserves_its_learner_and_its_rollout_actors():
    here = ResourcesConfig(
        cpus_per_worker=2, gpus_per_worker=1, rollout_actors=2, gpus_per_actor=0.25, actor_resource="sim"
    )
    actor = {"CPU": 1.0, "GPU": 0.25, "sim": 0.01}
    assert trial_bundles(here) == [{"CPU": 2.0, "GPU": 1.0}, actor, actor]
    elsewhere = ResourcesConfig(workers=2, rollout_actors=1)
    assert trial_bundles(elsewhere) == [{"CPU": 0.01}, {"CPU": 1.0}]


def trials_at_once(resources, max_concurrent=None):
    bundles = trial_bundles(resources) + outside_bundles(resources)
    return room_for({"a trial": (bundles, resources)}, max_concurrent)


@pytest.fixture
def ray_of_8_cpus_and_4_gpus(monkeypatch):
    has = {"CPU": 8.0, "GPU": 4.0}
    ray = SimpleNamespace(is_initialized=lambda: True, cluster_resources=lambda: has)
    monkeypatch.setitem(sys.modules, "ray", ray)


@pytest.mark.usefixtures("ray_of_8_cpus_and_4_gpus")
def test_trials_with_learner_workers_run_as_many_at_a_time_as_fit():
    assert trials_at_once(ResourcesConfig(rollout_actors=2)) is None
    assert trials_at_once(ResourcesConfig(rollout_actors=2), 3) == 3
    assert trials_at_once(ResourcesConfig(workers=1, rollout_actors=1)) == 2
    assert trials_at_once(ResourcesConfig(workers=1, rollout_actors=1), 3) == 2
    assert trials_at_once(ResourcesConfig(workers=1, rollout_actors=1), 1) == 1
    assert trials_at_once(ResourcesConfig(workers=2, gpus_per_worker=1)) == 2
    with pytest.raises(
        ConfigError, match=r"a trial needs 9\.01 CPUs, the cluster has 8; ask for fewer, or add"
    ):
        trials_at_once(ResourcesConfig(workers=9))


@pytest.mark.usefixtures("ray_of_8_cpus_and_4_gpus")
def test_jobs_of_learner_workers_are_counted_beside_others_that_need_as_much():
    with_actor, with_worker = ResourcesConfig(rollout_actors=1), ResourcesConfig(workers=1)
    bundles = [{"CPU": 1.0}] * 2
    assert room_for({"a": (bundles, with_actor), "b": (bundles, with_worker)}, None) == 4


def test_the_autoscaler_is_asked_once_for_what_runs_at_a_time(monkeypatch):
    asked = []
    monkeypatch.setattr("lmrl_ray.cluster.ensure_room", lambda *room: asked.append(room))
    need = [{"CPU": 1.0}] * 3, ResourcesConfig(rollout_actors=2, wait_for_nodes_s=5)
    room_for({"one": need, "two": need}, 3)
    assert asked == [([{"CPU": 1.0}] * 3, "one needs", 5.0, 3)]
