"""MLflow: one run a training, written by one process, in batches.

The driver alone writes. It reads the run's journal as rank 0 appends to it, so a step is recorded once
whether workers were restarted or not, and a resumed run goes on in the same MLflow run.

No training waits for a server. What does not arrive stays in the run's folder (steps in its journal, the
rest in its outbox) and is tried again, in order, now and then, by a resume, or by `lmrl sync RUN`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmrl_ray import journal
from lmrl_ray.journal import Entry
from lmrl_ray.mlflow_store import (
    TrackingError,
    client_of,
    experiment_of,
    explained,
    is_outage,
    named_uri,
    reason,
    tracking_uri,
    without_password,
)
from lmrl_ray.outbox import Operation, Outbox, forget, identity_of, new_identity, with_run_id
from lmrl_ray.trust import is_below, is_here

_BATCH = 900
"""Metrics of one request; MLflow takes 1000."""
_KEY = "lmrl.run"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
"""Between two tries to reach a server that is away; each pause is twice the last."""


class Tracker:
    """One MLflow run: that of the run in `home`, whose name it bears.

    Args:
        out: where the local database lives unless MLFLOW_TRACKING_URI is set.
        parent_id: of the MLflow run that a new one hangs below.
        required: TrackingError also when the server is away; otherwise the run is made when it is back.
        reopen: a run that is there already goes on.

    Raises TrackingError when the store refuses: a wrong password, an address that is none.
    """

    def __init__(
        self,
        out: Path,
        home: Path,
        *,
        parent_id: str | None = None,
        required: bool = False,
        reopen: bool = True,
    ) -> None:
        earlier = identity_of(home)
        self._identity = earlier or new_identity(home, named_uri(), parent_id)
        self.uri = named_uri() or self._identity.server or tracking_uri(out)
        if self._identity.server and not named_uri() and not is_here(self.uri):
            raise TrackingError(
                f"{home}: reports to {self.uri}, which would get all of the run, and your password; if you "
                f"trust that server, name it, too: MLFLOW_TRACKING_URI={self.uri}"
            )
        self._out, self._home = out, home
        self._outbox = Outbox(home)
        self._is_new = earlier is None
        self._client: Any = None
        self._waiting: dict[int, Entry] = {}
        self._logged_step = -1
        self._pause, self._next_try, self._away = _FIRST_PAUSE_S, 0.0, False
        try:
            self._connect()
        except Exception as error:
            if required or not is_outage(error):
                if earlier is None:
                    forget(home)
                raise explained(error, self.uri) from error
            self._lost(error)
        self._is_new = False
        if earlier is not None and reopen:
            self._do({"do": "status", "status": "RUNNING"})

    @property
    def run_id(self) -> str:
        """Empty until the server has made the run."""
        return self._identity.run_id

    @property
    def unsent(self) -> bool:
        """Whether anything waits for the server."""
        return bool(self._waiting or self._outbox or not self.run_id)

    def log_config(self, config: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        """Flattened parameters; values that are there already stay."""
        self._do(
            {"do": "params", "params": {k: str(v)[:6000] for k, v in {**flatten(config), **extra}.items()}}
        )

    def log(self, entries: Iterable[Entry]) -> None:
        """Metrics of steps that were not logged yet; of a step that comes twice, the later."""
        self._waiting |= {e.step: e for e in entries if e.step > self._logged_step}
        if self.unsent:
            self._try()

    def log_table(self, rows: list[dict[str, Any]], name: str) -> None:
        """A list of rows as a JSON artifact."""
        self.log_text(json.dumps({"rows": rows}, indent=2), name)

    def log_text(self, text: str, name: str) -> None:
        self._do({"do": "text", "text": text, "name": name})

    def log_folder(self, folder: Path, name: str) -> None:
        self._do({"do": "folder", "folder": str(folder.resolve()), "name": name})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self._do({"do": "tags", "tags": dict(tags)})

    def log_scores(self, scores: Mapping[str, float]) -> None:
        """Final figures, without a step."""
        self._do({"do": "scores", "scores": dict(scores), "time": time.time()})

    def close_children(self, status: str = "FINISHED", failed: Collection[str] = ()) -> None:
        """End child runs that could not do so themselves: `failed` ones, whose process died, as FAILED, the
        others as `status` (FINISHED: a scheduler stopped them; KILLED: they ended with their driver)."""
        self._do({"do": "close_children", "status": status, "failed": list(failed)})

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED. Says so when not all of it has arrived."""
        self._next_try = 0.0
        self._do({"do": "status", "status": status})
        if self.unsent:
            _say(
                f"{self._home.name}: not all of it is in MLflow yet, and nothing is lost; when "
                f"{without_password(self.uri)} is back: lmrl sync {self._home} --out {self._out}"
            )

    def send_rest(self, entries: Iterable[Entry]) -> None:
        """Send what waits, and steps that were not logged. TrackingError when they cannot be sent now."""
        self._waiting |= {e.step: e for e in entries}
        try:
            self._send()
        except Exception as error:
            raise explained(error, self.uri) from error

    def _do(self, operation: Operation) -> None:
        try:
            self._outbox.append(operation)
        except OSError as error:  # a full disk, of which whoever writes something that counts says more
            _say(f"warning: {self._home.name}: could not be written down for MLflow ({error})")
            return
        self._try()

    def _try(self) -> None:
        """Send what waits, unless the server was away a moment ago."""
        if time.monotonic() < self._next_try:
            return
        try:
            self._send()
        except Exception as error:  # whatever is wrong with the server or the disk: the training is not
            self._lost(error)
            return
        if self._away:
            _say(f"{self._home.name}: MLflow at {without_password(self.uri)} is back and has everything")
        self._away, self._pause, self._next_try = False, _FIRST_PAUSE_S, 0.0

    def _lost(self, error: Exception) -> None:
        if not self._away:
            _say(
                f"warning: {self._home.name}: MLflow at {without_password(self.uri)} does not take what is "
                f"sent ({reason(error)}); it is kept in {self._home} and tried again"
            )
        self._away = True
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)

    def _send(self) -> None:
        self._connect()
        new = sorted(e for e in self._waiting.values() if e.step > self._logged_step)
        for batch in _batches(new):
            self._client.log_batch(self.run_id, metrics=_metrics(batch))
            self._logged_step = batch[-1].step
        self._waiting.clear()
        if self._outbox:
            self._outbox.send(self._perform)

    def _perform(self, operation: Operation) -> None:
        if operation["do"] == "folder" and not is_below(folder := Path(operation["folder"]), self._home):
            _say(f"warning: {folder} is not in {self._home}, or has links; it is not sent to MLflow")
            return
        arguments = {k: v for k, v in operation.items() if k != "do"}
        _OPERATIONS[operation["do"]](self._client, self.run_id, **arguments)

    def _connect(self) -> None:
        """Find the run, or make it. Nothing when that was done."""
        if self._client is not None:
            return
        # `lmrl sync`, beside this process, may have been there first.
        self._identity = identity_of(self._home) or self._identity
        client = client_of(self.uri, self._out)
        experiment = experiment_of(client, self.uri, self._out)
        run_id = self.run_id
        if not run_id and not self._is_new:
            # An answer that was lost on its way is no reason to make the run twice.
            run_id = _find(client, experiment, self._identity.key)
        if run_id:
            self._logged_step = _last_step(client, run_id)
        self._identity = with_run_id(self._home, self._identity, run_id or self._create(client, experiment))
        self._client = client

    def _create(self, client: Any, experiment: str) -> str:
        tags = {"mlflow.runName": self._home.name, _KEY: self._identity.key}
        if self._identity.parent:
            tags["mlflow.parentRunId"] = self._identity.parent
        return str(client.create_run(experiment, tags=tags).info.run_id)


def send_rest(home: Path, out: Path) -> str:
    """Send what earlier processes could not of the run in `home`; what became of it. TrackingError."""
    tracker = Tracker(out, home, required=True, reopen=False)
    tracker.send_rest(journal.read(home / "metrics.jsonl"))
    return f"{home}: MLflow at {without_password(tracker.uri)} has everything (run {tracker.run_id})"


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


def _send_params(client: Any, run_id: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    new = [Param(k, v) for k, v in params.items() if k not in known]
    for start in range(0, len(new), 100):
        client.log_batch(run_id, params=new[start : start + 100])


def _send_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        client.set_tag(run_id, key, value)


def _send_scores(client: Any, run_id: str, scores: Mapping[str, float], **at: float) -> None:
    client.log_batch(run_id, metrics=_metrics([Entry(0, at["time"], dict(scores))]))


def _send_folder(client: Any, run_id: str, folder: str, name: str) -> None:
    if Path(folder).is_dir():
        client.log_artifacts(run_id, folder, name)
    else:
        _say(f"warning: {folder} was removed before it could be sent to MLflow as {name}; it is left out")


def _send_status(client: Any, run_id: str, status: str) -> None:
    if status == "RUNNING":
        client.update_run(run_id, status=status)
    else:
        client.set_terminated(run_id, status)


def _close_children(client: Any, run_id: str, status: str = "FINISHED", failed: Collection[str] = ()) -> None:
    run = client.get_run(run_id)
    children = client.search_runs(
        [run.info.experiment_id],
        f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'",
    )
    for child in children:
        ended = "FAILED" if child.info.run_name in failed else status
        if ended == "FINISHED":
            client.set_tag(child.info.run_id, "stopped_by", "scheduler")
        client.set_terminated(child.info.run_id, ended)


_OPERATIONS: dict[str, Any] = {
    "params": _send_params,
    "tags": _send_tags,
    "scores": _send_scores,
    "text": lambda client, run_id, text, name: client.log_text(run_id, text, name),
    "folder": _send_folder,
    "status": _send_status,
    "close_children": _close_children,
}


def _find(client: Any, experiment: str, key: str) -> str:
    runs = client.search_runs([experiment], f"tags.`{_KEY}` = '{key}'", max_results=1)
    return str(runs[0].info.run_id) if runs else ""


def _last_step(client: Any, run_id: str) -> int:
    """Of all metrics; their latest values come with the run, in one request."""
    return max((int(m.step) for m in client.get_run(run_id).data.to_proto().metrics), default=-1)


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """As few requests as MLflow allows; a step is never cut in two."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and size + len(entry.metrics) > _BATCH:
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += len(entry.metrics)
    if batch:
        yield batch


def _metrics(entries: Iterable[Entry]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(k, v, int(e.time * 1000), e.step) for e in entries for k, v in e.metrics.items()]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
