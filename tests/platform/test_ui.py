"""`lmrl ui`: the runs in a browser of this machine, nothing beyond it, nothing left of it."""

import signal
import socket
import urllib.error
import urllib.request

import psutil
import pytest

from lmrl_ray.mlflow_store import import_mlflow
from lmrl_ray.tracking import Tracker
from lmrl_ray.ui import _from_anywhere


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def refused(answer, *parts):
    """One clear line that holds the parts."""
    (line,) = answer.stderr.splitlines()
    return answer.code == 1 and line.startswith("error: ") and all(p in line for p in parts)


def test_it_listens_beyond_this_machine_only_when_told_twice(lmrl, out):
    for host in ("0.0.0.0", "::", "192.0.2.1", "runs.example"):
        answer = lmrl("ui", "--out", out, "--host", host)
        assert refused(answer, f"--host {host}", "no password", "--expose")


def test_a_port_that_is_taken_is_one_clear_line(lmrl, out):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(lmrl("ui", "--out", out, "--port", port), f"--port {port}", "in use")


def test_where_the_runs_are_on_a_server_it_says_so_without_the_password(lmrl, out, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@tracking.example:5000")
    answer = lmrl("ui", "--out", out)
    assert refused(answer, "http://tracking.example:5000", "a server already")
    assert "secret" not in answer.stderr


def test_a_folder_without_runs_is_not_served_and_not_made(lmrl, tmp_path):
    assert refused(lmrl("ui", "--out", tmp_path / "rnus"), "rnus: there are no runs here")
    assert not list(tmp_path.iterdir())


def fetched(address, host="localhost"):
    request = urllib.request.Request(address, headers={"Host": host})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_runs_and_artifacts_are_served_to_this_machine_and_ctrl_c_leaves_nothing(started, out):
    tracker = Tracker(out, out / "run")
    tracker.log_text("what was said", "sample.txt")
    port = free_port()
    process = started("ui", "--out", out, "--port", port)
    assert process.stdout.readline() == f"MLflow: http://127.0.0.1:{port}   (Ctrl-C ends it)\n"
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listening = {c.laddr for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert {(a.ip, a.port) for a in listening} == {("127.0.0.1", port)}

    address = f"http://127.0.0.1:{port}"
    assert "<html" in fetched(address, f"localhost:{port}")
    artifact = f"{address}/get-artifact?run_uuid={tracker.run_id}&path=sample.txt"
    assert fetched(artifact, f"localhost:{port}") == "what was said"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetched(address, "a.stranger.example")
    run = import_mlflow().MlflowClient(address).get_run(tracker.run_id)
    assert run.info.artifact_uri.startswith((out / "mlartifacts").as_uri())

    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_relative_database_is_the_one_that_training_wrote(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _from_anywhere("sqlite:///mlflow.db") == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    for uri in ("sqlite:////elsewhere/mlflow.db", "http://localhost:5000"):
        assert _from_anywhere(uri) == uri
