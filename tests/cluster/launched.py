"""The cluster on hosts of its own: `ray up` of the shipped cluster.local.yaml, typed on one more host."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from hosts import ROOT, USER, Host, Hosts
from under_test import KINDS, LIMIT_S, ClusterUnderTest, rays, say, wait_until

SHIPPED = ROOT / "cluster.local.yaml"
HEAD = "192.0.2.10"
"""As in the shipped file, whose user and path of the key stay as well: these networks touch no other."""
WORKERS = [f"192.0.2.{11 + i}" for i in range(len(KINDS))]
_HAS_GPU = "#!/bin/sh\necho 'GPU 0: none, but the launcher shall take this host for one that has'\n"


def filled_in(shipped: str) -> str:
    """The launcher file as a person completes it."""
    text, count = re.subn(r"(?m)^(  worker_ips:) \[.*?\].*$", rf"\1 [{', '.join(WORKERS)}]", shipped)
    assert count == 1
    assert f"head_ip: {HEAD} " in text
    return text


class LaunchedCluster(ClusterUnderTest):
    dashboard = "http://127.0.0.1:8265"

    def __init__(self, folder: Path) -> None:
        workers = {address: f"worker{i + 1}" for i, address in enumerate(WORKERS)}
        self._hosts = Hosts(folder / "hosts", {"192.0.2.1": "laptop", HEAD: "head", **workers})
        self.runs = self._hosts.shared / "runs"
        self._file = folder / "cluster.local.yaml"
        self._tunnel_log = folder / "tunnel.log"
        self._tunnel: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LaunchedCluster:
        self._hosts.__enter__()
        try:
            self._up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._hosts.__exit__()
        if self._tunnel is not None:
            self._tunnel.wait(timeout=30)

    def _up(self) -> None:
        key = (self._hosts.ssh / "id_ed25519").read_text()
        self._laptop = self._hosts.add("laptop", {".ssh/id_ed25519": key})
        self.head = self._hosts.add("head")
        self.workers = [self._add_worker(i, kind) for i, kind in enumerate(KINDS)]
        self._file.write_text(filled_in(SHIPPED.read_text()))
        began = time.monotonic()
        self._typed("ray", "get-auth-token", "--generate")
        self._typed("ray", "up", "-y", self._file)
        say(f"ray up: {time.monotonic() - began:.0f} s")
        with self._tunnel_log.open("w") as log:
            tunnel = self.command("ray", "dashboard", self._file)
            self._tunnel = subprocess.Popen(tunnel, stdout=log, stderr=log)
        wait_until(self._reaches_the_dashboard, "the tunnel")
        wait_until(lambda: len(self.nodes()) == 1 + len(KINDS), "all hosts in the cluster")
        say(f"all {1 + len(KINDS)} hosts are in: {time.monotonic() - began:.0f} s")

    def down(self) -> None:
        self._typed("ray", "down", "-y", self._file)
        for worker in self.workers:
            if worker.is_alive():
                unknown = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
                self._typed("ssh", *unknown, f"{USER}@{worker.address}", "lmrl/venv/bin/ray stop")

    def left_over(self) -> list[str]:
        return rays(p for host in (self.head, *self.workers) for p in host.processes())

    def lose(self, node: str) -> None:
        (address,) = (n["node_ip"] for n in self._ask("nodes") if n["node_id"] == node)
        (host,) = (h for h in self.workers if h.address == address)
        # First the cable: nobody shall hear its processes' connections close.
        self._hosts.cut(host)
        host.kill()

    def command(self, *arguments: object) -> list[str]:
        return self._laptop.command(*arguments, RAY_AUTH_MODE="token", OMP_NUM_THREADS="1")

    def _add_worker(self, number: int, kind: str) -> Host:
        files = {"bin/nvidia-smi": _HAS_GPU} if kind == "learner" else {}
        return self._hosts.add(f"worker{number + 1}", files)

    def _typed(self, *command: object) -> None:
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=LIMIT_S)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def _reaches_the_dashboard(self) -> bool:
        try:
            return bool(self.nodes())
        except AssertionError:
            assert self._tunnel is not None
            assert self._tunnel.poll() is None, self._tunnel_log.read_text()
            return False
