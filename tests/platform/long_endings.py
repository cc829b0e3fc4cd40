"""A plugin file: a task whose episodes are one action and a long text, so that they weigh something."""

from __future__ import annotations

from envs.core import Outcome, TextEnv
from envs.registry import Scale, TaskSpec, register

STORY = "No, the bee and the cat sleep.\n" * 2000


class LongEndingEnv(TextEnv):
    """Say anything, hear a story. It is the last observation, which need not fit into a model's window."""

    num_tasks = 5

    def privileged(self):
        return {}

    def _reset(self, task_id):
        return f"Animal {task_id}?\n"

    def _step(self, action):
        number = int(self.np_random.integers(100))
        return Outcome(f"{number}. {STORY}", float(number), terminated=True, success=True)

    def _get_state(self):
        return {}

    def _set_state(self, state):
        pass


register(
    TaskSpec(
        id="long-endings",
        family="toy",
        description="Say anything.",
        entry=f"{__name__}:LongEndingEnv",
        observation="full",
        horizon=1,
        window=None,
        scale=Scale(minimum=0.0, average=50.0, maximum=99.0),
        max_action_tokens=4,
        baselines={},
        best_baseline="none",
        data_episodes=1,
        table1={},
        actions=None,
        eval_tasks=(0, 1, 2, 3, 4),
        quick_episodes=5,
        paper_episodes=5,
    )
)
