"""`TASK-answers`: a dialogue task with the sides changed, for training simulators.

The agent answers what the task's behaviour policy says, one exchange an episode, and earns 1 for what
the built-in simulator could have said. Cloning recorded answers is how a simulator is trained, and its
mean return is its agreement with the built-in one.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Any

from envs.answering import Turn
from envs.core import Episode, Outcome, ScriptedPolicy, Segment, State, TextEnv
from envs.registry import ANSWERS, Scale, TaskSpec, get_task

_SAMPLE = 200
"""Exchanges in which the most frequent answer is counted."""


def answers_task(task: str) -> TaskSpec:
    """The spec of `TASK-answers`. ValueError for a task in which nobody answers."""
    game = get_task(task)
    side = game.side()
    return TaskSpec(
        id=f"{task}{ANSWERS}",
        family=game.family,
        description=f"answer in {task} as its built-in simulator does",
        entry="envs.answers:AnswersEnv",
        kwargs={"task": task},
        observation="dialogue",
        horizon=1,
        window=side.window,
        scale=Scale(minimum=0.0, average=None, maximum=None),
        max_action_tokens=side.max_tokens,
        baselines={"majority": "envs.answers:Majority"},
        best_baseline="majority",
        data_episodes=game.data_episodes,
        table1={},
        quick_episodes=500,
        paper_episodes=5000,
        listed=False,
    )


def relabelled(episode: Episode) -> Episode | None:
    """The dialogue with the answers as its actions; None where they cannot be learnt from it."""
    turns = list(get_task(episode.task).side().turns(episode))
    if not turns:
        return None
    segments: list[Segment] = []
    for turn in turns:
        segments += [Segment(turn.observation, is_action=False), Segment(turn.answer, is_action=True)]
    return Episode(
        task=f"{episode.task}{ANSWERS}",
        segments=tuple(segments),
        terminated=True,
        truncated=False,
        success=True,
        seed=episode.seed,
        task_id=episode.task_id,
        simulator=episode.policy,
        policy=episode.simulator,
    )


class AnswersEnv(TextEnv):
    """One exchange of a game that the behaviour policy plays with the built-in simulator.

    Args:
        task: the dialogue task.
        env: arguments of its environment.
    """

    def __init__(self, task: str, **env: Any) -> None:
        super().__init__()
        self._spec = get_task(task)
        self._side = self._spec.side()
        self._game = self._spec.make(**env)
        self.num_tasks = self._game.num_tasks

    def privileged(self) -> dict[str, Any]:
        """What the built-in simulator said."""
        return {"answer": self._turn_asked.answer}

    @cached_property
    def usual_answer(self) -> str:
        """The most frequent answer of the built-in simulator."""
        seeds = range(_SAMPLE)
        answers = [t.answer for seed in seeds for t in self._turns(seed, seed % self.num_tasks)]
        return Counter(answers).most_common(1)[0][0]

    def _reset(self, task_id: int) -> str:
        turns = self._turns(int(self.np_random.integers(2**31)), task_id)
        at = int(self.np_random.random() * len(turns))
        before = [] if self._side.window == 1 else turns[:at]
        self._turn_asked = turns[at]
        return "".join(t.observation + t.answer for t in before) + self._turn_asked.observation

    def _turns(self, seed: int, task_id: int) -> list[Turn]:
        episode = self._spec.play(self._game, self._spec.baseline("behaviour"), seed, task_id)
        return list(self._side.turns(episode))

    def _step(self, action: str) -> Outcome:
        agrees = self._side.agrees(self._task_id, self._turn_asked, action)
        return Outcome("\n", float(agrees), terminated=True, success=agrees)

    def _get_state(self) -> State:
        return {"turn": list(self._turn_asked)}

    def _set_state(self, state: State) -> None:
        self._turn_asked = Turn(*state["turn"])


class Majority(ScriptedPolicy):
    """Always gives the most frequent answer: what a simulator must do better than."""

    name = "majority"

    def act(self, observation: str) -> str:
        assert isinstance(self.env, AnswersEnv)
        return self.env.usual_answer
