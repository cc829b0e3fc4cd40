"""Many ask, one model answers: in batches, in order, in time, or with an error that names it."""

import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import tiny_language_model

from envs.answering import Request
from envs.registry import get_task
from lmrl_ray import simulators
from lmrl_ray.simulators import SimulatorError, located
from lmrl_ray.simulators.batching import BatchedModel


class Echo:
    """Says the prompt; waits while `gate` is closed."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()

    def lines(self, requests):
        self.gate.wait()
        self.batches.append(len(requests))
        return [r.prompt for r in requests]


def ask(model, text):
    return model.complete(Request("", text, 8))


def ask_many(model, count):
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda i: ask(model, str(i)), range(count)))


def test_those_who_ask_at_a_time_are_answered_in_batches():
    echo = Echo()
    model = BatchedModel(lambda: echo, "echo", max_batch=8)
    assert ask_many(model, 32) == [str(i) for i in range(32)]
    assert sum(echo.batches) == 32
    assert len(echo.batches) < 32
    assert max(echo.batches) == model.largest_batch <= 8


def test_the_weights_are_read_once_and_only_when_they_are_needed():
    reads = []
    model = BatchedModel(lambda: reads.append(1) or Echo(), "echo")
    assert not reads
    ask_many(model, 4)
    ask_many(model, 4)
    assert reads == [1]


def test_whoever_waits_too_long_gets_an_error_that_names_the_model():
    echo = Echo()
    echo.gate.clear()
    model = BatchedModel(lambda: echo, "lm:slow", timeout_s=0.2)
    start = time.monotonic()
    with pytest.raises(SimulatorError, match=r"simulator 'lm:slow' gave no answer for 0\.2 s"):
        ask(model, "a")
    assert time.monotonic() - start < 10
    echo.gate.set()
    assert ask(model, "b") == "b"


def test_a_full_queue_holds_askers_back_and_loses_none():
    echo = Echo()
    echo.gate.clear()
    model = BatchedModel(lambda: echo, "lm:full", max_batch=1, max_waiting=2)
    with ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(ask, model, str(i)) for i in range(12)]
        while not model._waiting.full():
            time.sleep(0.01)
        time.sleep(0.1)
        assert model._waiting.qsize() == 2
        assert not any(a.done() for a in answers)
        echo.gate.set()
        assert [a.result(timeout=30) for a in answers] == [str(i) for i in range(12)]


def test_no_room_for_too_long_is_an_error_that_says_so():
    echo = Echo()
    echo.gate.clear()
    model = BatchedModel(lambda: echo, "lm:full", max_batch=1, max_waiting=1, timeout_s=0.3)
    with ThreadPoolExecutor(4) as pool:
        errors = [str(e.exception(timeout=30)) for e in [pool.submit(ask, model, "a") for _ in range(4)]]
    echo.gate.set()
    assert any("had 1 requests waiting and no room for one more for 0.3 s" in e for e in errors)


def test_what_an_asker_gave_up_is_not_answered():
    echo = Echo()
    echo.gate.clear()
    model = BatchedModel(lambda: echo, "echo", max_batch=1, timeout_s=0.2)
    with ThreadPoolExecutor(3) as pool:
        assert all(pool.submit(ask, model, "a").exception(timeout=30) for _ in range(3))
    echo.gate.set()
    assert ask(model, "b") == "b"
    assert sum(echo.batches) == 2  # the one that was at work, and "b"


def test_a_model_that_fails_tells_everyone_and_goes_on():
    class Fails(Echo):
        def lines(self, requests):
            if requests[0].prompt == "bad":
                raise ValueError("no such token")
            return super().lines(requests)

    model = BatchedModel(Fails, "lm:x")
    with pytest.raises(SimulatorError, match="simulator 'lm:x': ValueError: no such token"):
        ask(model, "bad")
    assert ask(model, "good") == "good"


# --- by name -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulator") / "model"
    tiny_language_model(["Is it alive?\nYes.\n"]).save(folder)
    return folder


def test_a_folder_is_found_by_name_once_in_a_process(folder):
    model = simulators.load(f"lm:{folder}")
    assert model is simulators.load(f"lm:{folder}")
    assert copy.deepcopy(model) is model
    env = get_task("twenty-questions").make(simulator=f"lm:{folder}")
    assert env.simulator == "lm"
    env.reset(seed=0)
    assert env.step("Is it alive?\n")[1] == -1.0


def test_a_folder_that_is_not_there_is_an_error_that_says_how_to_get_one(tmp_path):
    with pytest.raises(SimulatorError, match="no such folder; train one with `lmrl simulator train TASK`"):
        get_task("twenty-questions").make(simulator=f"lm:{tmp_path}/none")


def test_a_folder_without_a_model_is_an_error(tmp_path):
    with pytest.raises(SimulatorError, match="could not be loaded"):
        get_task("twenty-questions").make(simulator=f"lm:{tmp_path}")


def test_a_run_without_a_checkpoint_is_an_error(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(SimulatorError, match="the run has no whole checkpoint; train it first"):
        simulators.load(f"lm:{tmp_path}")


def test_a_relative_folder_is_named_for_processes_elsewhere(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert located({"simulator": "lm:model", "split": "train"}) == {
        "simulator": f"lm:{folder}",
        "split": "train",
    }
    assert located({"simulator": "lm:gpt2"}) == {"simulator": "lm:gpt2"}
    assert located({"simulator": "api:m"}) == {"simulator": "api:m"}
