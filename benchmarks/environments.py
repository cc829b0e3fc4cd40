"""Speed of the environments on one core: `python benchmarks/environments.py [task ...]`.

The actions are drawn beforehand by each task's `random` baseline and played again with the same
seeds, so that only the environment is timed: `steps/s` counts the steps alone, `episodes/s` the
resets too. The time is this process's own, so that other work on the machine does not count; a task
answered by another process (an engine) is timed by the clock on the wall.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter, process_time

from envs import TextEnv, get_task, task_ids

SECONDS = 1.0
"""How long actions are drawn for each task."""


def scripts(task: str, seconds: float) -> list[list[str]]:
    """The actions of the `random` baseline in the episodes of seeds 0, 1, ...; for `seconds`."""
    spec = get_task(task)
    env, policy, found = spec.make(), spec.baseline("random"), list[list[str]]()
    start = perf_counter()
    while perf_counter() - start < seconds:
        episode = spec.play(env, policy, seed=len(found))
        found.append([s.text for s in episode.segments if s.is_action])
    return found


def replay(env: TextEnv, episodes: list[list[str]], clock: Callable[[], float]) -> tuple[float, float]:
    """Seconds spent in `step`, and in all."""
    stepping, start = 0.0, clock()
    for seed, actions in enumerate(episodes):
        env.reset(seed=seed)
        step, begin = env.step, clock()
        for action in actions:
            step(action)
        stepping += clock() - begin
    return stepping, clock() - start


def main(tasks: list[str]) -> None:
    """Print a line a task."""
    print(f"{'task':<20}{'steps/s':>12}{'episodes/s':>12}")
    for task in tasks or task_ids():
        spec, episodes = get_task(task), scripts(task, SECONDS)
        clock = perf_counter if spec.simulator == "engine" else process_time
        stepping, total = replay(spec.make(), episodes, clock)
        steps = sum(map(len, episodes))
        print(f"{task:<20}{steps / stepping:>12,.0f}{len(episodes) / total:>12,.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
