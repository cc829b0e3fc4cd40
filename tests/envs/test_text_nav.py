import json
import re
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from envs.conformance import check_env
from envs.core import Episode
from envs.registry import get_task, make
from envs.text_nav.behaviour import admissible_commands
from envs.text_nav.house import (
    COMMANDS,
    EATEN,
    EXITS,
    FIRST_PLACES,
    FURNITURE,
    HANDS,
    ROOMS,
    House,
)
from envs.text_nav.published import read_published
from envs.text_nav.wording import PLAIN_VERSIONS, VERSIONS, Wording, draw_versions

FIXTURES = Path(__file__).parents[1] / "fixtures" / "text_nav"
WALKTHROUGH = (
    "take stale food from table",
    "go west",
    "go west",
    "open fridge",
    "insert stale food into fridge",
    "close fridge",
)
BOTH = pytest.mark.parametrize("task", ["text-nav-fo", "text-nav-po"])


def start(task, room, seed=0, **overrides):
    env = make(task, **overrides)
    return env, env.reset(seed=seed, options={"task_id": ROOMS.index(room)})[0]


def play(env, *commands):
    return [env.step(f"{command}\n") for command in commands]


def behave(task, policy, episodes):
    spec = get_task(task)
    env = spec.make()
    return [spec.play(env, spec.baseline(policy), seed) for seed in range(episodes)]


def names_in(text, names):
    return [name for name in names if re.search(rf"\b{name}\b", text)]


@st.composite
def walked_houses(draw):
    """A house after some admissible commands."""
    house = House(draw(st.sampled_from(ROOMS)))
    for choice in draw(st.lists(st.integers(0, 10**6), max_size=25)):
        commands = house.admissible()
        house.do(COMMANDS[commands[choice % len(commands)]])
        if house.won or house.lost:
            break
    return house


@BOTH
def test_the_environment_conforms(task):
    check_env(task)


def test_the_house_is_the_published_one():
    distance = {"kitchen": 0}
    for _ in ROOMS:
        for room, ways in EXITS.items():
            near = [distance[other] for other in ways.values() if other in distance]
            if near and room not in distance:
                distance[room] = min(near) + 1
    assert distance == {
        "kitchen": 0,
        "dining room": 1,
        "garden": 1,
        "backyard": 1,
        "living room": 2,
        "bedroom": 3,
        "office": 3,
        "bathroom": 4,
    }
    assert EXITS["living room"] == {"east": "bedroom", "south": "office", "west": "dining room"}


def test_the_walkthrough_is_as_long_as_published_from_every_room():
    lengths = {room: len(House(room).walkthrough()) for room in ROOMS}
    assert lengths == {
        "living room": 6,
        "bedroom": 7,
        "office": 7,
        "dining room": 7,
        "kitchen": 8,
        "bathroom": 8,
        "garden": 9,
        "backyard": 9,
    }
    assert tuple(House("living room").walkthrough()) == WALKTHROUGH


@given(walked_houses())
def test_the_walkthrough_wins_from_anywhere_by_admissible_commands(house):
    for command in house.walkthrough():
        assert command in house.admissible()
        house.do(COMMANDS[command])
    assert house.won != house.lost


@given(walked_houses())
def test_the_admissible_commands_are_exactly_those_that_the_rules_allow(house):
    assert house.admissible() == sorted(
        text for text, command in COMMANDS.items() if _is_allowed(house, text, command)
    )


def _is_allowed(house, text, command):
    """TextWorld's preconditions, written down a second time and one command at a time."""
    verb, thing, target = command
    if verb == "go":
        return thing in EXITS[house.room]
    furniture = FURNITURE.get(house.room)
    if target and (furniture is None or furniture.name != target):
        return False
    if verb in ("open", "close"):
        return (target in house.open) == (verb == "close")
    if target in ("chest", "fridge") and target not in house.open:
        return False
    if verb == "take":
        return house.places[thing] == (furniture.id if target else house.room)
    return house.places[thing] == HANDS


@given(walked_houses())
def test_a_house_survives_its_state_as_json(house):
    assert House.from_state(json.loads(json.dumps(house.to_state()))) == house


def test_closing_the_fridge_on_the_stale_food_wins():
    env, _ = start("text-nav-fo", "living room")
    *before, last = play(env, *WALKTHROUGH)
    assert all(step[1:4] == (0.0, False, False) for step in before)
    assert last[1:4] == (1.0, True, False)
    assert last[4]["success"]
    assert "Admissible" not in last[0]


def test_stale_food_in_an_open_fridge_does_not_win_yet():
    env, _ = start("text-nav-fo", "living room")
    *_, last = play(env, *WALKTHROUGH[:-1], "go east")
    assert last[1:4] == (0.0, False, False)


def test_eating_the_stale_food_ends_the_game_with_nothing():
    env, _ = start("text-nav-po", "living room")
    *_, last = play(env, "take stale food from table", "eat stale food")
    assert last[1:4] == (0.0, True, False)
    assert not last[4]["success"]


def test_eating_fresh_food_goes_on():
    env, _ = start("text-nav-fo", "living room")
    *_, last = play(env, "take fresh food from table", "eat fresh food")
    assert last[1:4] == (0.0, False, False)
    assert env.privileged()["places"]["fresh food"] == EATEN


def test_the_fifteenth_command_is_the_last_and_a_truncation():
    env, _ = start("text-nav-fo", "garden")
    steps = play(env, *["go south", "go north"] * 7, "go south")
    assert [step[3] for step in steps] == [False] * 14 + [True]
    assert not any(step[2] for step in steps)
    assert admissible_commands(steps[-1][0]) == ["go east", "go north", "go west", "open fridge"]


def test_winning_with_the_last_command_is_a_win_and_no_truncation():
    env, _ = start("text-nav-fo", "living room", horizon=6)
    assert play(env, *WALKTHROUGH)[-1][1:4] == (1.0, True, False)


@pytest.mark.parametrize(
    "text",
    ["go north", "open fridge", "take bowl from table", "look", "inventory", "examine table",
     "n", "restart", "take stale food\ngo west", "", "\ud800", "go west " * 2000],
)  # fmt: skip
def test_what_is_not_admissible_costs_a_turn_and_changes_nothing(text):
    env, observation = start("text-nav-fo", "living room")
    before = env.privileged()
    answer, reward, terminated, truncated, info = env.step(text)
    assert env.privileged() == before
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert (info["valid"], info["turn"]) == (False, 1)
    assert admissible_commands(answer) == admissible_commands(observation)


def test_case_and_spaces_around_a_command_do_not_matter():
    env, _ = start("text-nav-fo", "living room")
    assert play(env, "  Take  STALE food from table ")[0][4]["valid"]


def test_the_full_observation_names_room_and_inventory_at_every_step():
    env, observation = start("text-nav-fo", "living room")
    for command in (*WALKTHROUGH[:2], "look", *WALKTHROUGH[2:-1]):
        status = observation.splitlines()[-2]
        hidden = env.privileged()
        assert names_in(status, ROOMS) == [hidden["room"]]
        assert names_in(status, FIRST_PLACES) == hidden["carried"]
        observation = env.step(command)[0]


CHOICES = st.one_of(st.integers(0, 99), st.sampled_from(["look", "inventory", "where am i"]))


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(CHOICES))
def test_the_partial_observation_names_no_room(seed, choices):
    env = make("text-nav-po")
    observation, _ = env.reset(seed=seed)
    for choice in choices:
        assert not names_in(observation.lower(), ROOMS)
        listed = admissible_commands(observation)
        action = choice if isinstance(choice, str) else listed[choice % len(listed)]
        observation, _, terminated, truncated, _ = env.step(f"{action}\n")
        if terminated or truncated:
            break
    assert not names_in(observation.lower(), ROOMS)


def test_full_and_partial_differ_by_the_errand_and_the_status_line_alone():
    full, told = start("text-nav-fo", "office", seed=5)
    partial, hidden = start("text-nav-po", "office", seed=5)
    assert told.splitlines()[1:-2] == hidden.splitlines()[1:-1]
    for command in ("open chest", "take utensils from chest", "go north"):
        *text, _status, commands = full.step(command)[0].splitlines()
        assert [*text, commands] == partial.step(command)[0].splitlines()


@example(House("garden", {**FIRST_PLACES, "bowl": "garden", "plate": "garden"}), 0)
@given(walked_houses(), st.integers(0, 99))
def test_a_room_is_told_with_exactly_what_can_be_seen_in_it(house, seed):
    text = Wording(draw_versions(np.random.default_rng(seed))).room(house)
    assert sorted(names_in(text, FIRST_PLACES)) == sorted(house.visible())
    assert names_in(text, ("north", "south", "east", "west")) == [
        way for way in ("north", "south", "east", "west") if way in EXITS[house.room]
    ]
    assert not names_in(text, ROOMS)


def test_every_version_of_every_sentence_can_be_said():
    house = House("office", open={"chest"})
    for version in range(VERSIONS):
        wording = Wording([version] * len(PLAIN_VERSIONS))
        said = [wording.goal(True), wording.goal(False), wording.status(house)]
        said += [wording.verdict(True), wording.verdict(False), wording.refusal(None)]
        said += [wording.reply(house, c) for c in COMMANDS.values() if c.verb != "go"]
        said += [wording.refusal(command) for command in COMMANDS.values()]
        assert not [text for text in said if re.search(r"[{}\n]|  ", text) or text[-1] not in ".!"]


def test_the_words_vary_by_seed_and_stay_within_an_episode():
    rooms = set()
    for seed in range(12):
        env, first = start("text-nav-po", "garden", seed=seed)
        *_, back = play(env, "go south", "go north")
        assert back[0].splitlines() == first.splitlines()[1:]
        rooms.add(back[0])
    assert len(rooms) == VERSIONS


def test_the_wording_does_not_tell_the_room():
    """A blind player: the version of a sentence must be independent of the room."""
    drawn = np.array([draw_versions(np.random.default_rng(seed)) for seed in range(2000)])
    frequency = np.stack([(drawn == version).mean(axis=0) for version in range(VERSIONS)])
    assert np.abs(frequency - 1 / VERSIONS).max() < 0.05


def test_random_play_does_not_win():
    episodes = behave("text-nav-po", "random", 300)
    assert statistics.mean(e.success for e in episodes) < 0.02


@BOTH
def test_the_walkthrough_always_wins(task):
    episodes = behave(task, "optimal", 80)
    assert all(e.success and e.total_return == 1.0 for e in episodes)
    assert {e.length for e in episodes} == {6, 7, 8, 9}


def test_the_behaviour_policy_makes_the_published_statistics():
    episodes = behave("text-nav-fo", "behaviour", 2500)
    assert statistics.mean(e.success for e in episodes) == pytest.approx(0.26, abs=0.03)
    assert statistics.mean(e.length for e in episodes) == pytest.approx(12.2, abs=0.6)


def test_behaviour_is_optimal_in_one_half_of_the_house_only():
    """Each policy's share of walkthrough commands, room by room, is 1 in its half, less outside."""
    spec = get_task("text-nav-po")
    env, known = spec.make(), {}
    for seed in range(400):
        policy = spec.baseline("behaviour")
        observation, _ = env.reset(seed=seed)
        policy.begin(env, observation, np.random.default_rng(seed))
        ended = False
        while not ended:
            hidden = env.privileged()
            action = policy.act(observation)
            key = (policy._known, hidden["room"])
            known.setdefault(key, []).append(action.strip() == hidden["walkthrough"][0])
            observation, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
    assert len({half for half, _ in known}) == 2
    for (half, room), hits in known.items():
        # Where there is one way only, a random player takes it, too.
        assert all(hits) == (room in half or len(EXITS[room]) == 1), (half, room)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observation": "none"}, "observation: 'none'"),
        ({"engine": "inform"}, "engine: 'inform'"),
        ({"horizon": 0}, "horizon: 0"),
    ],
)
def test_a_bad_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make("text-nav-fo", **arguments)


def test_without_textworld_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    monkeypatch.delitem(sys.modules, "envs.text_nav.textworld_engine", raising=False)
    with pytest.raises(ImportError, match=r"lmrl-ray\[textworld\]"):
        make("text-nav-fo", engine="textworld")


@pytest.mark.parametrize("name", ["games.json", "games.jsonl"])
def test_published_games_are_read_from_a_list_and_from_lines(name):
    won, lost, capped, cut = read_published(FIXTURES / name)
    assert isinstance(won, Episode)
    assert [(e.terminated, e.truncated, e.success) for e in (won, lost, capped, cut)] == [
        (True, False, True),
        (True, False, False),
        (False, True, False),
        (False, False, False),
    ]
    assert [e.total_return for e in (won, lost, capped, cut)] == [1.0, 0.0, 0.0, 0.0]
    assert [e.length for e in (won, lost, capped, cut)] == [3, 2, 1, 1]
    rooms = [ROOMS[e.task_id] for e in (won, lost, capped, cut)]
    assert rooms == ["kitchen", "living room", "backyard", "garden"]
    assert (won.task, lost.task) == ("text-nav-fo", "text-nav-po")
    assert won.segments[1].text == "go north\n"
    assert all(s.text.endswith("\n") and not s.text.endswith("\n\n") for s in won.segments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}\n", r"line 1: text_history: expected a list, found None"),
        ("\n[]", "line 2: a game is an object, found list"),
        ("nonsense\n", r"line 1: not JSON"),
        ("[1, 2", r"line 1: not JSON"),
        ("[7]", r"record 1: a game is an object, found int"),
        ('{"text_history": ["a", "b"], "rewards": [0], "dones": [true]}', "text_history: 2 texts"),
        ('{"text_history": ["a", 3, "b"], "rewards": [0], "dones": [true]}', r"text_history\[1\]"),
        ('{"text_history": ["a", "b", "c"], "rewards": [], "dones": [true]}', "rewards: 0 values"),
        ('{"text_history": ["a", "b", "c"], "rewards": [0], "dones": [1]}', r"dones\[0\]: found 1"),
    ],
)
def test_a_bad_published_record_is_located(tmp_path, text, message):
    path = tmp_path / "games.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        list(read_published(path))
    assert str(path) in str(caught.value)
