"""`TASK-answers`: a dialogue task with the sides changed, for training simulators.

The agent answers what the task's behaviour policy says, one exchange an episode, and earns 1 for what
the built-in simulator could have said. Cloning recorded answers is how a simulator is trained, and its
mean return is its agreement with the built-in one.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Any

from envs.answering import OtherSide, Turn
from envs.core import Episode, Outcome, ScriptedPolicy, Segment, State, TextEnv
from envs.registry import ANSWERS, Scale, TaskSpec, UnknownTaskError, get_task

_LONGEST_PROMPT = 3400
"""Characters; a prompt is one observation here, and must fit into a window of 1,024 tokens."""
_SAMPLE = 50
"""Games in which the answers are counted."""


def answers_task(task: str) -> TaskSpec:
    """The spec of `TASK-answers`. UnknownTaskError for a task in which nobody answers."""
    game = get_task(task)
    if game.other_side is None:
        raise UnknownTaskError(f"task '{task}{ANSWERS}' is unknown; {task}: nobody answers here")
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
        baselines={
            "random": "envs.answers:Random",
            "majority": "envs.answers:Majority",
            "behaviour": "envs.answers:BuiltIn",
        },
        best_baseline="behaviour",
        data_episodes=game.data_episodes,
        table1={},
        quick_episodes=250,
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
        self._game = self._spec.make(**env)
        self.num_tasks, self.split_tasks = self._game.num_tasks, self._game.split_tasks

    @property
    def _side(self) -> OtherSide:
        return self._spec.side()

    def privileged(self) -> dict[str, Any]:
        """What the built-in simulator said."""
        return {"answer": self._turn_asked.answer}

    @cached_property
    def usual_answers(self) -> list[str]:
        """What the built-in simulator said in some games, as often as it said it."""
        tasks = self.split_tasks or range(self.num_tasks)
        return [t.answer for seed in range(_SAMPLE) for t in self._turns(seed, tasks[seed % len(tasks)])]

    def _reset(self, task_id: int) -> str:
        turns = self._turns(int(self.np_random.integers(2**31)), task_id)
        prompts = [t.observation for t in turns]
        if self._side.window is None:
            texts = [t.observation + t.answer for t in turns]
            prompts = ["".join(texts[:at]) + t.observation for at, t in enumerate(turns)]
        short = sum(len(p) <= _LONGEST_PROMPT for p in prompts)  # they grow with the dialogue
        at = int(self.np_random.random() * short)
        self._turn_asked = turns[at]
        return prompts[at]

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


class Random(ScriptedPolicy):
    """Gives an answer that was given in another exchange."""

    name = "random"

    def act(self, observation: str) -> str:
        answers = _env(self.env).usual_answers
        return answers[int(self.rng.random() * len(answers))]


class Majority(ScriptedPolicy):
    """Always gives the most frequent answer: what a simulator must do better than."""

    name = "majority"

    def act(self, observation: str) -> str:
        return Counter(_env(self.env).usual_answers).most_common(1)[0][0]


class BuiltIn(ScriptedPolicy):
    """The built-in simulator itself."""

    name = "behaviour"

    def act(self, observation: str) -> str:
        answer: str = self.env.privileged()["answer"]
        return answer


def _env(env: TextEnv) -> AnswersEnv:
    assert isinstance(env, AnswersEnv)
    return env
