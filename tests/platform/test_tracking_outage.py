"""A store that does not answer for a while: nothing waits for it, nothing is lost, nothing comes twice."""

import json

import pytest
from requests.exceptions import ConnectionError

from lmrl_ray import tracking
from lmrl_ray.journal import Entry, Journal
from lmrl_ray.mlflow_store import TrackingError, import_mlflow, tracking_uri
from lmrl_ray.outbox import Outbox
from lmrl_ray.tracking import Tracker, send_rest


@pytest.fixture
def client(out):
    return import_mlflow().MlflowClient(tracking_uri(out))


class Store:
    """MLflow's client, which can be made to fail."""

    def __init__(self, client):
        self.client = client
        self.error = None
        self.requests = []

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*args, **kwargs):
            if self.error is not None:
                raise self.error
            self.requests.append(name)
            return method(*args, **kwargs)

        return call


@pytest.fixture
def store(client, monkeypatch):
    store = Store(client)
    monkeypatch.setattr(tracking, "client_of", lambda uri, folder: store)
    monkeypatch.setattr(tracking, "_FIRST_PAUSE_S", 0.0)
    return store


def runs_of(client):
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def entry(step, loss=None):
    return Entry(step, 1_700_000_000.0 + step, {"loss": 1.0 / step if loss is None else loss})


def losses(client, run_id):
    return [(m.step, m.value) for m in client.get_metric_history(run_id, "loss")]


def test_what_did_not_arrive_is_sent_in_order_when_the_store_is_back(store, client, out, capsys):
    tracker = Tracker(out, out / "run")
    tracker.log([entry(1)])
    store.error = ConnectionError("gone")
    tracker.log([entry(2)])
    tracker.set_tags({"a": "1"})
    tracker.set_tags({"a": "2"})
    tracker.log_scores({"final/return": -1.0})
    tracker.log([entry(3)])
    assert tracker.unsent
    assert capsys.readouterr().err.count("warning: run: ") == 1
    store.error = None
    tracker.log([])
    assert not tracker.unsent
    assert "is back" in capsys.readouterr().err
    assert losses(client, tracker.run_id) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    run = client.get_run(tracker.run_id)
    assert (run.data.tags["a"], run.data.metrics["final/return"]) == ("2", -1.0)
    assert [p.name for p in (out / "run").iterdir() if p.name[0] != "."] == ["mlflow.json"]


def test_a_store_that_was_away_a_moment_ago_is_not_asked_again_at_once(store, out, monkeypatch):
    monkeypatch.setattr(tracking, "_FIRST_PAUSE_S", 60.0)
    tracker = Tracker(out, out / "run")
    store.error = ConnectionError("gone")
    tracker.log([entry(1)])
    store.error = None
    before = len(store.requests)
    tracker.log([entry(2)])
    tracker.set_tags({"a": "1"})
    assert len(store.requests) == before
    tracker.finish("FINISHED")  # the last chance
    assert not tracker.unsent


def test_steps_that_a_restart_trained_again_during_the_outage_arrive_once(store, client, out):
    tracker = Tracker(out, out / "run")
    store.error = ConnectionError("gone")
    tracker.log([entry(s, 0.1) for s in (1, 2, 3)])
    tracker.log([entry(1, 0.1), entry(2, 0.2), entry(3, 0.3)])
    store.error = None
    tracker.log([])
    assert losses(client, tracker.run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_driver_that_was_killed_during_the_outage_leaves_all_to_be_sent(store, client, out):
    home = out / "run"
    tracker = Tracker(out, home)
    journal = Journal(home / "metrics.jsonl", 0)
    store.error = ConnectionError("gone")
    for step in (1, 2):
        journal.append(entry(step))
    tracker.log([entry(1), entry(2)])
    tracker.log_text("said", "sample.txt")
    with (home / "unsent.jsonl").open("a") as file:
        file.write('{"do": "tags", "ta')
    with pytest.raises(TrackingError, match="does not answer"):
        send_rest(home, out)
    store.error = None
    send_rest(home, out)
    send_rest(home, out)
    assert losses(client, tracker.run_id) == [(1, 1.0), (2, 0.5)]
    assert [a.path for a in client.list_artifacts(tracker.run_id)] == ["sample.txt"]


def test_a_line_that_was_torn_takes_no_later_one_with_it(store, client, out):
    home = out / "run"
    tracker = Tracker(out, home)
    store.error = ConnectionError("gone")
    tracker.set_tags({"a": "1"})
    with (home / "unsent.jsonl").open("a") as file:
        file.write('{"do": "tags", "ta')  # the disk was full
    tracker.set_tags({"b": "2"})
    store.error = None
    send_rest(home, out)
    tags = client.get_run(tracker.run_id).data.tags
    assert (tags["a"], tags["b"]) == ("1", "2")


def test_a_run_that_the_store_made_without_our_hearing_of_it_is_not_made_twice(store, client, out):
    def made_but_not_heard_of(*args, **kwargs):
        client.create_run(*args, **kwargs)
        raise ConnectionError("the answer was lost")

    store.create_run = made_but_not_heard_of
    tracker = Tracker(out, out / "run")
    assert tracker.run_id == ""
    del store.create_run
    tracker.set_tags({"a": "1"})
    (run,) = runs_of(client)
    assert (run.info.run_id, run.data.tags["a"]) == (tracker.run_id, "1")


def test_a_sync_beside_the_run_makes_no_second_one(store, client, out):
    store.error = ConnectionError("gone")
    tracker = Tracker(out, out / "run")
    tracker.set_tags({"a": "1"})
    store.error = None
    assert send_rest(out / "run", out).endswith("has everything (run " + runs_of(client)[0].info.run_id + ")")
    tracker.set_tags({"b": "2"})
    tracker.finish("FINISHED")
    (run,) = runs_of(client)
    assert (run.info.status, run.data.tags["a"], run.data.tags["b"]) == ("FINISHED", "1", "2")


def test_a_run_that_began_elsewhere_is_not_looked_for_without_advice(out, tmp_path):
    tracker = Tracker(out, out / "run")
    identity = json.loads((out / "run" / "mlflow.json").read_text())
    assert identity["run_id"] == tracker.run_id
    with pytest.raises(TrackingError, match=r"does not know the run .*; name the place .*: --out, or MLFLOW"):
        Tracker(tmp_path / "elsewhere", out / "run")


def test_a_parent_of_others_does_not_begin_without_the_store(store, out):
    store.error = ConnectionError("gone")
    with pytest.raises(TrackingError, match="does not answer"):
        Tracker(out, out / "sweep", required=True)
    assert not (out / "sweep").exists()


def test_what_the_store_will_not_take_stops_no_training_and_is_named(store, out, capsys):
    tracker = Tracker(out, out / "run")
    store.error = import_mlflow().exceptions.MlflowException("the run was deleted")
    tracker.log([entry(1)])
    tracker.finish("FINISHED")
    printed = capsys.readouterr().err
    assert "the run was deleted" in printed
    assert f"lmrl sync {out / 'run'} --out {out}" in printed


def test_a_full_disk_is_said_and_hides_no_other_error(store, out, capsys, monkeypatch):
    tracker = Tracker(out, out / "run")

    def full(self, operation):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Outbox, "append", full)
    tracker.finish("FAILED")
    assert "warning: run: could not be written down for MLflow ([Errno 28]" in capsys.readouterr().err


def test_a_folder_that_is_gone_is_named_and_left_out(store, client, out, capsys):
    tracker = Tracker(out, out / "run")
    store.error = ConnectionError("gone")
    tracker.log_folder(out / "run" / "pruned", "policy")
    tracker.set_tags({"after": "it"})
    store.error = None
    tracker.log([])
    assert f"{out / 'run' / 'pruned'} was removed" in capsys.readouterr().err
    assert client.get_run(tracker.run_id).data.tags["after"] == "it"


def test_an_operation_that_fails_stays_with_those_behind_it(tmp_path):
    outbox = Outbox(tmp_path)
    for number in range(4):
        outbox.append({"do": "x", "number": number})
    sent = []

    def send_two(operation):
        if len(sent) == 2:
            raise OSError("away")
        sent.append(operation["number"])

    with pytest.raises(OSError, match="away"):
        outbox.send(send_two)
    waiting = [json.loads(line)["number"] for line in (tmp_path / "unsent.jsonl").read_text().splitlines()]
    assert (sent, waiting, bool(outbox)) == ([0, 1], [2, 3], True)
    outbox.send(lambda operation: sent.append(operation["number"]))
    assert (sent, bool(outbox)) == ([0, 1, 2, 3], False)


def test_sync_of_a_folder_that_is_no_run_is_one_clear_line(lmrl, out):
    answer = lmrl("sync", "nothing", "--out", out)
    assert (answer.code, answer.stdout) == (1, "")
    assert "nothing" in answer.stderr
    assert answer.stderr.startswith("error: ")
