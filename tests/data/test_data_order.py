"""The training order: every epoch a permutation, the same for any number of ranks, by step alone."""

from collections import Counter

import numpy as np
import pytest
from episode_samples import numbered
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_files import peak_bytes, write

from lmrl_ray.data import DataError, EpisodeDataset, EpisodeOrder, ShardReader
from lmrl_ray.seeding import episode_seed

SIZES = (1, 3, 4, 22, 41)
GROUP = 4
"""Episodes in a row group of these tests."""


class CountingDataset(EpisodeDataset):
    """Counts the row groups that are read in full."""

    reads = 0

    def read_row_group(self, index, columns=None):
        self.reads += columns is None
        return super().read_row_group(index, columns)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("order")
    return {
        n: CountingDataset(write(folder / f"{n}.parquet", map(numbered, range(n)), row_group_size=GROUP))
        for n in SIZES
    }


sizes = st.sampled_from(SIZES)
sizes_and_batches = sizes.flatmap(lambda n: st.tuples(st.just(n), st.integers(1, 2 * n + 1)))
seeds = st.integers(0, 2**64)
blocks = st.integers(1, 5)


def seeds_of(episodes):
    return [episode.seed for episode in episodes]


@settings(max_examples=60, deadline=None)
@given(n=sizes, seed=seeds, block=blocks, epoch=st.integers(0, 3))
def test_every_epoch_is_a_permutation(datasets, n, seed, block, epoch):
    order = datasets[n].plan(seed, block)
    rows = [order[p] for p in range(epoch * n, (epoch + 1) * n)]
    assert sorted(rows) == [(i // GROUP, i % GROUP) for i in range(n)]


@settings(max_examples=30, deadline=None)
@given(
    size=sizes_and_batches,
    seed=seeds,
    block=blocks,
    world=st.integers(1, 5),
    steps=st.lists(st.integers(0, 40), min_size=1, max_size=3),
)
def test_the_global_batch_does_not_depend_on_the_number_of_ranks(datasets, size, seed, block, world, steps):
    n, batch_size = size
    dataset = datasets[n]
    order = dataset.plan(seed, block)
    ranks = [
        ShardReader(dataset, order, batch_size=batch_size, rank=r, world_size=world) for r in range(world)
    ]
    for step in steps:
        positions = range(step * batch_size, (step + 1) * batch_size)
        rows = [order[p] for p in positions]
        for rank, reader in enumerate(ranks):
            expected = [
                group * GROUP + row
                for p, (group, row) in zip(positions, rows, strict=True)
                if p % world == rank
            ]
            assert seeds_of(reader.batch(step)) == expected


@settings(max_examples=20, deadline=None)
@given(size=sizes_and_batches, seed=seeds, start=st.integers(0, 10))
def test_a_resumed_reader_goes_on_as_if_it_had_never_stopped(datasets, size, seed, start):
    n, batch_size = size

    def reader():
        return ShardReader(
            datasets[n], datasets[n].plan(seed, 2), batch_size=batch_size, rank=1, world_size=2
        )

    unbroken, resumed = reader(), reader()
    sequence = [unbroken.batch(step) for step in range(start + 4)]
    assert [resumed.batch(step) for step in range(start, start + 4)] == sequence[start:]
    assert resumed.batch(0) == sequence[0]


def test_batches_hold_whole_episodes(datasets):
    order = datasets[22].plan(0)
    (episode,) = ShardReader(datasets[22], order, batch_size=1).batch(5)
    group, row = order[5]
    assert episode == numbered(group * GROUP + row)


def test_the_last_batch_of_an_epoch_runs_into_the_next(datasets):
    reader = ShardReader(datasets[3], datasets[3].plan(0), batch_size=2)
    drawn = Counter(seed for step in range(3) for seed in seeds_of(reader.batch(step)))
    assert drawn == {0: 2, 1: 2, 2: 2}


def test_seeds_epochs_and_blocks_are_shuffled_differently(datasets):
    dataset, n = datasets[41], 41
    order = dataset.plan(0)
    epochs = {tuple(order[p] for p in range(e * n, (e + 1) * n)) for e in range(4)}
    others = {tuple(dataset.plan(seed)[p] for p in range(n)) for seed in (1, 2, 2**32)}
    assert len(epochs | others) == 7


def test_rows_are_shuffled_anew_in_each_epoch_and_block():
    one_block = EpisodeOrder([np.arange(50)], 0)
    epochs = {tuple(one_block.block_at(50 * e).rows) for e in range(3)}
    two_blocks = EpisodeOrder([np.arange(50)] * 2, 0, shuffle_block=1)
    parts = {tuple(two_blocks.block_at(50 * b).rows) for b in range(2)}
    assert len(epochs) == 3
    assert len(parts) == 2


def test_episodes_are_shuffled_over_a_whole_block(datasets):
    order = datasets[41].plan(0, shuffle_block=11)
    assert len({order[p][0] for p in range(8)}) > 2
    one_group_at_a_time = datasets[41].plan(0, shuffle_block=1)
    assert all(len({one_group_at_a_time[p][0]}) == 1 for p in range(41))


def test_failed_episodes_are_never_drawn(tmp_path):
    episodes = [numbered(i, error="crashed" if i % 3 == 0 else None) for i in range(20)]
    dataset = EpisodeDataset(write(tmp_path / "a.parquet", episodes, row_group_size=3))
    reader = ShardReader(dataset, dataset.plan(0), batch_size=13)
    assert sorted(seeds_of(reader.batch(0))) == [i for i in range(20) if i % 3]


def test_a_filter_leaves_out_more(datasets):
    dataset = datasets[22]
    keep = np.arange(22) % 5 == 0
    order = dataset.plan(0, keep=keep)
    assert order.epoch_length == 5
    reader = ShardReader(dataset, order, batch_size=5)
    for step in range(4):
        assert sorted(seeds_of(reader.batch(step))) == [0, 5, 10, 15, 20]


def test_an_order_over_nothing_is_a_clear_error(tmp_path, datasets):
    failed = EpisodeDataset(write(tmp_path / "a.parquet", [numbered(0, error="crashed")]))
    empty = EpisodeDataset(write(tmp_path / "b.parquet", []))
    for dataset in (failed, empty):
        with pytest.raises(DataError, match="no episode to train on"):
            dataset.plan(0)
    with pytest.raises(ValueError, match=r"keep: has shape \(3,\), it should be \(22,\)"):
        datasets[22].plan(0, keep=np.ones(3, dtype=bool))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0"),
        ({"batch_size": 1, "rank": 2, "world_size": 2}, r"rank: 2 is not in \[0, 2\)"),
    ],
)
def test_a_reader_refuses_what_makes_no_sense(datasets, arguments, message):
    with pytest.raises(ValueError, match=message):
        ShardReader(datasets[4], datasets[4].plan(0), **arguments)


def test_an_order_refuses_what_makes_no_sense():
    rows = [np.arange(3)]
    with pytest.raises(ValueError, match="seed: -1"):
        EpisodeOrder(rows, -1)
    with pytest.raises(ValueError, match="shuffle_block: 0"):
        EpisodeOrder(rows, 0, 0)
    with pytest.raises(ValueError, match="no episode"):
        EpisodeOrder([], 0)
    with pytest.raises(IndexError, match="position: -1"):
        EpisodeOrder(rows, 0)[-1]


def test_sequential_steps_read_each_row_group_once_an_epoch(datasets):
    dataset = CountingDataset(datasets[41].path)
    reader = ShardReader(dataset, dataset.plan(0, 2), batch_size=1, rank=0, world_size=2)
    for step in range(3 * 41):
        reader.batch(step)
    assert dataset.reads <= 3 * dataset.num_row_groups
    dataset.reads = 0
    ShardReader(dataset, dataset.plan(0, 2), batch_size=1).batch(10_000)
    assert dataset.reads <= 2


def test_memory_is_a_block_whatever_the_size_of_the_file(tmp_path):
    rng = np.random.default_rng(0)

    def peak(count):
        path = tmp_path / f"{count}.parquet"
        episodes = (numbered(i, rng.bytes(1000).hex()) for i in range(count))
        dataset = EpisodeDataset(write(path, episodes, row_group_size=10))
        reader = ShardReader(dataset, dataset.plan(0, 4), batch_size=20)

        def read():
            for step in range(count // 20):
                reader.batch(step)

        return peak_bytes(read)

    small, large = peak(400), peak(1600)
    assert large < 1.5 * small


def test_episode_seeds_are_distinct_and_pinned():
    drawn = {episode_seed(seed, index) for seed in range(20) for index in range(200)}
    assert len(drawn) == 20 * 200
    assert all(0 <= seed < 2**63 for seed in drawn)
    assert episode_seed(0, 0) == 4334430513956379144
    assert episode_seed(7, 1240) == 384827429080393091
    with pytest.raises(ValueError, match="neither may be negative"):
        episode_seed(-1, 0)
