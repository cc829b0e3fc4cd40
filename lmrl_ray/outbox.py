"""What MLflow has not got yet, as lines of JSON in the run's folder: in order, each kept until it was sent.

    mlflow.json     which MLflow run this is
    unsent.jsonl    what waits; there is no such file when nothing does

Sending again what has arrived changes nothing, so a process may die between the two.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from lmrl_ray.durable import write_whole
from lmrl_ray.mlflow_store import without_password

Operation = dict[str, Any]
"""`do` names it, the rest are its arguments."""


@dataclass(frozen=True)
class Identity:
    """Which MLflow run a folder's run is. `key` is a tag by which it is found while its id is unknown."""

    key: str
    server: str | None
    """Address of the tracking server, without a password; None: the database in the `--out` folder."""
    parent: str | None
    run_id: str = ""
    """Empty until the server has made the run."""


class Outbox:
    """The unsent operations of the run in `home`. Processes take turns."""

    def __init__(self, home: Path) -> None:
        self._path = home / "unsent.jsonl"
        self._lock = home / ".mlflow.lock"

    def __bool__(self) -> bool:
        return self._path.is_file()

    def append(self, operation: Operation) -> None:
        with self._alone(), self._path.open("a+b") as file:
            _drop_torn_line(file)
            file.write(json.dumps(operation).encode() + b"\n")

    def send(self, send_one: Callable[[Operation], None]) -> None:
        """Send all in order; an error leaves it and what follows in the outbox, and is raised."""
        with self._alone():
            lines = self._path.read_text().splitlines(keepends=True) if self else []
            waiting = [line for line in lines if line.endswith("\n")]  # the last may be torn
            sent = 0
            try:
                for line in waiting:
                    send_one(json.loads(line))
                    sent += 1
            finally:
                if sent == len(waiting):
                    self._path.unlink(missing_ok=True)
                elif sent:
                    write_whole(self._path, "".join(waiting[sent:]))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _drop_torn_line(file: BinaryIO) -> None:
    """What a killed process or a full disk left half-written is not whole, and was promised to nobody."""
    end = file.seek(0, os.SEEK_END)
    if end and (file.seek(end - 1), file.read(1))[1] != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.seek(0, os.SEEK_END)


def identity_of(home: Path) -> Identity | None:
    """What the folder says, if anything."""
    path = home / "mlflow.json"
    return Identity(**json.loads(path.read_text())) if path.is_file() else None


def new_identity(home: Path, server: str | None, parent: str | None) -> Identity:
    identity = Identity(uuid.uuid4().hex, server and without_password(server), parent)
    _keep(home, identity)
    return identity


def with_run_id(home: Path, identity: Identity, run_id: str) -> Identity:
    known = replace(identity, run_id=run_id)
    _keep(home, known)
    return known


def forget(home: Path) -> None:
    """Undo `new_identity`; a folder that held nothing else is removed."""
    (home / "mlflow.json").unlink(missing_ok=True)
    if not any(home.iterdir()):
        home.rmdir()


def _keep(home: Path, identity: Identity) -> None:
    home.mkdir(parents=True, exist_ok=True)
    write_whole(home / "mlflow.json", json.dumps(asdict(identity)))
