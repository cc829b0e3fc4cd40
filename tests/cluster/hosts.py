"""Hosts made of namespaces: each has a network, processes, /dev/shm, /tmp/ray and home of its own, and sshd.

A host lives as long as its first process. Nothing of it is in the namespaces of the machine itself (no link,
no mount, no name): when that process is killed, or the test is, the kernel takes everything away.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
USER = "lmrl"
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd")
_OURS = ("setpriv", "--pdeathsig", "KILL")
"""What is started so is killed when we end, however we end."""
_OWN = ("--net", "--mount", "--uts", "--ipc", "--pid")
_NEW = ("unshare", *_OWN, "--fork", "--mount-proc", "--kill-child=KILL")
_READY_S = 20.0

# The first process of a host. $HOME_FOLDER is an empty folder, at the same place on all hosts.
_INIT = r"""
set -eu
hostname "$NAME"
mount -t tmpfs -o mode=1777 none /dev/shm
mkdir -p /tmp/ray && mount --bind "$FOLDER/ray" /tmp/ray
mount -t tmpfs none /run && mkdir /run/sshd
mount --bind "$FOLDER/hosts" /etc/hosts
mount --bind "$FOLDER/passwd" /etc/passwd
mount -t tmpfs -o mode=755 none "$HOME_FOLDER"
cp -r /etc/skel/. "$FOLDER/home/." "$HOME_FOLDER"
mkdir -p "$HOME_FOLDER/lmrl/venv" "$HOME_FOLDER/lmrl/shared"
mount --bind "$VENV" "$HOME_FOLDER/lmrl/venv"
mount -o remount,bind,ro "$HOME_FOLDER/lmrl/venv"
mount --bind "$SHARED" "$HOME_FOLDER/lmrl/shared"
ip link set lo up
touch "$FOLDER/ready"
exec /usr/sbin/sshd -D -E "$FOLDER/sshd.log" -f "$FOLDER/sshd_config"
"""

# Memory is the one thing that the hosts share: each would kill its jobs when others fill it.
_SSHD = """
SetEnv RAY_memory_monitor_refresh_ms=0
HostKey {ssh}/host_key
AuthorizedKeysFile {ssh}/id_ed25519.pub
PidFile none
UsePAM no
PasswordAuthentication no
StrictModes no
"""


class HostError(RuntimeError):
    """A host could not be made."""


def why_forbidden() -> str | None:
    """The kernel's words when it refuses what hosts are made of; None where it allows them.

    Raises HostError where a program is missing: that is no refusal.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise HostError(f"missing: {', '.join(missing)}; `make test-cluster` installs them")
    attempt = (
        "mount -t tmpfs none /run && hostname h && ip link add switch type bridge && "
        "ip link add plug type veth peer name eth0 && ip link set plug master switch"
    )
    tried = subprocess.run([*_NEW, "sh", "-c", attempt], capture_output=True, text=True)
    return None if tried.returncode == 0 else tried.stderr.strip() or f"unshare ended with {tried.returncode}"


@dataclass(frozen=True)
class Host:
    """One host; `init` is its first process as this machine knows it."""

    name: str
    address: str
    home: Path
    process: subprocess.Popen[bytes]
    init: psutil.Process

    def command(self, *arguments: object, **variables: str) -> list[str]:
        """A command line that runs on this host, in the checkout, with these variables and few others."""
        path = f"{sys.prefix}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        environment = {"HOME": str(self.home), "USER": USER, "PATH": path, "LANG": "C.UTF-8", **variables}
        assigned = [f"{name}={value}" for name, value in environment.items()]
        enter = ["nsenter", f"--target={self.init.pid}", *_OWN, f"--wd={ROOT}"]
        return [*enter, "env", "-i", *assigned, *map(str, arguments)]

    def is_alive(self) -> bool:
        return self.init.is_running()

    def processes(self) -> list[psutil.Process]:
        """All but the first; none on a dead host."""
        return self.init.children(recursive=True) if self.is_alive() else []

    def kill(self) -> None:
        """End all its processes at once. Does nothing to a dead host."""
        try:
            self.init.kill()
        except psutil.NoSuchProcess:
            return
        self.process.wait(timeout=30)


class Hosts:
    """A context manager: a switch, and hosts plugged into it. `shared` is the disk they have in common.

    `names` are those of all hosts to come, by address.
    """

    def __init__(self, folder: Path, names: Mapping[str, str]) -> None:
        self.folder, self.names = folder, dict(names)
        self.home, self.shared, self.ssh = folder / "home", folder / "shared", folder / "ssh"
        self._hosts: list[Host] = []

    def __enter__(self) -> Hosts:
        for folder in (self.home, self.shared, self.ssh):
            folder.mkdir(parents=True)
        for name in ("id_ed25519", "host_key"):
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.ssh / name)
        self._switch = subprocess.Popen([*_OURS, "unshare", "--net", "sleep", "infinity"])
        try:
            _until(lambda: _network(self._switch.pid) != _network(os.getpid()), "the switch does not start")
            self._at_switch("link", "add", "switch", "type", "bridge")
            self._at_switch("link", "set", "switch", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts:
            host.kill()
        self._switch.kill()
        self._switch.wait(timeout=30)
        with suppress(OSError):  # the mount point, unless another Ray uses it
            Path("/tmp/ray").rmdir()

    def add(self, name: str, files: Mapping[str, str] | None = None) -> Host:
        """Start the host of that name, with these files (by path, for its user alone) in its home."""
        address = next(a for a, n in self.names.items() if n == name)
        folder = self.folder / name
        for sub in ("ray", "home"):
            (folder / sub).mkdir(parents=True)
        for path, text in (files or {}).items():
            target = folder / "home" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o700)
        # Debian's installer writes such a second line: the host's own name is loopback to itself.
        known = ["127.0.0.1 localhost", f"127.0.1.1 {name}", *(f"{a} {n}" for a, n in self.names.items())]
        (folder / "hosts").write_text("".join(f"{line}\n" for line in known))
        user = f"{USER}:x:0:0::{self.home}:/bin/bash\n"
        (folder / "passwd").write_text(user + Path("/etc/passwd").read_text())
        (folder / "sshd_config").write_text(_SSHD.format(ssh=self.ssh))
        host = self._start(name, address, folder)
        self._plug_in(host)
        return host

    def cut(self, host: Host) -> None:
        """Pull the host's cable: the others hear nothing more of it, not even a farewell."""
        self._at_switch("link", "set", f"to-{host.name}", "down")

    def _start(self, name: str, address: str, folder: Path) -> Host:
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "NAME": name,
            "FOLDER": str(folder),
            "HOME_FOLDER": str(self.home),
            "SHARED": str(self.shared),
            "VENV": sys.prefix,
        }
        with (folder / "init.log").open("w") as log:
            process = subprocess.Popen(
                [*_OURS, *_NEW, "bash", "-c", _INIT], env=environment, stdout=log, stderr=log
            )
        try:
            _until((folder / "ready").exists, f"{name} does not start", folder / "init.log")
            (init,) = psutil.Process(process.pid).children()
        except BaseException:
            process.kill()
            process.wait(timeout=30)
            raise
        host = Host(name, address, self.home, process, init)
        self._hosts.append(host)
        return host

    def _plug_in(self, host: Host) -> None:
        plug, init = f"to-{host.name}", str(host.init.pid)
        self._at_switch("link", "add", plug, "type", "veth", "peer", "name", "eth0", "netns", init)
        self._at_switch("link", "set", plug, "master", "switch", "up")
        for words in (["addr", "add", f"{host.address}/24", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            _run("nsenter", f"--target={init}", "--net", "ip", *words)

    def _at_switch(self, *words: str) -> None:
        _run("nsenter", f"--target={self._switch.pid}", "--net", "ip", *words)


def _run(*command: object) -> None:
    line = [str(c) for c in command]
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        raise HostError(f"{' '.join(line)}: {(done.stderr or done.stdout).strip()}")


def _network(process: int) -> str:
    return os.readlink(f"/proc/{process}/ns/net")


def _until(true: Callable[[], bool], otherwise: str, log: Path | None = None) -> None:
    deadline = time.monotonic() + _READY_S
    while not true():
        if time.monotonic() > deadline:
            raise HostError(f"{otherwise}: {log.read_text().strip() if log else ''}")
        time.sleep(0.02)
