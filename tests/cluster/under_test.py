"""What the tests ask of a cluster, on hosts of its own or on this machine alone."""

from __future__ import annotations

import json
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

KINDS = ("learner", "learner", "learner", "simulator")
"""Of the nodes beside the head. Two learners work, the third is there for when one is lost."""
LIMIT_S = 300.0
"""Longest wait for anything: it ends a test that hangs."""
_POLL_S = 0.1


class ClusterUnderTest(ABC):
    """A context manager: a cluster with a token, a head without CPUs, and nodes of KINDS."""

    runs: Path
    """Where its jobs write their runs, as this process finds it."""
    dashboard: str

    @abstractmethod
    def __enter__(self) -> ClusterUnderTest: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    @abstractmethod
    def lose(self, node: str) -> None:
        """Take a node away, by its id, without a farewell."""

    @abstractmethod
    def down(self) -> None:
        """End the cluster as a person would."""

    @abstractmethod
    def left_over(self) -> list[str]:
        """The command lines of its processes of Ray that run."""

    @abstractmethod
    def command(self, *arguments: object) -> list[str]:
        """A command line that a person types where the cluster is used from."""

    @contextmanager
    def lmrl(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """A command of ours as a process, which has ended at the end."""
        process = subprocess.Popen(
            self.command("python", "-m", "lmrl_ray", *arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def answer(self, *arguments: object) -> str:
        """What a command of ours prints that ends well."""
        with self.lmrl(*arguments) as process:
            return ended_well(process)

    def nodes(self) -> dict[str, dict[str, float]]:
        """The resources of each node that is alive, by its id."""
        return {n["node_id"]: n["resources_total"] for n in self._ask("nodes") if n["state"] == "ALIVE"}

    def places(self, actor: str, *, alive: bool = False) -> list[str]:
        """The node of each actor of that class that was ever placed; or that is alive."""
        return [
            a["node_id"]
            for a in self._ask("actors")
            if a["class_name"] == actor and a["node_id"] and (a["state"] == "ALIVE" or not alive)
        ]

    def _ask(self, kind: str) -> list[dict[str, Any]]:
        script = Path(__file__).with_name("ask_dashboard.py")
        asked = self.command("python", script, self.dashboard, kind)
        found = subprocess.run(asked, capture_output=True, text=True, timeout=LIMIT_S)
        assert found.returncode == 0, found.stderr
        answer: list[dict[str, Any]] = json.loads(found.stdout)
        return answer


def rays(processes: Iterable[psutil.Process]) -> list[str]:
    """The command lines of those that are Ray's and run."""
    lines = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # a zombie is one, too
            lines.append(" ".join(process.cmdline()))
    return [line for line in lines if "ray::" in line or "/ray/" in line]


def ended_well(process: subprocess.Popen[str]) -> str:
    """Wait for a process's end with 0; what it printed."""
    stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, f"it ended with {process.returncode}:\n{stdout}{stderr}"
    return stdout


def wait_until(true: Callable[[], Any], what: str, process: subprocess.Popen[str] | None = None) -> Any:
    """The first true answer. AssertionError when it takes too long, or the process ends before."""
    deadline = time.monotonic() + LIMIT_S
    while not (answer := true()):
        if process is not None and process.poll() is not None:
            stdout, stderr = process.communicate()
            raise AssertionError(f"{what}: it ended before:\n{stdout}{stderr}")
        assert time.monotonic() < deadline, f"{what}: not within {LIMIT_S:g} s"
        time.sleep(_POLL_S)
    return answer


def say(text: str) -> None:
    """A line of progress."""
    print(f"[cluster] {text}", flush=True)
