"""The maze: its texts and rules, its optima, its data set and the published formats."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import get_task, make
from envs.conformance import check_env
from envs.maze.baselines import sightings, solve_beliefs
from envs.maze.env import FAILURE, HORIZON, SUCCESS, MazeEnv, describe
from envs.maze.layout import ACTIONS, DOUBLE_T, UMAZE, Layout, make_layout
from envs.maze.published import read_published

LEFT, RIGHT, UP, DOWN = ACTIONS
TASKS = ("maze-fo", "maze-po")
FIXTURES = Path(__file__).parents[1] / "fixtures" / "maze"


def at(cell, task="maze-fo", **arguments):
    env = make(task, **arguments)
    env.reset(options={"task_id": env.layout.starts.index(cell)})
    return env


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("layout", ["double_t", "umaze"])
def test_the_environment_conforms(task, layout):
    check_env(task, layout=layout)


# Texts


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ((5, 3), "There are walls to your left, below you.\n"),
        ((1, 1), "There are walls to your left, above you, below you.\n"),
        ((1, 10), "There are walls above you, below you.\n"),
        ((1, 11), "There are walls to your right, above you, below you.\n"),
        ((2, 3), "There are walls to your right, to your left.\n"),
        ((1, 3), "There is a wall above you.\n"),
        ((5, 6), "There is a wall above you.\n"),
        ((5, 9), "There are walls to your right, below you.\n"),
    ],
)
def test_walls_are_told_in_a_fixed_order(cell, text):
    assert describe(DOUBLE_T, cell, "partial") == text


def test_the_full_observation_spaces_the_digits_of_each_number():
    assert describe(DOUBLE_T, (5, 3), "full") == (
        "The goal is at position 8, 6. Your current position is at position 5, 3. "
        "There are walls to your left, below you.\n"
    )
    assert describe(DOUBLE_T, (1, 10), "full") == (
        "The goal is at position 8, 6. Your current position is at position 1, 1 0. "
        "There are walls above you, below you.\n"
    )


def test_one_wall_and_no_wall_have_their_own_sentences():
    room = Layout(("000", "000", "010"), goal=(0, 0))
    assert describe(room, (1, 1), "partial") == "There is a wall below you.\n"
    hall = Layout(("000", "000", "000"), goal=(0, 0))
    assert describe(hall, (1, 1), "partial") == "There are no walls near you.\n"
    assert describe(hall, (0, 1), "partial") == "There is a wall above you.\n"


def test_the_partial_observation_hides_the_position():
    env = make("maze-po")
    for task_id in range(env.num_tasks):
        observation, _ = env.reset(options={"task_id": task_id})
        assert not any(letter.isdigit() for letter in observation)
        assert "goal" not in observation


def test_the_map_can_be_drawn():
    assert at((3, 1), layout="umaze").render() == "#####\n#...#\n#.#.#\n#P#G#\n#####"


# Rules


def test_the_task_ids_are_the_25_start_cells():
    for task in TASKS:
        env, spec = make(task), get_task(task)
        assert env.num_tasks == 25
        assert spec.eval_tasks == tuple(range(25))
        assert set(env.layout.starts) == set(env.layout.cells) - {(8, 6)}


@pytest.mark.parametrize(("action", "cell"), [(LEFT, (1, 2)), (RIGHT, (1, 4)), (UP, (1, 3)), (DOWN, (2, 3))])
def test_moves_go_one_cell_and_walls_stop_them(action, cell):
    env = at((1, 3))
    observation, reward, terminated, truncated, info = env.step(action)
    assert env.privileged() == {"position": list(cell), "goal": [8, 6]}
    assert observation == describe(DOUBLE_T, cell, "full")
    assert (reward, terminated, truncated, info["valid"]) == (-1.0, False, False, True)


def test_reaching_the_goal_is_free_and_ends_the_game():
    env = at((7, 6))
    observation, reward, terminated, truncated, info = env.step(DOWN)
    assert (observation, reward, terminated, truncated) == (SUCCESS, 0.0, True, False)
    assert info["success"]
    assert SUCCESS == "Success\n"


@pytest.mark.parametrize(
    "text", ["move left", " move left\n", "Move left\n", "move left \n", "move left\n\n", "", "\n"]
)
def test_an_action_that_is_not_exact_costs_four_and_moves_nothing(text):
    env = at((1, 3), task="maze-po")
    observation, reward, terminated, truncated, info = env.step(text)
    assert (observation, reward, info["valid"]) == ("There is a wall above you.\n", -4.0, False)
    assert not terminated
    assert not truncated
    assert env.cell == (1, 3)


def test_the_penalty_of_an_invalid_action_can_be_the_papers():
    assert at((1, 3), invalid_penalty=-1).step("up")[1] == -1.0


@pytest.mark.parametrize(("text", "total"), [(UP, -101.0), ("nonsense\n", -401.0)])
def test_the_hundred_and_first_action_finds_the_time_up_and_is_charged(text, total):
    env = at((1, 1))
    turns = [env.step(text) for _ in range(100)]
    assert not any(terminated or truncated for _, _, terminated, truncated, _ in turns)
    observation, reward, terminated, truncated, info = env.step(text)
    assert (observation, reward, terminated, truncated) == (FAILURE, -1.0, True, False)
    assert not info["success"]
    assert sum(turn[1] for turn in turns) + reward == total


def test_the_last_action_is_not_executed():
    env = at((7, 6))
    for _ in range(100):
        env.step(LEFT)
    assert env.step(DOWN)[0] == "Failure\n"


@settings(max_examples=50, deadline=None)
@given(
    start=st.integers(0, 24),
    actions=st.lists(st.sampled_from([*ACTIONS, "move\n"]) | st.text(), max_size=120),
)
def test_the_player_stays_on_free_cells_and_the_return_adds_up(start, actions):
    env = make("maze-fo")
    env.reset(options={"task_id": start})
    total, expected = 0.0, 0.0
    for number, action in enumerate(actions, start=1):
        observation, reward, terminated, truncated, info = env.step(action)
        total += reward
        if not info["success"]:
            expected -= 1.0 if info["valid"] or number == HORIZON else 4.0
        assert DOUBLE_T.is_free(env.cell)
        assert info["valid"] == (action in ACTIONS)
        if terminated or truncated:
            break
        assert observation == describe(DOUBLE_T, env.cell, "full")
    assert total == expected


# Layouts


def test_a_layout_of_ones_own_is_played():
    env = make("maze-po", layout=["010", "000"], goal=[0, 2])
    assert env.num_tasks == 4
    assert env.reset(options={"task_id": 0})[0] == (
        "There are walls to your right, to your left, above you.\n"
    )
    assert [env.step(action)[0] for action in (DOWN, RIGHT, RIGHT, UP)][-1] == "Success\n"


def test_a_named_layout_may_have_another_goal():
    assert make("maze-fo", goal=(1, 1)).privileged()["goal"] == [1, 1]
    assert make_layout("umaze", None) == UMAZE


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"layout": "labyrinth"}, "layout: 'labyrinth' is unknown; use double_t or umaze"),
        ({"layout": ["000"]}, "goal: missing"),
        ({"layout": ["000", "00"], "goal": (0, 0)}, "row 1 has 2 columns and row 0 has 3"),
        ({"layout": ["0x0"], "goal": (0, 0)}, "row 0 is '0x0'; write a quoted string"),
        ({"layout": [101, 100], "goal": (0, 1)}, "row 0 is 101; write a quoted string"),
        ({"layout": [], "goal": (0, 0)}, r"goal: \(0, 0\) is not a free cell"),
        ({"layout": ["010"], "goal": (0, 1)}, r"goal: \(0, 1\) is not a free cell"),
        ({"layout": ["010"], "goal": (0, 0)}, r"cannot be reached from \(0, 2\)"),
        ({"layout": ["0"], "goal": (0, 0)}, "there is no start"),
        ({"goal": (8, 6, 1)}, r"goal: \(8, 6, 1\) is not \(row, column\)"),
        ({"goal": ("8", "6")}, "is not .row, column."),
        ({"observe": "nothing"}, "observe: 'nothing' is unknown; use 'full' or 'partial'"),
        ({"invalid_penalty": 4}, "invalid_penalty: 4 is a gain"),
    ],
)
def test_a_bad_argument_is_named(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        MazeEnv(**arguments)


# Optima and baselines


def returns_of(task, policy, episodes, layout="double_t"):
    spec, env = get_task(task), make(task, layout=layout)
    player = spec.baseline(policy)
    return [spec.play(env, player, s, s % env.num_tasks).total_return for s in range(episodes)]


def test_a_shortest_way_returns_minus_6_84_on_average():
    returns = returns_of("maze-fo", "optimal", 25)
    assert sum(returns) == -171.0
    assert np.mean(returns) == -6.84
    assert min(returns) == -11.0


def test_the_belief_optimum_returns_minus_7_24_on_average():
    plan, cost = solve_beliefs(DOUBLE_T)
    first = sightings(DOUBLE_T, DOUBLE_T.starts).values()
    assert sorted(map(len, first)) == [1, 1, 2, 2, 3, 8, 8]
    assert len(plan) == 44
    assert sum(cost[belief] for belief in first) - 25 == 181
    returns = returns_of("maze-po", "optimal", 25)
    assert sum(returns) == -181.0
    assert np.mean(returns) == -7.24


@pytest.mark.parametrize("task", TASKS)
def test_the_optimal_players_solve_another_maze(task):
    assert min(returns_of(task, "optimal", 6, layout="umaze")) > -9


def test_the_baselines_lie_where_the_paper_has_them():
    assert np.mean(returns_of("maze-fo", "random", 1000)) == pytest.approx(-85.8, abs=2.5)
    assert np.mean(returns_of("maze-fo", "behaviour", 1000)) == pytest.approx(-83.0, abs=4.0)


def test_a_maze_policy_refuses_another_environment():
    with pytest.raises(TypeError, match="plays MazeEnv, not"):
        get_task("maze-fo").baseline("optimal").begin(object(), "", np.random.default_rng(0))


# Data


@pytest.fixture(scope="module")
def dataset():
    spec, env = get_task("maze-fo"), make("maze-fo")
    return [spec.data_episode(env, seed) for seed in range(spec.data_episodes)]


def test_the_data_have_the_statistics_of_table_1(dataset):
    lengths = np.array([episode.length for episode in dataset])
    returns = np.array([episode.total_return for episode in dataset])
    assert np.mean([episode.success for episode in dataset]) == pytest.approx(0.11, abs=0.02)
    assert lengths.mean() == pytest.approx(19.7, abs=1.5)
    assert lengths.std() == pytest.approx(24.5, abs=2.0)
    assert returns.mean() == pytest.approx(-19.7, abs=1.5)
    assert lengths.max() == 100


def test_the_data_cover_the_optimal_way_from_every_start(dataset):
    cells = {describe(DOUBLE_T, cell, "full"): cell for cell in DOUBLE_T.starts}
    distance = DOUBLE_T.distances(DOUBLE_T.goal)
    seen = Counter(
        (cells[observation.text], action.text)
        for episode in dataset
        for observation, action in zip(episode.segments[::2], episode.segments[1::2], strict=False)
    )
    for cell in DOUBLE_T.starts:
        for action in ACTIONS:
            if distance[DOUBLE_T.after(cell, action)] < distance[cell]:
                assert seen[cell, action] >= 20, (cell, action)
    assert {episode.task_id for episode in dataset} == set(range(25))


def test_trajectories_have_to_be_stitched(dataset):
    for episode in dataset:
        if episode.success:
            assert DOUBLE_T.starts[episode.task_id][0] >= 5
            assert episode.total_return == 1 - episode.length
        else:
            assert episode.total_return == -episode.length
            assert episode.truncated
        assert episode.success == episode.terminated


def test_both_observations_have_the_same_trajectories():
    full, partial = (get_task(task) for task in TASKS)
    for seed in range(20):
        one, other = (spec.data_episode(spec.make(), seed) for spec in (full, partial))
        actions = [[s.text for s in e.segments if s.is_action] for e in (one, other)]
        assert actions[0] == actions[1]


def test_another_maze_is_one_sub_maze():
    spec = get_task("maze-po")
    env = spec.make(layout="umaze")
    assert {spec.data_episode(env, seed).task_id for seed in range(60)} == set(range(6))


# Published files


def test_the_fully_observed_format_is_read():
    success, failure, cut = read_published(FIXTURES / "fully_observed.jsonl")
    assert [s.text for s in success.segments] == [
        describe(DOUBLE_T, (6, 6), "full"),
        DOWN,
        describe(DOUBLE_T, (7, 6), "full"),
        DOWN,
        "Success\n",
    ]
    assert (success.task, success.task_id) == ("maze-fo", DOUBLE_T.starts.index((6, 6)))
    assert (success.success, success.terminated, success.total_return) == (True, True, -1.0)
    assert (success.policy, success.seed, success.simulator) == ("published", -1, "rule")
    assert (failure.segments[-1].text, failure.terminated, failure.success) == (FAILURE, True, False)
    assert not failure.segments[1].valid
    assert cut.segments[-1].text == describe(DOUBLE_T, (1, 11), "full")
    assert not cut.terminated
    assert not cut.truncated


def test_the_partially_observed_format_is_read():
    success, failure, cut, whole = read_published(FIXTURES / "partially_observed.jsonl")
    assert (success.task, success.task_id) == ("maze-po", -1)
    assert [s.text for s in success.segments][-2:] == [DOWN, "Success\n"]
    assert [s.reward for s in success.segments] == [0, -1, 0, 0, 0]
    assert (failure.segments[-1].text, failure.terminated, failure.truncated) == (FAILURE, True, False)
    assert (cut.length, cut.segments[-1].text) == (1, "There is a wall above you.\n")
    assert (whole.length, whole.segments[-1].text) == (1, "There are walls to your left, below you.\n")


def test_reading_gives_back_what_was_played(tmp_path):
    spec = get_task("maze-fo")
    played = [spec.play(spec.make(), spec.baseline("random"), seed) for seed in range(20)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(as_published(e)) + "\n" for e in played), encoding="utf-8")
    for old, new in zip(played, read_published(path), strict=True):
        assert new.segments == old.segments
        assert new.task_id == old.task_id
        assert (new.terminated, new.truncated) == (old.terminated, old.truncated)


def as_published(episode):
    pairs = list(zip(episode.segments[::2], episode.segments[1::2], strict=False))
    return [
        {"state": o.text, "action": a.text, "reward": a.reward, "done": i == len(pairs) - 1}
        for i, (o, a) in enumerate(pairs)
    ]


def test_the_file_is_read_as_a_stream(tmp_path):
    path = tmp_path / "data.jsonl"
    with open(FIXTURES / "fully_observed.jsonl", encoding="utf-8") as lines:
        path.write_text(lines.readline() + "broken\n", encoding="utf-8")
    episodes = read_published(path)
    assert next(episodes).success
    with pytest.raises(ValueError, match=r"data.jsonl: line 2: not JSON"):
        next(episodes)


STEP = {"state": "x\n", "action": UP, "reward": -1, "done": False}
HISTORY = {"text_history": ["x\n", UP], "rewards": [0, -1], "dones": [False, False]}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("3", "the line: expected a dict, found '3'"),
        ("[]", "the record: expected at least one action"),
        ("[3]", "step 0: expected a dict"),
        ([STEP | {"state": None}], "step 0 state: expected a str, found 'None'"),
        ([STEP, STEP | {"action": 2}], "step 1 action: expected a str, found '2'"),
        ([STEP | {"reward": "-1"}], "step 0 reward: expected a finite number, found '-1'"),
        ([STEP | {"reward": True}], "step 0 reward: expected a finite number"),
        ([STEP | {"reward": 10**400}], "step 0 reward: expected a finite number"),
        ('[{"state": "x", "action": "y", "reward": NaN, "done": false}]', "found 'nan'"),
        ([STEP | {"done": "no"}], "step 0 done: expected a bool"),
        ([STEP | {"done": True}, STEP], "action 0 done: expected false before the last action"),
        ({}, "text_history: expected a list, found 'None'"),
        (HISTORY | {"rewards": [0]}, "rewards: expected 2 entries, as in text_history, found '1'"),
        (HISTORY | {"dones": None}, "dones: expected a list"),
        (HISTORY | {"text_history": ["x\n", 5]}, r"text_history\[1\]: expected a str"),
        (HISTORY | {"rewards": [0, None]}, r"rewards\[1\]: expected a finite number"),
        (b"\xff\xfe\xfa", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, sentence):
    path = tmp_path / "data.jsonl"
    text = line if isinstance(line, str | bytes) else json.dumps(line)
    path.write_bytes(b"\n" + (text if isinstance(text, bytes) else text.encode()))
    with pytest.raises(ValueError, match=f"data.jsonl: line 2: .*{sentence}"):
        list(read_published(path))
