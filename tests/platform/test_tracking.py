"""What stands in MLflow after a run, however it went."""

import json
import multiprocessing
import sqlite3

import pytest

from lmrl_ray.journal import Entry
from lmrl_ray.mlflow_store import EXPERIMENT, import_mlflow, look_at_it, tracking_uri
from lmrl_ray.tracking import Tracker, flatten
from lmrl_ray.train import following_status, leading


@pytest.fixture
def client(out):
    return import_mlflow().MlflowClient(tracking_uri(out))


@pytest.fixture
def status(client):
    return lambda tracker: client.get_run(tracker.run_id).info.status


def entry(step, **metrics):
    return Entry(step, 1_700_000_000.0 + step, {"loss": 1.0 / step, **metrics})


def steps(client, run_id, key="loss"):
    return [m.step for m in client.get_metric_history(run_id, key)]


def test_metrics_arrive_in_few_requests(out, client, monkeypatch):
    tracker = Tracker(out, out / "run")
    requests = []
    log_batch = type(client).log_batch
    monkeypatch.setattr(
        type(client), "log_batch", lambda *a, **k: requests.append(len(k["metrics"])) or log_batch(*a, **k)
    )
    tracker.log([entry(s, a=s, b=-s) for s in range(1, 51)])
    assert requests == [150]
    assert steps(client, tracker.run_id, "b") == list(range(1, 51))
    found = client.get_metric_history(tracker.run_id, "a")[7]
    assert (found.value, found.step, found.timestamp) == (8.0, 8, 1_700_000_008_000)


def test_more_metrics_than_a_request_takes_arrive_all(out, client):
    tracker = Tracker(out, out / "run")
    tracker.log([entry(s, a=0.0, b=1.0) for s in range(1, 801)])
    for key in ("loss", "a", "b"):
        assert steps(client, tracker.run_id, key) == list(range(1, 801))


def test_a_step_is_logged_once(out, client):
    tracker = Tracker(out, out / "run")
    tracker.log([entry(1), entry(2)])
    tracker.log([])
    tracker.log([entry(1), entry(2), entry(3)])
    assert steps(client, tracker.run_id) == [1, 2, 3]


@pytest.mark.parametrize("metric", ["loss", "own/figure"])
def test_a_resumed_run_goes_on_without_repeating_a_step(out, client, status, metric):
    tracker = Tracker(out, out / "run")
    tracker.log([Entry(s, 0.0, {metric: 1.0}) for s in (10, 20, 30)])
    tracker.finish("FAILED")
    again = Tracker(out, out / "run")
    assert status(again) == "RUNNING"
    again.log([Entry(s, 99.0, {metric: 1.0}) for s in (20, 30, 40)])
    again.finish("FINISHED")
    assert steps(client, tracker.run_id, metric) == [10, 20, 30, 40]
    assert status(tracker) == "FINISHED"
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    assert len(client.search_runs([experiment])) == 1


def test_the_final_scores_do_not_stop_a_resumed_run_from_logging(out, client):
    tracker = Tracker(out, out / "run")
    tracker.log([entry(5)])
    tracker.log_scores({"final/return": -3.0})
    again = Tracker(out, out / "run")
    again.log([entry(5), entry(6)])
    assert steps(client, tracker.run_id) == [5, 6]
    assert client.get_run(tracker.run_id).data.metrics["final/return"] == -3.0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, "FINISHED"),
        (RuntimeError("broken"), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
        (SystemExit(1), "FAILED"),
        (SystemExit(0), "FINISHED"),  # so Ray Tune stops a trial
    ],
)
def test_a_run_ends_as_what_happened(out, status, error, expected):
    def body():
        if error:
            raise error

    tracker = Tracker(out, out / "run")
    assert status(tracker) == "RUNNING"
    if error is None:
        with following_status(tracker):
            body()
    else:
        with pytest.raises(type(error)), following_status(tracker):
            body()
    assert status(tracker) == expected


def test_children_hang_below_their_parent_and_end_with_it(out, client, status):
    parent = Tracker(out, out / "sweep")
    stopped, failed, killed, stranger = (
        Tracker(out, out / "a", parent_id=parent.run_id),
        Tracker(out, out / "b", parent_id=parent.run_id),
        Tracker(out, out / "killed", parent_id=parent.run_id),
        Tracker(out, out / "c"),
    )
    failed.finish("FAILED")
    parent.close_children(failed=["b", "killed"])
    assert [status(t) for t in (stopped, failed, killed, stranger)] == [
        "FINISHED",
        "FAILED",
        "FAILED",
        "RUNNING",
    ]
    assert "stopped_by" not in client.get_run(killed.run_id).data.tags
    tags = client.get_run(stopped.run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent.run_id
    assert tags["stopped_by"] == "scheduler"
    assert tags["mlflow.runName"] == "a"


def test_a_run_that_leads_others_takes_them_with_it_when_it_is_interrupted(out, status):
    parent = Tracker(out, out / "sweep")
    child = Tracker(out, out / "a", parent_id=parent.run_id)
    with pytest.raises(KeyboardInterrupt), leading(parent):
        raise KeyboardInterrupt
    assert (status(parent), status(child)) == ("KILLED", "KILLED")


def test_the_configuration_is_flat_and_stays_when_a_run_is_resumed(out, client):
    tracker = Tracker(out, out / "run")
    tracker.log_config({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}, {"data.fingerprint": "f"})
    tracker.log_config({"a": {"b": 2}, "new": "x" * 10_000}, {})
    params = client.get_run(tracker.run_id).data.params
    assert params.pop("new") == "x" * 6000
    assert params == {"a.b": "1", "a.c.d": "[1, 2]", "e": "None", "data.fingerprint": "f"}


def test_a_large_configuration_is_logged_whole(out, client):
    tracker = Tracker(out, out / "run")
    tracker.log_config({f"key{i}": i for i in range(250)}, {})
    assert len(client.get_run(tracker.run_id).data.params) == 250


def test_artifacts_lie_in_the_out_folder(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = Tracker(out, out / "run")
    (out / "run" / "policy").mkdir()
    (out / "run" / "policy" / "weights").write_text("w")
    tracker.log_table([{"policy": "bc"}], "evaluation.json")
    tracker.log_text("text", "sample.txt")
    tracker.log_folder(out / "run" / "policy", "policy")
    files = {p.name: p for p in (out / "mlartifacts").rglob("*") if p.is_file()}
    assert set(files) == {"evaluation.json", "sample.txt", "weights"}
    assert json.loads(files["evaluation.json"].read_text()) == {"rows": [{"policy": "bc"}]}
    assert not (tmp_path / "mlruns").exists()


def test_the_tracking_uri_of_the_environment_is_respected(
    out, tmp_path, fresh_mlflow_db, monkeypatch, client, status
):
    other = tmp_path / "elsewhere.db"
    other.write_bytes(fresh_mlflow_db.read_bytes())
    uri = f"sqlite:///{other}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    tracker = Tracker(out, out / "run")
    tracker.log([entry(1)])
    assert tracker.uri == uri
    assert look_at_it(out) == f"lmrl ui --out {out}"
    assert steps(import_mlflow().MlflowClient(uri), tracker.run_id) == [1]
    assert client.get_experiment_by_name(EXPERIMENT) is None


@pytest.mark.slow
def test_two_processes_may_make_the_database_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        runs = pool.starmap(_make_run, [(tmp_path, "a"), (tmp_path, "b")])
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        found = database.execute("select name from runs").fetchall()
        experiments = database.execute("select count(*) from experiments where name = ?", (EXPERIMENT,))
        assert experiments.fetchone() == (1,)
    assert len(set(runs)) == 2
    assert sorted(found) == [("a",), ("b",)]


def _make_run(folder, name):
    tracker = Tracker(folder, folder / name)
    tracker.finish("FINISHED")
    return tracker.run_id


def test_nested_sections_become_dotted_keys():
    assert flatten({"a": {"b": {"c": 1}}, "d": (1, "x")}) == {"a.b.c": 1, "d": '[1, "x"]'}
