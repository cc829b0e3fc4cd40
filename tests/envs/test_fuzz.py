"""Ten thousand utterances a task, of any Unicode: none breaks the game or its contract."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envs.chess.engine import Engine, shared_engine
from envs.registry import get_task, task_ids
from envs.trial import Subject

UTTERANCES = 10_000
IN_A_ROW = 20
"""Utterances of one example, said in one game after the other."""

ANY_TEXT = st.text(st.characters(), max_size=40)  # lone surrogates, controls and newlines included


def utterances(subject: Subject) -> st.SearchStrategy[str]:
    """Any text, alone, or mixed with what players of the task say."""
    said = [action for seed in range(5) for action in subject.script(seed)]
    known = st.sampled_from(sorted({*said, *(word for action in said for word in action.split())}))
    return st.one_of(ANY_TEXT, known, st.lists(ANY_TEXT | known, max_size=6).map(" ".join))


@pytest.mark.slow
@pytest.mark.parametrize("task", task_ids())
def test_no_utterance_breaks_the_contract(task):
    subject = Subject(get_task(task), {})
    env, twin = subject.make(), subject.make()
    said = 0

    @settings(max_examples=UTTERANCES // IN_A_ROW, suppress_health_check=list(HealthCheck))
    @given(st.lists(utterances(subject), min_size=IN_A_ROW, max_size=IN_A_ROW), st.integers(0, 2**32))
    def play(actions, seed):
        nonlocal said
        last = subject.reset(env, seed=seed)
        for action in actions:
            if last.ended:
                subject.raises(RuntimeError, lambda: env.step(action), "step() after the end")  # noqa: B023
                last = subject.reset(env)
            twin.set_state(json.loads(json.dumps(env.get_state())))
            last = subject.step(env, action, last.info["turn"] + 1)
            again = subject.step(twin, action, last.info["turn"])
            subject.same([last], [again], "restored before an utterance")
            said += 1

    play()
    assert said >= UTTERANCES


@settings(max_examples=300)
@given(st.lists(ANY_TEXT.filter(lambda text: not text.strip().isascii()), min_size=1, max_size=5))
def test_what_is_no_move_never_reaches_the_engine(texts):
    env = get_task("chess").make()
    env.reset(seed=0)
    pid = shared_engine().pid
    ask, Engine.ask = Engine.ask, None
    try:
        for text in texts:
            assert not env.step(text)[4]["valid"]
    finally:
        Engine.ask = ask
    assert shared_engine().pid == pid
