import errno
import os
import resource
import subprocess
from pathlib import Path

import pytest
import small_runs
from support import shorten_mazes

from lmrl_ray import data


@pytest.fixture(scope="module", autouse=True)
def short_episodes():
    with pytest.MonkeyPatch.context() as patch:
        shorten_mazes(patch)
        yield


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """A tiny data set of umaze episodes, and the folder of a tiny language model."""
    folder = tmp_path_factory.mktemp("material")
    episodes = data.build(small_runs.TASK, 24, 0, folder / "umaze.parquet", env_kwargs=small_runs.ENV)
    small_runs.save_start(folder / "start", episodes)
    return small_runs.Material(folder / "umaze.parquet", folder / "start")


class SmallDisk:
    """A disk that can be filled: a tmpfs, or, where none may be mounted, a limit on a file's size."""

    def __init__(self, folder: Path, mounted: bool) -> None:
        self.folder = folder
        self._mounted = mounted
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def __str__(self) -> str:
        return "a full disk (tmpfs)" if self._mounted else "a limit on the size of a file"

    def fill(self, leave: int) -> None:
        """Leave at most `leave` bytes."""
        if not self._mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (leave, self._limits[1]))
            return
        status = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as filler:
            filler.write(b"\0" * (status.f_bavail * status.f_frsize - leave))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        (self.folder / "filler").unlink(missing_ok=True)


@pytest.fixture(params=["full", "limited"])
def small_disk(request, tmp_path):
    """No space left (where a tmpfs may be mounted), and a file that may not grow further."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "lmrl-test", str(folder)]
    mounted = request.param == "full" and subprocess.run(command, capture_output=True).returncode == 0
    disk = SmallDisk(folder, mounted)
    yield disk
    disk.free()
    if mounted:
        assert subprocess.run(["umount", str(folder)]).returncode == 0, errno.EBUSY
