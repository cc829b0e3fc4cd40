"""MLflow's pages over the runs of an `--out` folder, served to this machine alone unless told otherwise."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lmrl_ray.mlflow_store import (
    TrackingError,
    client_of,
    experiment_of,
    is_server,
    local_uri,
    tracking_uri,
    without_password,
)

_START_S = 180.0
"""Longest wait for the server's first answer; it imports for seconds, on a busy machine for many."""
_END_S = 10.0
_PR_SET_PDEATHSIG = 1
"""Of <sys/prctl.h>."""


def serve(out: Path, host: str, port: int, expose: bool, say: Callable[[str], None]) -> None:
    """Serve until interrupted (SIGINT, SIGTERM, SIGHUP). Raises TrackingError."""
    uri = tracking_uri(out)
    if is_server(uri):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI: the runs are at {without_password(uri)}, which is a server already"
        )
    if uri == local_uri(out) and not (out / "mlflow.db").is_file():
        raise TrackingError(f"--out {out}: there are no runs here; name the folder that they were written to")
    if not _is_loopback(host) and not expose:
        raise TrackingError(
            f"--host {host}: whoever reaches this machine could read and change all runs, as the server asks "
            f"for no password; if that is meant, add --expose (docs/tracking.md shows one with passwords)"
        )
    _check_port(host, port)
    # Ours, before a client of the server could make it with a place for artifacts that needs a server.
    experiment_of(client_of(uri, out), uri, out)
    with _stopped_by_signals(), _running(uri, out, host, port) as server:
        address = f"http://{_reached_at(host)}:{port}"
        _wait_for_answer(server, address)
        say(f"MLflow: {address}   (Ctrl-C ends it)")
        server.wait()
        raise TrackingError(f"MLflow's server ended by itself (exit code {server.returncode})")


class _Stopped(Exception):
    pass


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Leave, without an error, when one of the signals comes that end a program."""

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)  # a second one would cut the ending short
        raise _Stopped

    before = {s: signal.signal(s, stop) for s in signals}
    try:
        yield
    except _Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _running(uri: str, out: Path, host: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """The server, in a process group of its own that ends with the block."""
    options = {
        "--backend-store-uri": _from_anywhere(uri),
        "--artifacts-destination": (out / "mlartifacts").resolve().as_uri(),
        "--host": host,
        "--port": str(port),
        "--workers": "1",
        "--uvicorn-opts": "--log-level warning",
    }
    command = [sys.executable, "-m", "mlflow", "server", *(part for pair in options.items() for part in pair)]
    # Its job runner is for evaluations by language models, and would be processes more.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(
        command,
        cwd=out,
        env=environment,
        stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    try:
        yield server
    finally:
        _end(server)


def _end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent dies of something that it cannot handle itself."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(_END_S)
        os.killpg(server.pid, signal.SIGKILL)  # whoever of the group is left
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _wait_for_answer(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None and time.monotonic() < deadline:
        try:
            opener.open(f"{address}/health", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise TrackingError(f"MLflow's server did not come up at {address}; what it printed says why")


def _reached_at(host: str) -> str:
    """An address of this machine that a server bound to `host` answers at."""
    unspecified = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    return unspecified.get(host, f"[{host}]" if ":" in host else host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise TrackingError(
            f"--host {host} --port {port}: cannot be listened at ({error}); try another port"
        ) from error


def _from_anywhere(uri: str) -> str:
    """A database's relative path is meant from here, and not from where the server runs."""
    scheme, path = "sqlite:///", uri.removeprefix("sqlite:///")
    return scheme + str(Path(path).resolve()) if uri.startswith(scheme) else uri
