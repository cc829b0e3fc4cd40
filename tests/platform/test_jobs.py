"""`lmrl submit`, `status`, `stop`: against a Ray of this machine with its dashboard, and without one."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from lmrl_ray.jobs import JobError, runtime_environment

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Ray's variables, which `connect` sets, do not outlive a test."""
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def refused(answer, *parts):
    """The command failed with one clear line that holds the parts."""
    lines = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    return answer.code == 1 and answer.stdout == "" and len(lines) == 1 and all(p in lines[0] for p in parts)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_no_cluster_is_one_clear_line(lmrl, clean):
    address = f"http://127.0.0.1:{free_port()}"
    answer = lmrl("submit", "--address", address, "--", "tasks")
    assert refused(answer, address, "no Ray cluster answers", "docs/cluster.md", "--address")


def test_the_address_given_counts_more_than_the_one_in_the_environment(lmrl, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    address = f"http://127.0.0.1:{free_port()}"
    assert refused(lmrl("status", "--address", address), address)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    assert refused(lmrl("status"), "http://127.0.0.1:1")


def test_a_job_gets_the_checkout_without_what_is_no_code():
    environment = runtime_environment(None, None, ["LMRL_OUT=/shared/a=b"])
    assert environment["working_dir"] == str(ROOT)
    assert {"/runs/", "/.venv/", "/.git/"} <= set(environment["excludes"])
    assert environment["env_vars"]["LMRL_OUT"] == "/shared/a=b"


def test_a_wheel_goes_in_place_of_the_checkout(tmp_path):
    wheel = tmp_path / "lmrl_ray-0.1.0-py3-none-any.whl"
    wheel.touch()
    environment = runtime_environment(None, wheel, [])
    assert environment["py_modules"] == [str(wheel)]
    assert "working_dir" not in environment


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((Path("missing"), None, []), "--working-dir missing"),
        ((None, Path("missing.whl"), []), "--wheel missing.whl"),
        ((None, None, ["LMRL_OUT"]), "NAME=VALUE"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(arguments, part):
    with pytest.raises(JobError, match=re.escape(part)):
        runtime_environment(*arguments)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A head with a dashboard and a token, as processes that end with the test; the dashboard's address."""
    home = tmp_path_factory.mktemp("home")
    port, dashboard = free_port(), free_port()
    token = home / "token"
    token.write_text("a" * 64)
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
    }
    # A folder of its own, or else every other Ray of this machine would find this one. Sockets lie in it,
    # whose paths may not be long.
    with open(home / "log", "w") as log, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        ray = subprocess.Popen(
            [
                *(BIN / "ray", "start", "--head", "--block", "--num-cpus=1", "--disable-usage-stats"),
                *("--node-ip-address=127.0.0.1", f"--port={port}", f"--ray-client-server-port={free_port()}"),
                *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
                *(
                    "--dashboard-agent-listen-port=0",
                    "--object-store-memory=100000000",
                    f"--temp-dir={folder}",
                ),
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )
        yield f"http://127.0.0.1:{dashboard}", token, ray, home / "log"
        ray.terminate()
        ray.wait(timeout=60)


@pytest.fixture
def cluster(head, monkeypatch):
    """The head's address once it answers; this process has its token."""
    address, token, ray, log = head
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    deadline = time.monotonic() + 90
    while True:
        try:
            request = urllib.request.Request(
                f"{address}/api/version", headers={"Authorization": f"Bearer {token.read_text()}"}
            )
            urllib.request.urlopen(request, timeout=5)
            return address
        except (urllib.error.URLError, OSError):
            assert ray.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)


@pytest.mark.slow
def test_a_job_prints_its_log_and_ends_with_its_exit_code(cluster, started):
    def run(*arguments):
        process = started(*arguments, RAY_AUTH_TOKEN_PATH=os.environ["RAY_AUTH_TOKEN_PATH"])
        stdout, stderr = process.communicate(timeout=200)
        return process.returncode, stdout, stderr

    code, stdout, stderr = run("submit", "--address", cluster, "--", "tasks", "--json")
    assert code == 0, stdout + stderr
    printed = stdout[stdout.index("[\n") : stdout.rindex("]") + 1]
    assert "maze-fo" in {row["id"] for row in json.loads(printed)}
    job = re.search(r"job: (\S+)", stderr).group(1)

    code, stdout, _ = run("status", job, "--json", "--address", cluster)
    assert code == 0
    (row,) = json.loads(stdout)
    assert (row["job"], row["status"], row["exit_code"]) == (job, "SUCCEEDED", 0)
    assert row["command"] == "python -m lmrl_ray tasks --json"

    # The command line's parser ends with 2, our own errors with 1: the job's code, not a code of ours.
    code, stdout, _ = run("submit", "--address", cluster, "--", "train", "ilql")
    assert code == 2
    assert "name an algorithm and a task" in stdout
    code, stdout, _ = run("submit", "--address", cluster, "--", "eval", "no-such-run", "maze-fo")
    assert code == 1
    assert "error: " in stdout

    code, stdout, _ = run("stop", "no-such-job", "--address", cluster)
    assert code == 1


@pytest.mark.slow
def test_a_cluster_with_a_token_takes_no_job_without_it(cluster, lmrl, monkeypatch, tmp_path):
    other = tmp_path / "token"
    other.write_text("b" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    assert refused(lmrl("status", "--address", cluster), "refuses the token", cluster)
