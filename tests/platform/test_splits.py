"""Train and held-out objects, cities, buyers and wordings, as the command line reaches them."""

import pytest

from envs.car_dealer.buyers import NUM_BUYERS, NUM_TRAIN
from envs.guess_my_city.facts import city_ids
from envs.registry import get_task
from envs.twenty_questions.knowledge import split_ids
from envs.twenty_questions.parser import Guess, parse
from lmrl_ray.data import EpisodeDataset
from lmrl_ray.evaluate import requests_for

SPLITS = {
    "twenty-questions": ("split", {"train": split_ids("train"), "held-out": split_ids("held-out")}),
    "guess-my-city": ("cities", {"train": city_ids("train"), "held-out": city_ids("held-out")}),
    "car-dealer": ("split", {"train": range(NUM_TRAIN), "held-out": range(NUM_TRAIN, NUM_BUYERS)}),
}


@pytest.mark.parametrize("task", SPLITS)
def test_data_are_built_of_one_part_alone(lmrl, tmp_path, task):
    argument, parts = SPLITS[task]
    for part, ids in parts.items():
        path = tmp_path / f"{part}.parquet"
        build = ("data", "build", task, "--episodes", 150, "--out", path, "--set", f"env.{argument}={part}")
        assert lmrl(*build).code == 0
        assert {e.task_id for e in EpisodeDataset(path)} <= set(ids)
    assert set(parts["train"]).isdisjoint(parts["held-out"])
    assert 0.15 <= len(parts["held-out"]) / get_task(task).make().num_tasks <= 0.2


@pytest.mark.parametrize("task", SPLITS)
def test_wordings_of_one_part_are_not_heard_in_the_other(lmrl, tmp_path, task):
    heard = {}
    for part in ("train", "held-out"):
        path = tmp_path / f"{part}.parquet"
        assert (
            lmrl("data", "build", task, "--episodes", 200, "--out", path, "--set", f"env.split={part}").code
            == 0
        )
        said = [s for e in EpisodeDataset(path) for s in e.segments[1:] if s.valid]
        if task == "twenty-questions":  # only the player has wordings there; names are the same in any part
            heard[part] = {s.text for s in said if s.is_action and not isinstance(parse(s.text), Guess)}
        else:
            heard[part] = {s.text for s in said if not s.is_action}
    assert len(heard["train"] & heard["held-out"]) < 0.02 * len(heard["held-out"])


@pytest.mark.parametrize("task", ["twenty-questions", "guess-my-city"])
def test_an_evaluation_walks_through_the_part_that_is_asked_for(task):
    argument, parts = SPLITS[task]
    for part, ids in parts.items():
        requests = requests_for(get_task(task), 2 * len(ids), 0, {argument: part})
        assert [r.task_id for r in requests] == [*ids, *ids]
    everything = requests_for(get_task(task), 500, 0, {})
    assert len({r.task_id for r in everything}) == get_task(task).make().num_tasks
