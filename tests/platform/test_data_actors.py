"""Data built by Ray actors: the same file, byte for byte, whatever happens to them."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lmrl_ray.actors import RolloutError
from lmrl_ray.data import build, builder, parts
from lmrl_ray.data.builder import CHUNK


@pytest.mark.slow
@pytest.mark.parametrize("part_seconds", [parts.PART_SECONDS, 0])
def test_actors_and_parts_change_no_byte(tmp_path, toy, ray_cluster, monkeypatch, part_seconds):
    alone = build("toy", 5 * CHUNK + 7, 1, tmp_path / "one.parquet")
    monkeypatch.setattr(parts, "PART_SECONDS", part_seconds)
    together = build("toy", 5 * CHUNK + 7, 1, tmp_path / "two.parquet", workers=2, plugins=[toy])
    assert together.path.read_bytes() == alone.path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["one.parquet", "two.parquet"]


@pytest.mark.slow
def test_an_error_in_an_actor_names_the_episode(tmp_path, toy, ray_cluster):
    broken = {"raises_in": [0, 1, 2, 3, 4]}
    with pytest.raises(RolloutError, match=r"RuntimeError: the simulator broke; in episode \d+ of task toy"):
        build("toy", 5, 0, tmp_path / "a.parquet", env_kwargs=broken, workers=2, plugins=[toy])
    assert os.listdir(tmp_path) == []


def engines_of_actors():
    """The process ids of data actors that have a Stockfish, each with that of the engine."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, fields = stat.read_text().partition("(")[2].rsplit(")", 1)
            owner = fields.split()[1]
            if name == "stockfish" and b"Player" in Path(f"/proc/{owner}/cmdline").read_bytes():
                found[int(owner)] = int(stat.parent.name)
    return found


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_actors_that_are_killed_change_no_byte_and_leave_no_engine(tmp_path, ray_cluster, monkeypatch):
    monkeypatch.setattr(builder, "CHUNK", 8)
    seen = []

    def kill_the_first(_):
        seen.append(engines_of_actors())
        if len(seen) == 1:
            for actor in seen[0]:
                os.kill(actor, signal.SIGKILL)

    disturbed = build("chess-endgames", 80, 0, tmp_path / "a.parquet", workers=2, progress=kill_the_first)
    alone = build("chess-endgames", 80, 0, tmp_path / "b.parquet")
    assert disturbed.path.read_bytes() == alone.path.read_bytes()
    engines = {engine for found in seen for engine in found.values()}
    assert len(engines) > len(seen[0]) > 0
    deadline = time.monotonic() + 10
    while any(map(runs, engines)):
        assert time.monotonic() < deadline, "an engine outlives its actor"
        time.sleep(0.1)
