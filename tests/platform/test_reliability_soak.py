"""Online iterations hold as much at the end as near the beginning: `make reliability` runs a thousand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import FULL, tiny_language_model

pytestmark = [pytest.mark.slow, pytest.mark.reliability]
ITERATIONS, WARM = (1000, 200) if FULL else (300, 100)
GROWTH_BYTES = (ITERATIONS - WARM) * 26_000
"""Above what the allocator's fragments took in trials: 9 MiB of a thousand iterations, 3 MiB of 300."""


@pytest.fixture
def smallest_policy(tmp_path):
    """Of one layer: what is to be seen is the platform's, not the network's."""
    texts = ["Animal 3?\nNo, 71.\nYes.\n", "ant\n", "bee\n", "cat\n"]
    tiny_language_model(texts, width=16, layers=1).save(tmp_path / "policy")
    return tmp_path / "policy"


def test_many_online_iterations_grow_neither_memory_nor_open_files(
    smallest_policy, toy_data, tmp_path, record_property
):
    """In a process of its own, whose memory is not that of the tests before."""
    script, temporary = Path(__file__).with_name("soak.py"), tmp_path / "temporary"
    temporary.mkdir()
    ended = subprocess.run(
        [sys.executable, script, tmp_path / "run", smallest_policy, toy_data, str(ITERATIONS)],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert ended.returncode == 0, ended.stderr
    seen = {s["step"]: s for s in json.loads(ended.stdout.splitlines()[-1])}
    warm, last = seen[WARM], seen[ITERATIONS]
    grown = {key: last[key] - warm[key] for key in ("resident", "files", "threads")}
    record_property(
        "reliability",
        f"{ITERATIONS} online iterations in {last['seconds']:.0f} s; from iteration {WARM} on: "
        f"memory {grown['resident'] / 2**20:+.1f} MiB of {warm['resident'] / 2**20:.0f}, "
        f"open files {grown['files']:+d} of {warm['files']}, threads {grown['threads']:+d}",
    )
    assert grown["files"] <= 0
    assert grown["threads"] <= 0
    assert grown["resident"] < GROWTH_BYTES
    assert list(temporary.iterdir()) == []
