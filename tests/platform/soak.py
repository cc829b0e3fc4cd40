"""Train by PPO on the toy task, a round of a few episodes each step, and print what the process holds.

    soak.py FOLDER POLICY DATA STEPS

One line of JSON: for each step that is looked at, the seconds since the first step and the process's
resident bytes, open files and threads.
"""

import gc
import json
import sys
import time
from pathlib import Path

import psutil

from lmrl_ray.config import parse
from lmrl_ray.learner import LearnerJob, LocalContext, learn
from lmrl_ray.plugins import load_plugins

LOOK_EVERY = 100


def config_of(steps: int) -> dict:
    plugins = [str(Path(__file__).with_name("toy.py"))]
    load_plugins(plugins)
    values = {
        "algo": "ppo",
        "task": "toy",
        "plugins": plugins,
        "optimizer": {"engine": "torch", "lr": 1e-4},
        "training": {
            "steps": steps,
            "batch_episodes": 4,
            "save_every": 100,
            "eval_every": 100,
            "eval_episodes": 2,
            "log_every": 1,
        },
        "online": {"episodes": 4},
        "resources": {"slots": 4, "heartbeat_s": 0},
    }
    return parse(values).dump()


def main() -> None:
    folder, policy, data, steps = sys.argv[1:]
    process, begin, seen = psutil.Process(), time.monotonic(), []

    def look(step: int, metrics: dict[str, float]) -> None:
        assert metrics["rollout/episodes"] == 4
        if step % LOOK_EVERY == 0:
            gc.collect()
            seen.append(
                {
                    "step": step,
                    "seconds": time.monotonic() - begin,
                    "resident": process.memory_info().rss,
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                }
            )

    Path(folder).mkdir(exist_ok=True)
    job = LearnerJob(config_of(int(steps)), folder, data, policy)
    assert learn(job, LocalContext(job.checkpoints, keep=2, on_metrics=look)) == int(steps)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
