"""One cluster, from `ray up` to `ray down`: a training and a sweep end right although each loses a host.

The tests go on with the cluster as the one before left it, in the order in which they stand here.
"""

import json
from pathlib import Path

import pytest
from hosts import ROOT
from support import tiny_language_model
from under_test import KINDS, ended_well, say, wait_until

from lmrl_ray import journal

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
TOY = "tests/platform/toy.py"
SWEEP = Path(__file__).with_name("sweep.yaml").relative_to(ROOT)
LEARNER, TRIAL, ROLLOUTS = "RayTrainWorker", "ImplicitFunc", "RolloutWorker"
"""What the actors are called: Ray Train's, Ray Tune's, ours."""
STEPS, EVERY = 60, 10
"""Of the training, and between its checkpoints."""


@pytest.fixture(scope="module", autouse=True)
def start(cluster):
    """A policy to start from, where jobs look for runs."""
    texts = ["Animal 3?\nNo, 71.\nYes.\n", "ant\n", "bee\n", "cat\n"]
    tiny_language_model(texts).save(cluster.runs / "start" / "policy")


def kind_of(node):
    return next((kind for kind in KINDS if kind in node), "head")


def json_in(printed):
    """The object at the end of a job's log."""
    return json.loads(printed[printed.rindex("\n{\n") :])


def test_a_training_whose_learner_loses_its_host_ends_with_every_step_once_and_a_score(cluster):
    nodes = cluster.nodes()
    cpus = min(n["CPU"] for n in nodes.values() if "learner" in n)
    settings = {
        "data_episodes": 40,
        "resources.learner_resource": "learner",
        "resources.actor_resource": "simulator",
        "resources.cpus_per_worker": cpus,  # all of a host, so that each learner has one to itself
        "optimizer.zero_stage": 2,
        "training.steps": STEPS,
        "training.save_every": EVERY,
        "training.log_every": 1,
        "training.batch_episodes": 8,
    }
    assigned = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    options = ["--plugin", TOY, "--init", "start", "--workers", 2, "--rollout-actors", 2, "--json"]
    run = cluster.runs / "hosts"
    with cluster.lmrl("submit", "--", "train", "ilql", "toy", "--name", "hosts", *options, *assigned) as job:

        def steps():
            return [e.step for e in journal.read(run / "metrics.jsonl")]

        def two_learners():
            places = cluster.places(LEARNER, alive=True)
            return places if len(places) == 2 else None

        first = wait_until(two_learners, "two learners", job)
        wait_until(lambda: len(steps()) > EVERY + 1, "the first checkpoint", job)
        cluster.lose(first[1])
        lost_at = steps()[-1]
        say(f"a learner's host is lost at step {lost_at}")
        printed = ended_well(job)

    assert [kind_of(nodes[node]) for node in first] == ["learner"] * 2
    assert len(set(first)) == 2
    assert EVERY < lost_at < STEPS
    second = [node for node in cluster.places(LEARNER) if node not in first]
    assert len(cluster.places(LEARNER)) == 4
    assert [kind_of(nodes[node]) for node in second] == ["learner"]
    assert [kind_of(nodes[node]) for node in cluster.places(ROLLOUTS)] == ["simulator"] * 2
    assert first[1] not in cluster.nodes()

    assert steps() == list(range(1, STEPS + 1))
    score = json_in(printed)
    assert (score["policy"], score["episodes"], score["failed"]) == ("ilql", 10, 0)
    assert -4.0 <= score["raw_return"] <= 0.0
    assert json.loads((run / "evaluation.json").read_text())["raw_return"] == score["raw_return"]


def test_a_sweep_that_loses_the_host_of_a_trial_finishes_all_trials(cluster):
    on_learners = ["--set", "resources.learner_resource=learner", "--max-concurrent", 2]
    with cluster.lmrl("submit", "--", "sweep", SWEEP, "--json", *on_learners) as job:

        def under_way():
            journals = cluster.runs.glob("sweep-*/metrics.jsonl")
            return [path for path in journals if 5 < len(journal.read(path)) < 30]

        wait_until(under_way, "a trial in its middle", job)
        lost = cluster.places(TRIAL, alive=True)[0]
        cluster.lose(lost)
        say("a trial's host is lost")
        printed = ended_well(job)

    assert lost not in cluster.nodes()
    trials = json_in(printed)["trials"]
    assert [(t["status"], t["steps"]) for t in trials] == [("done", 40)] * 4
    for trial in trials:
        entries = journal.read(cluster.runs / trial["name"] / "metrics.jsonl")
        assert [e.step for e in entries] == list(range(1, 41))
        assert (cluster.runs / trial["name"] / "evaluation.json").is_file()


def test_a_job_is_looked_at_and_stopped(cluster):
    long = ["--plugin", TOY, "--init", "start", "--set", "training.steps=100000"]
    job = cluster.answer("submit", "--detach", "--", "train", "bc", "toy", "--name", "long", *long).strip()

    def status():
        (row,) = json.loads(cluster.answer("status", job, "--json"))
        return row["status"]

    def learns():
        assert status() in ("PENDING", "RUNNING"), cluster.answer("status", job, "--log")
        return (cluster.runs / "long" / "metrics.jsonl").exists()

    wait_until(learns, "the first step")
    assert job in cluster.answer("status")
    cluster.answer("stop", job)
    wait_until(lambda: status() == "STOPPED", "the job's end")


def test_down_leaves_no_process_of_ray_on_any_host(cluster):
    cluster.down()
    wait_until(lambda: not cluster.left_over(), "the end of Ray on all hosts")
