"""Our house against TextWorld's, command by command. Compiles a game for each start room."""

import re

import numpy as np
import pytest
import textworld

from envs.conformance import check_env
from envs.registry import make
from envs.text_nav.behaviour import admissible_commands
from envs.text_nav.house import FIRST_PLACES, ROOMS, House

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Game .* is not fully supported"),  # by jericho; it is
]

RANDOM_WALKS = 25
"""For each of the eight start rooms."""
GUIDED_WALKS = 5
"""Half random, half by the walkthrough, so that some of them win."""


@pytest.fixture(scope="module")
def theirs():
    return make("text-nav-fo", engine="textworld")


def things_in(text):
    return {thing for thing in FIRST_PLACES if re.search(rf"\b{thing}\b", text)}


def visible(env):
    return set(House.from_state(env.privileged()).visible())


def compare(ours, theirs, our_text, their_text):
    """The same world state, the same admissible commands."""
    assert ours.privileged() == theirs.privileged()
    assert admissible_commands(our_text) == admissible_commands(their_text)
    carried = set(theirs.privileged()["carried"])
    assert things_in(their_text.splitlines()[-2]) == carried


def walk(ours, theirs, room, seed, guided):
    """Play the same commands in both; returns whether it was won and the number of commands."""
    rng = np.random.default_rng(seed)
    options = {"task_id": ROOMS.index(room)}
    our_text, _ = ours.reset(seed=seed, options=options)
    their_text, _ = theirs.reset(seed=seed, options=options)
    compare(ours, theirs, our_text, their_text)
    for count in range(1, 16):
        commands = admissible_commands(our_text)
        command = commands[int(rng.random() * len(commands))]
        if guided and rng.random() < 0.8:
            command = ours.privileged()["walkthrough"][0]
        our_text, *our_end = ours.step(command)
        their_text, *their_end = theirs.step(command)
        assert our_end == their_end, command  # reward, terminated, truncated, info
        if our_end[1]:
            return our_end[0] == 1.0, count
        compare(ours, theirs, our_text, their_text)
        if command.startswith("go "):  # only then do both tell the room again
            room_text = their_text.partition("You are carrying")[0]
            assert things_in(room_text) == visible(theirs)
            assert things_in(our_text.splitlines()[0]) == visible(ours)
    return False, count


@pytest.mark.parametrize("room", ROOMS)
def test_both_engines_agree_at_every_step(theirs, room):
    ours = make("text-nav-fo")
    walks = [
        walk(ours, theirs, room, seed, guided=seed >= RANDOM_WALKS)
        for seed in range(RANDOM_WALKS + GUIDED_WALKS)
    ]
    assert max(count for _, count in walks) == 15
    assert any(won for won, _ in walks)


def test_the_textworld_engine_conforms():
    check_env("text-nav-fo", engine="textworld")


def test_textworld_shows_neither_room_nor_inventory_when_partial():
    env = make("text-nav-po", engine="textworld")
    told = [env.reset(seed=0, options={"task_id": ROOMS.index("kitchen")})[0]]
    tour = ("west", "east", "north", "south", "east", "east", "east", "south", "west", "north")
    told += [env.step(f"go {direction}")[0] for direction in tour]
    told += [env.step("take fresh food from table")[0], env.step("look")[0]]
    for text in told:
        assert not re.search("|".join(ROOMS), text, re.IGNORECASE)
        assert not re.search("carrying|-=|=-|>", text)
    assert "fresh food" in env.privileged()["carried"]


def test_what_is_not_admissible_never_reaches_textworld(theirs):
    theirs.reset(seed=0, options={"task_id": 0})
    before = theirs.privileged()
    for text in ("restart", "quit", "undo", "look", "go north", "tw-extra-infos score"):
        answer, reward, terminated, truncated, info = theirs.step(text)
        assert answer.startswith("That is not an admissible command.\n")
        assert (reward, terminated, truncated, info["valid"]) == (0.0, False, False, False)
    assert theirs.privileged() == before


def test_the_simulator_is_named_engine(theirs):
    assert theirs.simulator == "engine"
    assert make("text-nav-fo").simulator == "rule"
    assert textworld.__version__.startswith("1.7")
