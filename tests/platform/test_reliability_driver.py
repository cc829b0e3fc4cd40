"""A driver that the kernel kills loses no more than the steps since the last checkpoint."""

import json
import os
import signal
import time

import pytest

from lmrl_ray import checkpoint, journal

pytestmark = [pytest.mark.slow, pytest.mark.reliability]
STEPS, EVERY, KILLS = 120, 10, 2


def learnt(run):
    """All that training decides, byte for byte."""
    last = checkpoint.latest(run / "checkpoints")
    return {p.relative_to(last): p.read_bytes() for p in sorted(last.rglob("*.safetensors"))}


def saved(run):
    found = checkpoint.all_checkpoints(run / "checkpoints")
    return int(found[-1].name.removeprefix("step-")) if found else 0


def test_a_training_killed_and_resumed_ends_with_the_weights_of_an_undisturbed_one(
    toy, toy_policy, toy_data, out, lmrl, started, record_property
):
    settings = {
        "optimizer.engine": "torch",
        "training.steps": STEPS,
        "training.save_every": EVERY,
        "training.log_every": 1,
        "training.batch_episodes": 4,
        "algorithm.cql_weight": 0.1,
    }
    assigned = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    begin = ["train", "ilql", "toy", "--plugin", toy, "--init", toy_policy, "--data", toy_data, *assigned]
    again = ["train", "--resume", "killed", "--plugin", toy, "--out", out, "--json"]

    killed_at = []
    for attempt in range(KILLS):
        driver = started(*(again if attempt else [*begin, "--name", "killed", "--out", out, "--json"]))
        before = saved(out / "killed")
        while saved(out / "killed") == before:
            assert driver.poll() is None, driver.stderr.read()
            time.sleep(0.02)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
        killed_at.append(saved(out / "killed"))
    assert killed_at[-1] < STEPS, "it was over before it could be killed"

    answer = lmrl(*again)
    assert answer.code == 0, answer.stderr
    whole = lmrl(*begin, "--name", "whole", "--out", out, "--json")
    assert whole.code == 0, whole.stderr
    assert learnt(out / "killed") == learnt(out / "whole")
    assert [e.step for e in journal.read(out / "killed" / "metrics.jsonl")] == list(range(1, STEPS + 1))
    scores = [json.loads((out / run / "evaluation.json").read_text()) for run in ("killed", "whole")]
    assert scores[0] == scores[1]
    record_property(
        "reliability",
        f"driver killed by SIGKILL {KILLS} times in {STEPS} steps (last checkpoints: {killed_at}); "
        f"weights, optimiser and score are the undisturbed run's, bit for bit",
    )
