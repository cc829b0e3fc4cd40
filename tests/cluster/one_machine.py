"""Where namespaces are forbidden: the same cluster as processes of this machine, by `ray.cluster_utils`."""

from __future__ import annotations

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from under_test import KINDS, ClusterUnderTest, rays, wait_until

CPUS = 2


class OneMachineCluster(ClusterUnderTest):
    def __init__(self, folder: Path) -> None:
        self.runs = folder / "runs"
        self._token = folder / "token"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self._port = s.getsockname()[1]
        self.dashboard = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> OneMachineCluster:
        self.runs.mkdir(parents=True)
        self._token.write_text(secrets.token_hex(32))
        variables = {
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
            "LMRL_OUT": str(self.runs),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token),
            "RAY_ADDRESS": self.dashboard,
        }
        with ExitStack() as stack:
            stack.enter_context(_environment(variables))
            # Its own, or every other Ray of this machine would find this one; short, for sockets.
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
            self._start(temporary)
            stack.callback(self._cluster.shutdown)
            wait_until(lambda: len(self.nodes()) == 1 + len(KINDS), "all nodes in the cluster")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, temporary: str) -> None:
        from ray.cluster_utils import Cluster

        head = {
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": self._port,
            # The usual port may be that of another Ray, which would then run our jobs.
            "dashboard_agent_listen_port": 0,
            "temp_dir": temporary,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(num_cpus=CPUS, resources={kind: 1}) for kind in KINDS]

    def lose(self, node: str) -> None:
        (lost,) = (n for n in self._nodes if n.node_id == node)
        self._cluster.remove_node(lost, allow_graceful=False)

    def down(self) -> None:
        self._started = psutil.Process().children(recursive=True)
        self._cluster.shutdown()

    def left_over(self) -> list[str]:
        return rays(self._started)

    def command(self, *arguments: object) -> list[str]:
        return [str(a) for a in arguments]


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
