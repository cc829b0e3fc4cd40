"""Builds that are stopped: the same file, byte for byte."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmrl_ray.data import EpisodeDataset, build, parts
from lmrl_ray.data.builder import CHUNK


class Stop(Exception):
    pass


def stop_at(episodes):
    def progress(done):
        if done >= episodes:
            raise Stop

    return progress


def test_a_build_that_was_stopped_goes_on_and_gives_the_same_bytes(tmp_path, count_up, monkeypatch):
    path, count = tmp_path / "a.parquet", 6 * CHUNK + 5
    undisturbed = build(count_up, count, 0, tmp_path / "b.parquet").path.read_bytes()
    monkeypatch.setattr(parts, "PART_SECONDS", 0)
    for stop in (2 * CHUNK, 5 * CHUNK):
        with pytest.raises(Stop):
            build(count_up, count, 0, path, progress=stop_at(stop))
        assert not path.exists()
    seen = []
    build(count_up, count, 0, path, progress=seen.append)
    assert seen == [6 * CHUNK, count]
    assert path.read_bytes() == undisturbed
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet"]


def test_a_build_that_is_killed_outright_goes_on(tmp_path, count_up):
    """By SIGKILL, in a process of its own, with a part half written."""
    path, count = tmp_path / "a.parquet", 6 * CHUNK
    code = f"""
import os, signal, episode_samples
from envs.registry import register
from lmrl_ray.data import build, parts
register(episode_samples.SPEC)
parts.PART_SECONDS = 0
def progress(done):
    if done == {2 * CHUNK}: parts.PART_SECONDS = 99
    if done == {4 * CHUNK}: os.kill(os.getpid(), signal.SIGKILL)
build({count_up!r}, {count}, 0, {str(path)!r}, progress=progress)
"""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == -signal.SIGKILL
    seen = []
    build(count_up, count, 0, path, progress=seen.append)
    assert seen[0] == 3 * CHUNK
    undisturbed = build(count_up, count, 0, tmp_path / "b.parquet")
    assert path.read_bytes() == undisturbed.path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.parquet", "b.parquet"]


def test_parts_of_other_data_or_damaged_ones_are_not_used(tmp_path, count_up, monkeypatch):
    path, count = tmp_path / "a.parquet", 3 * CHUNK
    undisturbed = build(count_up, count, 0, tmp_path / "b.parquet").path.read_bytes()
    monkeypatch.setattr(parts, "PART_SECONDS", 0)
    for other in ({"seed": 1}, {"env_kwargs": {"target": 9}}, {"episodes": count + 1}, {"damaged": True}):
        arguments = {"episodes": count, "seed": 0, **other}
        damaged = arguments.pop("damaged", False)
        with pytest.raises(Stop):
            build(count_up, path=path, progress=stop_at(CHUNK), **arguments)
        if damaged:
            (part,) = (tmp_path / ".a.parquet.parts").glob("*.parquet")
            part.write_bytes(part.read_bytes()[:-9])
        build(count_up, count, 0, path)
        assert path.read_bytes() == undisturbed


def test_two_builds_of_one_file_do_not_get_into_each_others_way(tmp_path, count_up, monkeypatch):
    path, count = tmp_path / "a.parquet", 3 * CHUNK
    monkeypatch.setattr(parts, "PART_SECONDS", 0)
    begun, go_on = threading.Event(), threading.Event()

    def wait(_):
        begun.set()
        assert go_on.wait(60)

    first = threading.Thread(target=build, args=(count_up, count, 0, path), kwargs={"progress": wait})
    first.start()
    assert begun.wait(60)
    played = []
    second = threading.Thread(
        target=build, args=(count_up, count, 0, path), kwargs={"progress": played.append}
    )
    second.start()
    second.join(0.3)
    assert second.is_alive()
    go_on.set()
    first.join(60)
    second.join(60)
    assert os.listdir(tmp_path) == ["a.parquet"]
    assert played == [], "what the first had built was played again"
    EpisodeDataset(path).verify()
