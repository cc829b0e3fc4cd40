"""Counting what becomes of episodes, and saying so now and then."""

import re
import time

import pytest
from support import episode_of

from lmrl_ray.actors import RolloutError
from lmrl_ray.heartbeat import Tally, heartbeat

GOOD = episode_of(("?\n", False), ("x\n", True, 0.0))


def bad(seed):
    return episode_of(("?\n", False), seed=seed, task_id=3, error=f"RuntimeError: no {seed}")


def test_episodes_are_counted_and_the_first_failure_is_kept():
    tally = Tally(10, 0.5)
    tally.add([GOOD, bad(7)])
    tally.add([bad(8), GOOD, GOOD])
    assert str(tally) == "5 of 10 episodes done, 2 failed"
    assert tally.first_failure == "seed 7, task 3: RuntimeError: no 7"


def test_the_stated_share_may_fail_and_one_more_is_an_error_that_says_why():
    tally = Tally(10, 0.3)
    tally.add([bad(1), bad(2), bad(3)])
    with pytest.raises(
        RolloutError, match=r"^4 of 10 episodes failed, .* 0\.3 .*max_failed_share.*seed 1, task 3: .*no 1$"
    ):
        tally.add([bad(4)])


def test_where_none_may_fail_the_first_one_is_an_error():
    tally = Tally(1000, 0.0)
    tally.add([GOOD])
    with pytest.raises(RolloutError, match="1 of 1000 episodes failed"):
        tally.add([bad(1)])


def wait_for(count, beats):
    deadline = time.monotonic() + 30
    while len(beats) < count and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_long_wait_is_told_at_a_steady_interval_with_the_time_of_day(capsys):
    beats = []
    with heartbeat(0.02, lambda: beats.append(len(beats)) or f"beat {len(beats)}"):
        wait_for(3, beats)
    count = len(beats)
    time.sleep(0.1)
    assert count == len(beats), "it goes on after the end"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == count >= 3
    assert re.fullmatch(r"\d\d:\d\d:\d\d beat 1", lines[0])


@pytest.mark.parametrize("every_s", [0, 60.0])
def test_a_short_wait_or_an_interval_of_0_says_nothing_and_costs_no_time(capsys, every_s):
    start = time.monotonic()
    with heartbeat(every_s, lambda: "beat"):
        time.sleep(0.05)
    assert time.monotonic() - start < 10
    assert capsys.readouterr().err == ""


def test_an_error_inside_ends_it():
    with pytest.raises(ZeroDivisionError), heartbeat(60.0, lambda: "beat"):
        1 / 0
