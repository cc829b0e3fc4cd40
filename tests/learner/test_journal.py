"""The journal: every step once, whatever was restarted, and readable while it grows."""

from __future__ import annotations

from lmrl_ray.journal import Entry, Journal, JournalReader, read


def entry(step, **metrics):
    return Entry(step, 100.0 + step, metrics or {"loss": 1.0 / step})


def filled(path, *steps):
    journal = Journal(path, 0)
    for step in steps:
        journal.append(entry(step))
    return journal


def test_what_was_appended_is_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path, 0)
    entries = [entry(1, loss=0.1, lr=1e-300), entry(2, loss=-0.0), Entry(3, 103.0, {})]
    for e in entries:
        journal.append(e)
    assert read(path) == entries


def test_a_restart_cuts_the_journal_back_to_its_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    filled(path, 10, 20, 30)
    journal = Journal(path, 20)
    assert [e.step for e in read(path)] == [10, 20]
    journal.append(entry(30))
    assert [e.step for e in read(path)] == [10, 20, 30]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_journal_begins_empty_where_there_was_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read(path) == []
    Journal(path, 0)
    assert path.exists()
    assert read(path) == []


def test_a_line_in_the_making_is_left_out_until_it_is_whole(tmp_path):
    path = tmp_path / "metrics.jsonl"
    filled(path, 1)
    reader = JournalReader(path)
    line = '{"step": 2, "time": 5.0, "loss": 0.5}\n'
    with path.open("a") as file:
        file.write(line[:17])
        file.flush()
        assert [e.step for e in reader.new()] == [1]
        assert reader.new() == []
        file.write(line[17:])
    assert reader.new() == [Entry(2, 5.0, {"loss": 0.5})]


def test_half_a_line_that_a_killed_process_left_is_dropped_by_the_restart(tmp_path):
    path = tmp_path / "metrics.jsonl"
    filled(path, 1, 2)
    with path.open("a") as file:
        file.write('{"step": 3, "ti')
    Journal(path, 2).append(entry(3))
    assert [e.step for e in read(path)] == [1, 2, 3]


def test_a_reader_gets_each_entry_once_and_starts_over_when_the_journal_was_cut_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = JournalReader(path)
    assert reader.new() == []
    journal = filled(path, 1, 2, 3)
    assert [e.step for e in reader.new()] == [1, 2, 3]
    journal.append(entry(4))
    assert [e.step for e in reader.new()] == [4]
    Journal(path, 2).append(entry(3))
    assert [e.step for e in reader.new()] == [1, 2, 3]


def test_a_reader_that_was_away_for_several_restarts_starts_over(tmp_path):
    """A file system gives the numbers of deleted files to new ones."""
    path = tmp_path / "metrics.jsonl"
    filled(path, 1, 2, 3, 4)
    reader = JournalReader(path)
    assert len(reader.new()) == 4
    for restarts in range(1, 5):
        for start in [*range(restarts), 1]:
            journal = Journal(path, min(start, 1))
        journal.append(entry(2, loss=0.25))
        assert [e.step for e in reader.new()] == [e.step for e in read(path)]
