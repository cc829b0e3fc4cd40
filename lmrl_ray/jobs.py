"""Jobs: `lmrl` commands that a Ray cluster runs, sent and watched through its dashboard's address."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

_LOCAL = "http://127.0.0.1:8265"
_CHECKOUT = Path(__file__).parents[1]
_EXCLUDES = ("/runs/", "/mlruns/", "/.venv/", "/.git/", "/dist/", "/build/", "__pycache__/", ".*_cache/")
"""Of the working directory, in the notation of .gitignore; what .gitignore names is left out as well."""
_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_END_S = 60.0
"""Longest wait for a job's status once its log has ended."""


class JobError(RuntimeError):
    """A cluster that cannot be reached, or a job that it does not know."""


def connect(address: str | None) -> Any:
    """Ray's `JobSubmissionClient` of a cluster. Raises JobError when none answers.

    With a token in its usual place, or in the environment, it is sent: Ray's own client would do so only
    where RAY_AUTH_MODE is set.
    """
    variables = (os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"))
    address = address or next((a for a in variables if a), _LOCAL)
    # Ray lets RAY_ADDRESS override what its client is told; this variable overrides that.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise JobError(
            f"the cluster at {address} refuses the token ({_first_line(error)}); put the cluster's own into "
            f"~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise JobError(
            f"no Ray cluster answers at {address} ({_first_line(error)}); start one (docs/cluster.md), open "
            f"the tunnel to its dashboard (ray dashboard cluster.yaml), or give --address http://HOST:PORT"
        ) from error


def runtime_environment(
    working_dir: Path | None, wheel: Path | None, variables: Sequence[str]
) -> dict[str, Any]:
    """What Ray sends to every node that works on the job. The dependencies must be installed there.

    Raises JobError.
    """
    if wheel is not None and (wheel.suffix != ".whl" or not wheel.is_file()):
        raise JobError(f"--wheel {wheel}: there is no such wheel; build one with `python -m build --wheel`")
    if working_dir is not None and not working_dir.is_dir():
        raise JobError(f"--working-dir {working_dir}: there is no such folder")
    if working_dir is None and wheel is None:
        if not (_CHECKOUT / "pyproject.toml").is_file():
            raise JobError("this lmrl is not of a checkout: give --working-dir, or --wheel for the code")
        working_dir = _CHECKOUT
    environment: dict[str, Any] = {"env_vars": {"PYTHONUNBUFFERED": "1", **_assignments(variables)}}
    if working_dir is not None:
        environment |= {"working_dir": str(working_dir.resolve()), "excludes": list(_EXCLUDES)}
    if wheel is not None:
        environment["py_modules"] = [str(wheel.resolve())]
    return environment


def send(client: Any, command: Sequence[str], environment: dict[str, Any]) -> str:
    """Submit a command of `lmrl`, of the job's own copy of the code; the job's name. Raises JobError."""
    try:
        job: str = client.submit_job(
            entrypoint=shlex.join(["python", "-m", "lmrl_ray", *command]), runtime_env=environment
        )
    except (RuntimeError, OSError, ValueError) as error:
        raise JobError(f"the cluster does not take the job: {_first_line(error)}") from error
    return job


def follow(client: Any, job: str, log: TextIO) -> int:
    """Write the job's log as it comes and wait for the job's end; its exit code. Raises JobError."""
    import aiohttp

    try:
        asyncio.run(_copy_log(client, job, log))
        info = _ended(client, job)
    except KeyboardInterrupt:
        raise JobError(f"{job} goes on without being watched: lmrl status {job}, lmrl stop {job}") from None
    except JobError:
        raise
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        raise JobError(f"{job}: the cluster was lost ({_first_line(error)}); lmrl status {job}") from error
    if info.status == "SUCCEEDED":
        return 0
    if info.driver_exit_code is None or info.status == "STOPPED":
        raise JobError(f"{job}: {info.status.value}: {info.message}")
    code: int = info.driver_exit_code
    return code if code > 0 else 128 - code  # a signal's number, as shells report it


def job_rows(client: Any, job: str | None) -> list[dict[str, Any]]:
    """One job, or all in the order of their beginning. Raises JobError."""
    infos = [find(client, job)] if job else [i for i in client.list_jobs() if i.submission_id]
    return [
        {
            "job": info.submission_id,
            "status": info.status.value,
            "started": _time(info.start_time),
            "ended": _time(info.end_time),
            "exit_code": info.driver_exit_code,
            "command": info.entrypoint,
            "message": info.message,
        }
        for info in sorted(infos, key=lambda i: i.start_time or 0)
    ]


def find(client: Any, job: str) -> Any:
    """What the cluster knows of the job. Raises JobError."""
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        raise JobError(f"{job}: the cluster knows no such job; `lmrl status` lists them") from error


async def _copy_log(client: Any, job: str, log: TextIO) -> None:
    async for text in client.tail_job_logs(job):
        log.write(text)
        log.flush()


def _ended(client: Any, job: str) -> Any:
    deadline = time.monotonic() + _END_S
    while (info := client.get_job_info(job)).status not in _ENDED:
        if time.monotonic() > deadline:
            raise JobError(f"{job}: its log ended, but it is {info.status.value} still; lmrl status {job}")
        time.sleep(0.2)
    return info


def _assignments(variables: Sequence[str]) -> dict[str, str]:
    assigned = {}
    for variable in variables:
        name, equals, value = variable.partition("=")
        if not equals or not name:
            raise JobError(f"--env {variable}: expected NAME=VALUE, e.g. --env LMRL_OUT=/mnt/lmrl/runs")
        assigned[name] = value
    return assigned


def _has_token() -> bool:
    named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _time(milliseconds: int | None) -> str | None:
    return (
        None
        if milliseconds is None
        else datetime.fromtimestamp(milliseconds / 1000).isoformat(timespec="seconds")
    )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
