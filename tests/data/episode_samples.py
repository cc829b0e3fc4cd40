"""Episodes and a tiny task for the tests of lmrl_ray.data (importable in a spawned worker)."""

from __future__ import annotations

from hypothesis import strategies as st

from envs.core import Episode, Outcome, ScriptedPolicy, Segment, TextEnv
from envs.registry import Scale, TaskSpec

TASK = "count-up"

_int64 = st.integers(-(2**63), 2**63 - 1)
_text = st.text(st.characters(codec="utf-8"), max_size=12)
_segments = st.builds(Segment, _text, st.booleans(), st.floats(allow_nan=False, width=64), st.booleans())


def any_episode(task: str = TASK) -> st.SearchStrategy[Episode]:
    """Everything that an episode can hold and a file can keep (lone surrogates cannot)."""
    return st.builds(
        Episode,
        task=st.just(task),
        segments=st.lists(_segments, max_size=5).map(tuple),
        terminated=st.booleans(),
        truncated=st.booleans(),
        success=st.booleans(),
        seed=_int64,
        task_id=_int64,
        simulator=st.sampled_from(["rule", "kb", "engine", "lm"]),
        policy=_text,
        error=st.none() | _text,
    )


def numbered(index: int, text: str = "", error: str | None = None, turns: int = 1) -> Episode:
    """An episode that can be told from others by its seed."""
    turn = (
        Segment(f"move {text}\n", is_action=True, reward=-1.0, valid=index % 4 != 0),
        Segment("seen\n", is_action=False),
    )
    return Episode(
        task=TASK,
        segments=(Segment("start\n", is_action=False), *(turn * turns)),
        terminated=index % 2 == 0,
        truncated=index % 2 == 1,
        success=index % 2 == 0,
        seed=index,
        task_id=0,
        simulator="rule",
        policy="hand",
        error=error,
    )


class CountUp(TextEnv):
    """Say numbers until their sum reaches a target drawn from the seed."""

    def __init__(self, target: int = 20, explode: bool = False) -> None:
        super().__init__()
        self._target = target
        self._explode = explode

    def privileged(self):
        return {"sum": self._sum}

    def _reset(self, task_id):
        self._sum = int(self.np_random.integers(5))
        return f"{self._sum}\n"

    def _step(self, action):
        if self._explode and self._turn == 3:
            raise ValueError("the simulator broke")
        self._sum += int(action)
        return Outcome(f"{self._sum}\n", -1.0, terminated=self._sum >= self._target, success=True)

    def _get_state(self):
        return {"sum": self._sum}

    def _set_state(self, state):
        self._sum = state["sum"]


class RandomCounter(ScriptedPolicy):
    name = "behaviour"

    def act(self, observation):
        return f"{1 + int(self.rng.random() * 5)}\n"


def read_numbers(path):
    """A "published" format for the tests: a task id and a number on each line."""
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            task, _, value = line.strip().partition(" ")
            if not value.isdigit():
                raise ValueError(f"{path.name}, line {number}: value is {value!r}, not a number")
            episode = numbered(int(value))
            yield Episode(task, *[getattr(episode, f) for f in Episode.__slots__[1:]])


SPEC = TaskSpec(
    id=TASK,
    family="test",
    description="count up to twenty",
    entry="episode_samples:CountUp",
    observation="full",
    horizon=20,
    window=None,
    scale=Scale(-20, None, None),
    max_action_tokens=4,
    baselines={"behaviour": "episode_samples:RandomCounter"},
    best_baseline="behaviour",
    data_episodes=100,
    table1={},
    reader_entry="episode_samples:read_numbers",
)
