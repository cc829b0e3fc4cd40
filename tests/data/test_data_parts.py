"""Builds that are stopped: the same file, byte for byte."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lmrl_ray.data import DataError, EpisodeDataset, build, parts
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


def test_a_part_whose_rows_are_damaged_is_played_anew_by_the_next_build(tmp_path, count_up, monkeypatch):
    path, count = tmp_path / "a.parquet", 4 * CHUNK
    undisturbed = build(count_up, count, 0, tmp_path / "b.parquet").path.read_bytes()
    monkeypatch.setattr(parts, "PART_SECONDS", 0)
    with pytest.raises(Stop):
        build(count_up, count, 0, path, progress=stop_at(2 * CHUNK))
    damaged = tmp_path / ".a.parquet.parts" / f"{0:012}.parquet"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 8] ^= 255
    damaged.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        build(count_up, count, 0, path)
    build(count_up, count, 0, path)
    assert path.read_bytes() == undisturbed


def test_a_build_that_was_given_a_tuple_goes_on(tmp_path, monkeypatch):
    path, env = tmp_path / "a.parquet", {"goal": (8, 6)}
    monkeypatch.setattr(parts, "PART_SECONDS", 0)
    with pytest.raises(Stop):
        build("maze-fo", 3 * CHUNK, 0, path, env_kwargs=env, progress=stop_at(2 * CHUNK))
    seen = []
    build("maze-fo", 3 * CHUNK, 0, path, env_kwargs=env, progress=seen.append)
    assert seen == [3 * CHUNK]


@pytest.mark.parametrize(("simulator", "size"), [("kb", CHUNK), ("api:m", 1)])
def test_where_a_model_answers_actors_hand_over_each_episode(tmp_path, monkeypatch, simulator, size):
    def played(_player, chunks):
        assert {len(chunk) for chunk in chunks} == {size}
        raise Stop

    monkeypatch.setattr("lmrl_ray.data.builder._play", played)
    env = {"simulator": simulator} | ({"base_url": "http://localhost/v1"} if size == 1 else {})
    with pytest.raises(Stop):
        build("twenty-questions", 2 * CHUNK, 0, tmp_path / "a.parquet", env_kwargs=env)


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
