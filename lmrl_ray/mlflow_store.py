"""Where MLflow's store is, how it is opened, and what its errors mean."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

EXPERIMENT = "lmrl_ray"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # stdout is for what a command answers
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow's own patience would keep a run's end waiting for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
"""Unless the environment says otherwise."""
_REFUSALS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")


class TrackingError(RuntimeError):
    """MLflow cannot be written or read."""


def tracking_uri(folder: Path) -> str:
    """MLFLOW_TRACKING_URI, or a sqlite file in `folder`."""
    return named_uri() or local_uri(folder)


def named_uri() -> str | None:
    """MLFLOW_TRACKING_URI."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def local_uri(folder: Path) -> str:
    return f"sqlite:///{folder.resolve()}/mlflow.db"


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def without_password(uri: str) -> str:
    """The address as it may be shown and kept."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def look_at_it(folder: Path) -> str:
    """What a person does to look at the runs."""
    uri = tracking_uri(folder)
    return without_password(uri) if is_server(uri) else f"lmrl ui --out {folder}"


def import_mlflow() -> Any:
    """MLflow without telemetry, without its chatter, and with short waits."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def client_of(uri: str, folder: Path) -> Any:
    """An `MlflowClient`; a database that is not there is made."""
    with _alone(folder):
        return import_mlflow().MlflowClient(uri)


def experiment_of(client: Any, uri: str, folder: Path) -> str:
    """The id of our experiment, which is made where it is not there."""
    with _alone(folder):
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        location = (folder / "mlartifacts").resolve().as_uri() if uri == local_uri(folder) else None
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))


def check(folder: Path) -> None:
    """TrackingError when the server refuses us; one that is away is no reason not to begin."""
    uri = tracking_uri(folder)
    if not is_server(uri):
        return
    try:
        client_of(uri, folder).get_experiment_by_name(EXPERIMENT)
    except Exception as error:
        if not is_outage(error):
            raise explained(error, uri) from error


def is_outage(error: Exception) -> bool:
    """Whether the store did not answer, or answered that it cannot now."""
    from requests.exceptions import ConnectionError, RetryError, Timeout

    if getattr(error, "error_code", "") == "TEMPORARILY_UNAVAILABLE":
        return True
    return any(isinstance(e, ConnectionError | RetryError | Timeout) for e in _chain(error))


def explained(error: Exception, uri: str) -> TrackingError:
    """An error of MLflow as one that says what to do."""
    where = f"MLflow at {without_password(uri)}"
    if is_outage(error):
        return TrackingError(
            f"{where} does not answer ({reason(error)}); start it, or see to MLFLOW_TRACKING_URI"
        )
    if getattr(error, "error_code", "") in _REFUSALS:
        return TrackingError(
            f"{where} refuses us ({reason(error)}); set MLFLOW_TRACKING_USERNAME and "
            f"MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN) to an account that may write"
        )
    if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
        return TrackingError(
            f"{where} does not know the run ({reason(error)}); name the place that it began in: --out, or "
            f"MLFLOW_TRACKING_URI"
        )
    return TrackingError(f"{where} cannot be used: {reason(error)}")


def reason(error: Exception) -> str:
    """The first cause in one line, without MLflow's own wrapping."""
    first = list(_chain(error))[-1] if is_outage(error) else error
    lines = str(first).splitlines()
    return (lines[0] if lines else type(first).__name__)[:200]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: two that make the same database at once both fail."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
