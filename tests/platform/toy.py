"""A plugin file: a task that takes a millisecond and can break on demand, and an algorithm."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from algos.base import register_algorithm
from algos.bc import BC
from envs.core import Outcome, ScriptedPolicy, TextEnv
from envs.registry import Scale, TaskSpec, register

WORDS = ("ant\n", "bee\n", "cat\n")


class ToyEnv(TextEnv):
    """Name the animal of the task within four turns; each miss costs 1 and tells a random number.

    Args:
        raises_in: ids of the tasks in which the simulator raises at the second turn.
        kill_once: the process that finds this file missing makes it and kills itself.
        stop_once: likewise, but the process is stopped and hangs.
        log: a file to which every reset adds a line.
        meet: a reset waits until so many processes have written into `log`.
    """

    num_tasks = 5

    def __init__(
        self,
        *,
        raises_in: tuple[int, ...] = (),
        kill_once: str | None = None,
        stop_once: str | None = None,
        log: str | None = None,
        meet: int = 0,
    ) -> None:
        super().__init__()
        self._raises_in = raises_in
        self._signals = {signal.SIGKILL: kill_once, signal.SIGSTOP: stop_once}
        self._log = log
        self._meet = meet

    def privileged(self):
        return {"word": WORDS[self._task_id % 3]}

    def _reset(self, task_id):
        if self._log:
            with Path(self._log).open("a") as file:
                file.write(f"{os.getpid()}\n")
            deadline = time.monotonic() + 120
            while len(set(Path(self._log).read_text().split())) < self._meet:
                assert time.monotonic() < deadline, "the others did not come"
                time.sleep(0.05)
        return f"Animal {task_id}?\n"

    def _step(self, action):
        if self._turn == 2:
            self._break_down()
        if action == WORDS[self._task_id % 3]:
            return Outcome("Yes.\n", 0.0, terminated=True, success=True)
        number = int(self.np_random.integers(100))
        return Outcome(f"No, {number}.\n", -1.0, truncated=self._turn >= 4, valid=action in WORDS)

    def _break_down(self):
        if self._task_id in self._raises_in:
            raise RuntimeError("the simulator broke")
        for number, path in self._signals.items():
            if path is not None:
                try:
                    Path(path).touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), number)

    def _get_state(self):
        return {}

    def _set_state(self, state):
        pass


class Guess(ScriptedPolicy):
    name = "random"

    def act(self, observation):
        return WORDS[int(self.rng.integers(3))]


class Behaviour(Guess):
    name = "behaviour"


class Best(ScriptedPolicy):
    name = "optimal"

    def act(self, observation):
        return self.env.privileged()["word"]


def _spec(task: str, **over) -> TaskSpec:
    fields = {
        "family": "toy",
        "description": "Name the animal.",
        "entry": f"{__name__}:ToyEnv",
        "observation": "full",
        "horizon": 4,
        "window": None,
        "scale": Scale(minimum=-4.0, average=-2.0, maximum=0.0),
        "max_action_tokens": 4,
        "baselines": {
            "random": f"{__name__}:Guess",
            "behaviour": f"{__name__}:Behaviour",
            "optimal": f"{__name__}:Best",
        },
        "best_baseline": "optimal",
        "data_episodes": 40,
        "table1": {},
        "actions": WORDS,
        "eval_tasks": (0, 1, 2, 3, 4),
        "quick_episodes": 10,
        "paper_episodes": 20,
    }
    return register(TaskSpec(id=task, **{**fields, **over}))


_spec("toy")
_spec("toy-free", actions=None, eval_tasks=None)
"""Nothing is known of its actions, and its tasks are drawn by seed."""


@register_algorithm
class ToyBC(BC):
    """Behaviour cloning by another name."""

    id = "toy-bc"
    title = "Toy behaviour cloning"
    source = "none"


@register_algorithm
class Killed(BC):
    """Its process is killed in the first step, as by the kernel when memory runs out."""

    id = "toy-killed"
    title = "Toy that is killed"
    source = "none"

    def after_step(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
