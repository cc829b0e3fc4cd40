"""A real tracking server with a password: it goes away and comes back, refuses, and keeps policies."""

import json
import shutil

import pytest
from mlflow_server import PASSWORD, USER, MlflowServer

from lmrl_ray import journal
from lmrl_ray.mlflow_store import TrackingError, import_mlflow
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import find_policy, resolve_config
from lmrl_ray.tracking import send_rest
from lmrl_ray.train import Hooks, train

pytestmark = pytest.mark.slow
STEPS = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory, fresh_mlflow_db):
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(fresh_mlflow_db, folder / "mlflow.db")
    server = MlflowServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server, monkeypatch):
    """Of the server, which the environment names from now on."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    return import_mlflow().MlflowClient(server.uri)


@pytest.fixture
def config(toy, toy_policy, toy_data):
    options = {
        "plugins": [toy],
        "init": str(toy_policy),
        "data": str(toy_data),
        "optimizer": {"engine": "torch"},
        "training": {"steps": STEPS, "batch_episodes": 4, "save_every": 3, "log_every": 1},
        "resources": {"slots": 5},
    }
    return resolve_config("bc", "toy", options=options)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs"


def assert_everything_is_there(client, folder):
    run_id = json.loads((folder / "mlflow.json").read_text())["run_id"]
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == folder.name
    assert run.data.params["training.steps"] == str(STEPS)
    assert run.data.tags["algo"] == "bc"
    written = journal.read(folder / "metrics.jsonl")
    assert [e.step for e in written] == list(range(1, STEPS + 1))
    assert set(run.data.metrics) >= {k for e in written for k in e.metrics}
    for key in ("loss", "seconds_per_step"):
        found = [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, key)]
        assert found == [(e.step, e.metrics[key], int(e.time * 1000)) for e in written if key in e.metrics]
    score = json.loads((folder / "evaluation.json").read_text())
    assert [m.value for m in client.get_metric_history(run_id, "final/return")] == [score["raw_return"]]
    kept = {a.path for a in client.list_artifacts(run_id)}
    assert kept == {"evaluation.json", "sample_episodes.txt", "policy"}
    assert not (folder / "unsent.jsonl").exists()


def test_a_wrong_password_is_an_error_at_the_start(server, client, config, out, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(TrackingError, match=r"refuses us .*MLFLOW_TRACKING_PASSWORD"):
        train(config, out, Hooks(Display(quiet=True)), "refused")
    assert not (out / "refused").exists()


def test_a_policy_is_registered_with_its_evaluation_and_evaluated_from_there(
    client, toy, toy_policy, out, lmrl
):
    given = ("toy", "--episodes", 10, "--plugin", toy, "--json", "--out", out)
    first = lmrl("eval", toy_policy, *given, "--register", "toy-player", "--decoding", "greedy")
    assert first.code == 0, first.stderr
    assert "registered: models:/toy-player/1" in first.stderr
    version = client.get_model_version("toy-player", "1")
    assert json.loads(version.tags["decoding"])["mode"] == "greedy"
    again = lmrl("eval", "models:/toy-player/1", *given)
    assert again.code == 0, again.stderr
    assert again.json[-1] == first.json[-1]
    (copy,) = (out / "registered").iterdir()
    assert find_policy("models:/toy-player/1", out) == copy
    weights = copy / "policy" / "model.safetensors"
    assert weights.read_bytes() == (toy_policy / "model.safetensors").read_bytes()


def test_training_goes_on_while_the_server_is_away_and_every_figure_arrives_once(
    server, client, config, out, capsys, monkeypatch
):
    """One run loses the server on the way, one begins without it; both are recorded when it is back."""

    def stop_the_server(step, _):
        if step == 3:
            server.stop()

    quiet = Display(quiet=True)
    lost = train(config, out, Hooks(quiet, on_metrics=stop_the_server), "lost")
    assert lost.mlflow_run
    printed = capsys.readouterr().err
    assert printed.count("warning: lost: MLflow at") == 1
    assert "lost: not all of it is in MLflow yet" in printed
    assert f"lmrl sync {lost.folder} --out {out}" in printed

    late = train(config, out, Hooks(quiet), "late")
    assert late.mlflow_run == ""
    assert late.evaluation.score == lost.evaluation.score
    with pytest.raises(TrackingError, match="does not answer"):
        send_rest(late.folder, out)

    server.start()
    # Where the run is sent is known; only the password is not kept.
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    for run in (lost, late):
        assert "has everything" in send_rest(run.folder, out)
        assert_everything_is_there(client, run.folder)
    send_rest(lost.folder, out)
    assert_everything_is_there(client, lost.folder)
    assert PASSWORD not in "".join(p.read_text() for p in out.glob("*/mlflow.json"))
