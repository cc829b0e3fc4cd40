"""MLflow: one run a training, written by one process, in batches.

The driver alone writes. It reads the run's journal as rank 0 appends to it, so a step is recorded once
whether workers were restarted or not, and a resumed run goes on in the same MLflow run.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lmrl_ray.journal import Entry

EXPERIMENT = "lmrl_ray"
_BATCH = 900
"""Metrics of one request; MLflow takes 1000."""


class Tracker:
    """One MLflow run. `folder` is where the local database lives unless MLFLOW_TRACKING_URI is set."""

    def __init__(
        self, folder: Path, name: str, *, run_id: str | None = None, parent_id: str | None = None
    ) -> None:
        mlflow = import_mlflow()
        self.uri = tracking_uri(folder)
        with _alone(folder):
            self._client = mlflow.MlflowClient(self.uri)
            experiment = self._experiment(folder)
        self._logged_step = -1
        if run_id is None:
            tags = {"mlflow.runName": name}
            if parent_id:
                tags["mlflow.parentRunId"] = parent_id
            run_id = self._client.create_run(experiment, tags=tags).info.run_id
        else:
            self._client.update_run(run_id, status="RUNNING")
            self._logged_step = self._last_step(run_id)
        self.run_id: str = run_id

    def log_config(self, config: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Flattened parameters; values that are there already stay."""
        from mlflow.entities import Param

        known = self._client.get_run(self.run_id).data.params
        flat = {**flatten(config), **extra}
        params = [Param(k, str(v)[:6000]) for k, v in flat.items() if k not in known]
        for start in range(0, len(params), 100):
            self._client.log_batch(self.run_id, params=params[start : start + 100])

    def log(self, entries: Iterable[Entry]) -> None:
        """Metrics of steps that were not logged yet."""
        from mlflow.entities import Metric

        new = [e for e in entries if e.step > self._logged_step]
        metrics = [Metric(k, v, int(e.time * 1000), e.step) for e in new for k, v in e.metrics.items()]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _BATCH])
        if new:
            self._logged_step = new[-1].step

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """A list of rows as a JSON artifact."""
        self._client.log_dict(self.run_id, {"rows": rows}, name)

    def log_text(self, text: str, name: str) -> None:
        self._client.log_text(self.run_id, text, name)

    def log_folder(self, folder: Path, name: str) -> None:
        self._client.log_artifacts(self.run_id, str(folder), name)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_tag(self.run_id, key, value)

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Final figures, without a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(k, v, now, 0) for k, v in scores.items()])

    def close_children(self) -> None:
        """End child runs that were stopped from outside (by a scheduler) and could not do so themselves."""
        run = self._client.get_run(self.run_id)
        children = self._client.search_runs(
            [run.info.experiment_id],
            f"tags.`mlflow.parentRunId` = '{self.run_id}' and attributes.status = 'RUNNING'",
        )
        for child in children:
            self._client.set_tag(child.info.run_id, "stopped_by", "scheduler")
            self._client.set_terminated(child.info.run_id, "FINISHED")

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)

    def _experiment(self, folder: Path) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        local = "MLFLOW_TRACKING_URI" not in os.environ
        location = (folder / "mlartifacts").resolve().as_uri() if local else None
        return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))

    def _last_step(self, run_id: str) -> int:
        keys = self._client.get_run(run_id).data.metrics
        return max((m.step for k in keys for m in self._client.get_metric_history(run_id, k)), default=-1)


def tracking_uri(folder: Path) -> str:
    """MLFLOW_TRACKING_URI, or a sqlite file in `folder`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve()}/mlflow.db"


def ui_command(folder: Path) -> str:
    """What a person types to look at the runs."""
    return f"mlflow ui --backend-store-uri {tracking_uri(folder)}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: two that make the same database at once both fail."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def import_mlflow() -> Any:
    """MLflow without telemetry and without its chatter about database migrations."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `a.b` keys; lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat
