"""Writing and reading: nothing is lost, nothing half-written stays, nothing bad is read in silence."""

import hashlib
import json
import os
import pickle
import resource
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from episode_samples import TASK, any_episode, numbered
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.core import Segment
from lmrl_ray.data import DataError, EpisodeDataset, EpisodeWriter, fingerprint
from lmrl_ray.data.schema import METADATA_KEY, SCHEMA


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def write(path, episodes, **kwargs):
    with EpisodeWriter(path, TASK, **kwargs) as writer:
        for episode in episodes:
            writer.write(episode)
    return path


def rewrite(path, change=lambda table: table, metadata=None):
    """The file as another program would write it, with other columns or metadata."""
    found = pq.read_metadata(path).metadata
    kept = {METADATA_KEY: found[METADATA_KEY]} if metadata is None else metadata
    table = change(pq.read_table(path)).replace_schema_metadata(kept)
    pq.write_table(table, path)
    return path


# --- round trip ---


@settings(max_examples=60, deadline=None)
@given(episodes=st.lists(any_episode(), max_size=9), row_group_size=st.integers(1, 4))
def test_what_was_written_is_read(folder, episodes, row_group_size):
    path = write(folder / "round.parquet", episodes, row_group_size=row_group_size)
    dataset = EpisodeDataset(path)
    assert list(dataset) == episodes
    assert len(dataset) == len(episodes)
    assert dataset.task == TASK
    dataset.verify()


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(), max_size=20))
def test_a_lone_surrogate_becomes_the_replacement_character(folder, text):
    action = Segment(text, is_action=True)
    path = write(folder / "text.parquet", [replace(numbered(0), segments=(action,), error=text)])
    expected = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    (episode,) = EpisodeDataset(path)
    assert episode.segments[0].text == episode.error == expected


def test_long_nul_and_non_finite_values_survive(folder):
    segments = (
        Segment("\0" * 10_000, is_action=True, reward=float("inf")),
        Segment("\U0001f600 é\r\n", is_action=False, reward=float("-inf")),
    )
    path = write(folder / "odd.parquet", [replace(numbered(0), segments=segments)])
    (episode,) = EpisodeDataset(path)
    assert episode.segments == segments


def test_numpy_values_are_stored_as_plain_ones(folder):
    segment = Segment("a\n", np.bool_(True), np.float32(0.5), np.bool_(True))
    path = write(folder / "np.parquet", [replace(numbered(0), segments=(segment,), seed=np.int64(3))])
    (episode,) = EpisodeDataset(path)
    assert episode.segments == (Segment("a\n", True, 0.5, True),)
    assert type(episode.seed) is int


def test_the_file_is_readable_with_pandas(folder):
    path = write(folder / "pandas.parquet", [numbered(0), numbered(1)])
    frame = pd.read_parquet(path)
    assert list(frame.columns) == SCHEMA.names
    assert list(frame["seed"]) == [0, 1]
    assert list(frame["rewards"][0]) == [0.0, -1.0, 0.0]


def test_metadata_say_how_it_was_built(folder):
    path = write(folder / "meta.parquet", [numbered(0)], build={"seed": 3, "by": "a test"})
    found = json.loads(pq.read_metadata(path).metadata[METADATA_KEY])
    assert found == {
        "task": TASK,
        "episodes": 1,
        "fingerprint": fingerprint([numbered(0)]),
        "build": {"seed": 3, "by": "a test"},
        "schema_version": 1,
    }


def test_a_dataset_can_be_pickled(folder):
    path = write(folder / "pickle.parquet", [numbered(0), numbered(1)])
    copy = pickle.loads(pickle.dumps(EpisodeDataset(path)))
    assert list(copy) == [numbered(0), numbered(1)]


# --- fingerprint ---


@pytest.mark.parametrize(
    "change",
    [
        {"task": "maze-fo"},
        {"terminated": False},
        {"truncated": True},
        {"success": False},
        {"seed": 9},
        {"task_id": 9},
        {"simulator": "lm"},
        {"policy": "foot"},
        {"error": ""},
    ],
)
def test_the_fingerprint_depends_on_every_field(change):
    assert fingerprint([replace(numbered(0), **change)]) != fingerprint([numbered(0)])


@pytest.mark.parametrize(
    "segment",
    [
        Segment("b", True, 0.5, True),
        Segment("a", False, 0.5, True),
        Segment("a", True, 0.25, True),
        Segment("a", True, 0.5, False),
    ],
)
def test_the_fingerprint_depends_on_every_segment_value(segment):
    one = replace(numbered(0), segments=(Segment("a", True, 0.5, True),))
    assert fingerprint([one]) != fingerprint([replace(one, segments=(segment,))])


def test_the_fingerprint_depends_on_order_but_not_on_the_layout(folder):
    episodes = [numbered(i) for i in range(10)]
    small = EpisodeDataset(write(folder / "small.parquet", episodes, row_group_size=3))
    large = EpisodeDataset(write(folder / "large.parquet", episodes))
    assert small.num_row_groups == 4
    assert large.num_row_groups == 1
    assert small.fingerprint == large.fingerprint == fingerprint(episodes)
    assert fingerprint(episodes[::-1]) != fingerprint(episodes)


def test_the_fingerprint_is_sha256_of_json_lines():
    line = (
        '["count-up",["start\\n","move \\n","seen\\n"],[false,true,false],[0.0,-1.0,0.0],'
        '[true,false,true],true,false,true,0,0,"rule","hand",null]\n'
    )
    assert fingerprint([numbered(0)]) == hashlib.sha256(line.encode()).hexdigest()


def test_verify_notices_a_changed_episode(folder):
    path = write(folder / "changed.parquet", [numbered(0), numbered(1)])
    seeds = pa.array([0, 7], pa.int64())
    rewrite(path, lambda t: t.set_column(SCHEMA.get_field_index("seed"), SCHEMA.field("seed"), seeds))
    with pytest.raises(DataError, match="changed after it was written"):
        EpisodeDataset(path).verify()


# --- all or nothing ---


def failing_writes():
    bad = numbered(0)
    return {
        "another task": (replace(bad, task="maze-fo"), "of task 'maze-fo', but .* 'count-up'"),
        "a seed out of range": (replace(bad, seed=2**63), "episodes 0 to 1 does not fit"),
    }


@pytest.mark.parametrize("kind", failing_writes())
@pytest.mark.parametrize("existing", [True, False])
def test_a_bad_episode_leaves_everything_as_it_was(tmp_path, kind, existing):
    path = tmp_path / "data.parquet"
    if existing:
        write(path, [numbered(5)])
    before = path.read_bytes() if existing else None
    episode, message = failing_writes()[kind]
    with pytest.raises(DataError, match=message):
        write(path, [episode, numbered(1)], row_group_size=2)
    assert os.listdir(tmp_path) == (["data.parquet"] if existing else [])
    assert not existing or path.read_bytes() == before


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_an_error_of_the_caller_passes_through_and_leaves_nothing(tmp_path, error):
    def episodes():
        yield numbered(0)
        raise error

    with pytest.raises(type(error)):
        write(tmp_path / "a.parquet", episodes())
    assert os.listdir(tmp_path) == []


def test_a_swallowed_error_does_not_make_a_shorter_file(tmp_path):
    writer = EpisodeWriter(tmp_path / "a.parquet", TASK, row_group_size=1)
    writer.__enter__()
    with pytest.raises(DataError, match="does not fit"):
        writer.write(replace(numbered(0), seed=2**63))
    with pytest.raises(DataError, match="not open"):
        writer.write(numbered(1))
    with pytest.raises(DataError, match="an earlier write failed"):
        writer.__exit__(None, None, None)
    assert os.listdir(tmp_path) == []


@contextmanager
def disk_of(size):
    """Let no file grow beyond `size` bytes; the kernel then refuses as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 3_000, 30_000, 200_000])
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path, size):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.parquet", [numbered(5)])
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"a\.parquet: cannot write \(File too large\)"), disk_of(size):
        write(path, (numbered(i, rng.bytes(200).hex()) for i in range(2000)), row_group_size=100)
    assert os.listdir(tmp_path) == ["a.parquet"]
    assert path.read_bytes() == before


def test_an_error_of_the_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DataError, match=r"No space left on device.*Free some space"):
        write(tmp_path / "a.parquet", [numbered(0)])
    assert os.listdir(tmp_path) == []


def test_nothing_is_at_the_path_until_the_end(tmp_path):
    path = tmp_path / "new" / "folder" / "a.parquet"
    with EpisodeWriter(path, TASK) as writer:
        writer.write(numbered(0))
        assert not path.exists()
        assert [p.name for p in path.parent.iterdir()] == [f".a.parquet.tmp-{os.getpid()}"]
    assert [p.name for p in path.parent.iterdir()] == ["a.parquet"]


def test_a_folder_or_a_file_in_the_way_is_a_clear_error(tmp_path):
    with pytest.raises(DataError, match="is a folder"):
        write(tmp_path, [])
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        write(tmp_path / "file" / "a.parquet", [])


def test_build_must_be_json(tmp_path):
    with pytest.raises(DataError, match="build must be JSON-able"):
        EpisodeWriter(tmp_path / "a.parquet", TASK, build={"env": object()})


# --- what a reader refuses ---


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="there is no such file"):
        EpisodeDataset(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="is a folder"):
        EpisodeDataset(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"text_history": []}\n' * 100])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: is not a Parquet file, or it is damaged"):
        EpisodeDataset(path)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path, part):
    path = write(tmp_path / "a.parquet", [numbered(i) for i in range(50)])
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DataError, match="not a Parquet file, or it is damaged"):
        EpisodeDataset(path)


def test_a_parquet_file_of_someone_else_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["hello"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="not one of lmrl_ray's"):
        EpisodeDataset(tmp_path / "a.parquet")


def test_a_newer_schema_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", [numbered(0)])
    rewrite(path, metadata={METADATA_KEY: '{"schema_version": 2, "layout": "new"}'})
    with pytest.raises(DataError, match=r"schema_version is 2, .* reads up to 1: upgrade"):
        EpisodeDataset(path)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"schema_version": 1}', '{"schema_version": "x"}'])
def test_damaged_metadata_are_refused(tmp_path, text):
    path = write(tmp_path / "a.parquet", [numbered(0)])
    rewrite(path, metadata={METADATA_KEY: text})
    with pytest.raises(DataError, match="metadata is damaged"):
        EpisodeDataset(path)


def test_a_missing_or_retyped_column_is_named(tmp_path):
    path = write(tmp_path / "a.parquet", [numbered(0)])
    rewrite(path, lambda t: t.drop_columns(["rewards"]))
    with pytest.raises(DataError, match="column rewards is missing, it should be list"):
        EpisodeDataset(path)
    path = write(tmp_path / "a.parquet", [numbered(0)])
    index = SCHEMA.get_field_index("seed")
    rewrite(path, lambda t: t.set_column(index, "seed", pa.array(["0"])))
    with pytest.raises(DataError, match="column seed is string, it should be int64"):
        EpisodeDataset(path)


def test_another_number_of_rows_is_noticed(tmp_path):
    path = rewrite(write(tmp_path / "a.parquet", [numbered(0), numbered(1)]), lambda t: t.slice(1))
    with pytest.raises(DataError, match="has 1 episodes, but its metadata say 2"):
        EpisodeDataset(path)


def test_lists_of_unequal_length_are_noticed(tmp_path):
    index, field = SCHEMA.get_field_index("rewards"), SCHEMA.field("rewards")
    path = write(tmp_path / "a.parquet", [numbered(0)])
    rewrite(path, lambda t: t.set_column(index, field, pa.array([[0.0]], field.type)))
    with pytest.raises(DataError, match=r"a\.parquet: columns segments and rewards differ in length"):
        list(EpisodeDataset(path))


def test_a_missing_value_is_noticed(tmp_path):
    """An integer column with a null would be read as floats, and so would all its seeds."""
    path = write(tmp_path / "a.parquet", [numbered(0), numbered(1)])
    index = SCHEMA.get_field_index("seed")
    rewrite(path, lambda t: t.set_column(index, "seed", pa.array([0, None], pa.int64())))
    with pytest.raises(DataError, match=r"a\.parquet: column seed: a value is missing"):
        list(EpisodeDataset(path))


def test_an_episode_of_another_task_is_noticed(tmp_path):
    path = write(tmp_path / "a.parquet", [numbered(0), numbered(1)])
    index, field = SCHEMA.get_field_index("task"), SCHEMA.field("task")
    rewrite(path, lambda t: t.set_column(index, field, pa.array([numbered(0).task, "wordle"])))
    with pytest.raises(DataError, match=r"a\.parquet: has an episode of task 'wordle', but its metadata"):
        list(EpisodeDataset(path))


def test_an_empty_data_set_is_refused_on_request(tmp_path):
    path = write(tmp_path / "a.parquet", [])
    assert list(EpisodeDataset(path)) == []
    with pytest.raises(DataError, match="holds no episodes"):
        EpisodeDataset(path, require_nonempty=True)


def test_a_flipped_byte_in_the_data_is_noticed_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.parquet", [numbered(i, f"text {i}") for i in range(50)])
    column = pq.read_metadata(path).row_group(0).column(SCHEMA.get_field_index("segments"))
    content = bytearray(path.read_bytes())
    content[column.dictionary_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: row group 0 is damaged \(.*CRC"):
        list(EpisodeDataset(path))


@pytest.mark.slow
def test_no_flipped_byte_passes_verification(tmp_path):
    episodes = [numbered(i, "text") for i in range(3)]
    path = write(tmp_path / "a.parquet", episodes)
    content = path.read_bytes()
    noticed = 0
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            dataset = EpisodeDataset(path)
            dataset.verify()
            assert list(dataset) == episodes  # e.g. in the name of the program that wrote it
        except DataError:
            noticed += 1
    assert noticed > len(content) / 7 / 2


# --- memory ---


_pools = []
"""Kept for ever: a buffer that outlives its pool crashes the process."""


def peak_bytes(action):
    """The most that Python objects and Arrow buffers together took during `action`."""
    old, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.system_memory_pool())
    _pools.append(pool)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(old)


def test_memory_does_not_grow_with_the_file(tmp_path):
    rng = np.random.default_rng(0)

    def episodes(count):
        return (numbered(i, rng.bytes(1000).hex()) for i in range(count))

    def read(path):
        return sum(episode.length for episode in EpisodeDataset(path))

    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    write_small = peak_bytes(lambda: write(small, episodes(400), row_group_size=50))
    write_large = peak_bytes(lambda: write(large, episodes(1600), row_group_size=50))
    read_small, read_large = (peak_bytes(lambda p=p: read(p)) for p in (small, large))
    # Four times the file: only its footer grows, by about 3 kB a row group.
    assert write_large < 1.5 * write_small
    assert read_large < 1.5 * read_small
    assert read_large < large.stat().st_size / 2
