"""Wordle: rules, marks, word lists, players, the published format."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.conformance import check_env
from envs.registry import get_task, make
from envs.wordle.behaviour import Behaviour, Expert, RandomWord
from envs.wordle.env import WordleEnv
from envs.wordle.published import read_published
from envs.wordle.rules import load_vocabulary, score, spaced
from envs.wordle.solver import Solver, feedback_table, solver_for

FIXTURE = Path(__file__).parents[1] / "fixtures" / "wordle" / "train_data.jsonl"
RULES = ("paper", "standard")
OWN = load_vocabulary()
own_word = st.sampled_from(OWN)
any_word = st.text(alphabet="abcde", min_size=5, max_size=5)  # few letters: many repeats


def env_hiding(word, **arguments):
    env = WordleEnv(**arguments)
    env.reset(options={"task_id": env.words.index(word)})
    return env


def word_file(tmp_path, text):
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_it_satisfies_what_every_task_must():
    check_env("wordle")


def test_it_satisfies_what_every_task_must_with_other_arguments(tmp_path):
    path = word_file(tmp_path, "crane\neagle\nlevel\n")
    check_env("wordle", vocabulary=path, feedback="standard")


# The word list


def test_our_list_has_431_different_words_of_five_letters_in_order():
    assert len(OWN) == len(set(OWN)) == 431
    assert list(OWN) == sorted(OWN)
    assert all(len(w) == 5 and w.isascii() and w.islower() and w.isalpha() for w in OWN)


def test_another_list_gives_its_words_and_tasks(tmp_path):
    env = make("wordle", vocabulary=word_file(tmp_path, "crane\n\n  slate \r\nbrick"))
    assert env.words == ("crane", "slate", "brick")
    assert env.num_tasks == 3
    env.reset(options={"task_id": 2})
    assert env.privileged() == {"secret": "brick"}
    assert env.step("b r i c k\n")[1:3] == (0.0, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crane\nlong word\n", r"line 2: 'long word' is not a word of 5 lower-case letters"),
        ("Crane\n", r"line 1: 'Crane' is not"),
        ("crâne\n", r"line 1: 'crâne' is not"),
        ("crane\nslate\n\ncrane\n", r"line 4: 'crane' stands in line 1 already"),
        (" \n\n", r"holds no word"),
    ],
)
def test_a_bad_list_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"vocabulary: .*words.txt.*{message}"):
        WordleEnv(vocabulary=word_file(tmp_path, text))


def test_a_list_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"vocabulary: .*missing\.txt cannot be read"):
        WordleEnv(vocabulary=str(tmp_path / "missing.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"vocabulary: .*binary\.txt cannot be read"):
        WordleEnv(vocabulary=str(tmp_path / "binary.txt"))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="feedback: 'newspaper' is neither"):
        WordleEnv(feedback="newspaper")
    with pytest.raises(ValueError, match="invalid_reward: nan"):
        WordleEnv(invalid_reward=float("nan"))


# The marks


@pytest.mark.parametrize(
    ("guess", "secret", "paper", "standard"),
    [
        ("shire", "third", "bgggb", "bgggb"),
        ("level", "eagle", "yybyy", "yybyb"),  # the l is in the word once, the e twice
        ("eerie", "crane", "yyybg", "bbybg"),  # the only e is taken by the g
        ("speed", "erase", "ybyyb", "ybyyb"),
        ("aabbb", "ccaac", "yybbb", "yybbb"),
        ("crane", "crane", "ggggg", "ggggg"),
    ],
)
def test_the_marks_of_known_guesses(guess, secret, paper, standard):
    assert score(guess, secret) == score(guess, secret, "paper") == paper
    assert score(guess, secret, "standard") == standard


@given(any_word, any_word)
def test_paper_marks_every_position_by_itself(guess, secret):
    for letter, hidden, mark in zip(guess, secret, score(guess, secret), strict=True):
        assert mark == ("g" if letter == hidden else "y" if letter in secret else "b")


@given(any_word, any_word)
def test_standard_marks_a_letter_as_often_as_both_words_hold_it(guess, secret):
    marks = score(guess, secret, "standard")
    for place in range(5):
        assert (marks[place] == "g") == (guess[place] == secret[place])
    marked = Counter(g for g, m in zip(guess, marks, strict=True) if m != "b")
    assert marked == Counter(guess) & Counter(secret)
    for letter in set(guess):  # where not all can be marked, the first ones are
        loose = "".join(m for g, m in zip(guess, marks, strict=True) if g == letter and m != "g")
        assert "by" not in loose


@pytest.mark.parametrize("rule", RULES)
def test_only_the_word_itself_is_all_green(rule):
    greens = feedback_table(OWN, rule) == 3**5 - 1
    assert np.array_equal(greens, np.eye(len(OWN), dtype=bool))


@settings(max_examples=50)
@given(st.lists(any_word, min_size=1, max_size=12, unique=True), st.sampled_from(RULES))
def test_the_table_holds_the_marks_of_every_pair(words, rule):
    table = feedback_table(tuple(words), rule)
    for i, guess in enumerate(words):
        for j, secret in enumerate(words):
            digits = ["byg".index(mark) for mark in score(guess, secret, rule)]
            assert table[i, j] == int("".join(map(str, digits)), base=3)


# The game


def test_an_episode_reads_as_published():
    env = WordleEnv()
    opening, info = env.reset(options={"task_id": env.words.index("crisp")})
    assert opening == "Wordle:\n"
    assert info == {"success": False, "valid": True, "turn": 0, "task_id": env.words.index("crisp")}
    assert env.step("p r i c e\n")[:4] == ("y g g y b\n", -1.0, False, False)
    observation, reward, terminated, truncated, info = env.step("c r i s p\n")
    assert (observation, reward) == ("g g g g g\n", 0.0)
    assert (terminated, truncated, info["success"]) == (True, False, True)


def test_six_tries_used_up_is_a_lost_game_and_no_time_limit():
    env = env_hiding("crisp")
    turns = [env.step("y o u n g\n") for _ in range(6)]
    assert [t[2] for t in turns] == [False] * 5 + [True]
    assert not any(t[3] or t[4]["success"] for t in turns)
    assert sum(t[1] for t in turns) == -6.0
    with pytest.raises(RuntimeError, match="reset"):
        env.step("y o u n g\n")


def test_the_sixth_guess_can_still_win():
    env = env_hiding("crisp")
    for _ in range(5):
        env.step("y o u n g\n")
    assert env.step("c r i s p\n")[1:4] == (0.0, True, False)


@pytest.mark.parametrize("action", ["crisp", "crisp\n", " c r isp \r\n", "\tc r i s p"])
def test_spaces_within_and_blanks_around_a_guess_do_not_matter(action):
    assert env_hiding("crisp").step(action)[0] == "g g g g g\n"


@pytest.mark.parametrize("action", ["C R I S P\n", "c r i s\n", "c r i s p s\n", "q q q q q\n", ""])
def test_an_invalid_guess_costs_a_try_and_tells_nothing(action):
    env = env_hiding("crisp")
    observation, reward, terminated, truncated, info = env.step(action)
    assert (observation, reward, terminated, truncated) == ("\n", -1.0, False, False)
    assert not info["valid"]
    assert info["turn"] == 1


def test_the_penalty_of_an_invalid_guess_is_an_argument():
    env = env_hiding("crisp", invalid_reward=-10)
    assert [env.step("?\n")[1] for _ in range(5)] == [-10.0] * 5
    assert env.step("y o u n g\n")[1:3] == (-1.0, True)


# hypothesis draws words of our own source, too, and "group" is one.
no_word = st.text().filter(lambda text: "".join(text.split()).lower() not in OWN)


@given(st.lists(no_word, min_size=6, max_size=6))
def test_any_six_texts_end_the_game(actions):
    env = env_hiding("crisp")
    turns = [env.step(action) for action in actions]
    assert turns[-1][2]
    assert all(t[0] == "\n" and not t[4]["valid"] for t in turns)
    assert len(env.render().split("not in the word list")) == 7


@given(own_word, st.lists(own_word, min_size=1, max_size=6))
def test_a_return_is_minus_the_guesses_that_missed(secret, guesses):
    env, total = env_hiding(secret), 0.0
    for guess in guesses:
        observation, reward, terminated, _, info = env.step(spaced(guess))
        assert observation == spaced(score(guess, secret))
        assert info["success"] == (guess == secret)
        total += reward
        if terminated:
            break
    assert total == -(info["turn"] - info["success"])


def test_the_feedback_rule_is_an_argument():
    assert env_hiding("elite").step("l e v e l\n")[0] == "y y b y y\n"
    assert env_hiding("elite", feedback="standard").step("l e v e l\n")[0] == "y y b y b\n"


def test_the_board_shows_guesses_and_marks_but_not_the_word():
    env = env_hiding("crisp")
    env.step("p r i c e\n")
    env.step("nonsense\n")
    assert env.render() == (
        "Wordle: 2 of 6 tries used\n\n"
        "  P R I C E\n"
        "  y g g y .\n\n"
        "  'nonsense' is not in the word list\n\n"
        "g: right place   y: elsewhere in the word   .: no (more) such letter\n"
        "not in the word: e\n"
    )


def test_a_new_game_has_an_empty_board():
    env = env_hiding("crisp")
    empty = env.render()
    env.step("p r i c e\n")
    env.reset()
    assert env.render() == empty


def test_a_game_goes_on_from_its_snapshot_with_its_board():
    env, twin = env_hiding("crisp"), WordleEnv()
    env.step("p r i c e\n")
    twin.set_state(json.loads(json.dumps(env.get_state())))
    assert twin.render() == env.render()
    assert twin.privileged() == {"secret": "crisp"}
    assert twin.step("c r i s p\n") == env.step("c r i s p\n")


def test_every_word_is_hidden_as_often_as_another():
    env = make("wordle")
    env.reset(seed=0)
    counts = Counter(env.reset()[1]["task_id"] for _ in range(100 * len(OWN)))
    assert set(counts) == set(range(len(OWN)))
    chi_square = sum((n - 100) ** 2 / 100 for n in counts.values())
    assert chi_square < len(OWN) - 1 + 4 * (2 * (len(OWN) - 1)) ** 0.5


def test_a_word_drawn_at_reset_gives_the_feedback_of_one_drawn_at_each_guess():
    words = ("crane", "crate", "brick", "trick", "slate", "eerie", "geese")
    guesses = (5, 1, 3)

    def lazily(alive, left):
        """Published rule: draw from what is possible, mark, keep what agrees, go on."""
        if not left:
            return {(): Fraction(1)}
        chances = Counter()
        for drawn in alive:
            marks = score(words[left[0]], words[drawn])
            kept = [i for i in alive if score(words[left[0]], words[i]) == marks]
            for rest, chance in lazily(kept, left[1:]).items():
                chances[(marks, *rest)] += chance / len(alive)
        return chances

    at_reset = Counter()
    for hidden in words:
        told = tuple(score(words[guess], hidden) for guess in guesses)
        at_reset[told] += Fraction(1, len(words))
    assert lazily(range(len(words)), guesses) == at_reset


# The players


def statistics(policy, episodes):
    spec, env = get_task("wordle"), make("wordle")
    played = [spec.play(env, policy, seed=seed) for seed in range(episodes)]
    returns = np.array([e.total_return for e in played])
    return returns.mean(), returns.std(), np.array([e.length for e in played]), played


def test_the_behaviour_policy_makes_data_like_the_published():
    mean, std, lengths, played = statistics(Behaviour(), 4000)
    assert mean == pytest.approx(-4.12, abs=0.1)
    assert std == pytest.approx(1.59, abs=0.05)
    assert lengths.mean() == pytest.approx(4.82, abs=0.06)
    assert lengths.std() == pytest.approx(1.27, abs=0.05)
    assert np.mean([e.success for e in played]) == pytest.approx(0.70, abs=0.02)
    assert all(s.valid for e in played for s in e.segments)


def test_the_expert_is_as_good_as_the_upper_bound_of_the_paper():
    mean, _, _, played = statistics(Expert(), 2000)
    assert mean == pytest.approx(-1.94, abs=0.1)
    assert all(e.success for e in played)


def test_random_words_hardly_ever_win():
    mean, _, _, _ = statistics(RandomWord(), 1000)
    assert mean == pytest.approx(-5.95, abs=0.04)


@pytest.mark.parametrize("rule", RULES)
def test_the_expert_finds_every_word_and_guesses_only_possible_ones(rule):
    spec, env = get_task("wordle"), make("wordle", feedback=rule)
    for task_id in range(0, len(OWN), 7):
        episode = spec.play(env, Expert(), seed=task_id, task_id=task_id)
        assert episode.success
        guesses = [s.text.replace(" ", "").strip() for s in episode.segments[1::2]]
        for earlier, guess in enumerate(guesses):
            for old in guesses[:earlier]:
                assert score(old, guess, rule) == score(old, OWN[task_id], rule)


def test_the_most_informative_words_have_the_largest_entropy():
    words = ("crane", "crate", "grate", "trick", "slate", "eerie", "brick")
    solver = Solver(words, "paper")

    def entropy(guess):
        sizes = Counter(score(guess, word) for word in words).values()
        return -sum(n / len(words) * np.log(n / len(words)) for n in sizes)

    gains = [entropy(word) for word in words]
    expected = [i for i, gain in enumerate(gains) if gain > max(gains) - 1e-9]
    assert 0 < len(expected) < len(words)
    for _ in range(2):  # the second answer comes from memory
        assert solver.most_informative(solver.all).tolist() == expected


def test_candidates_are_the_words_that_would_have_been_marked_alike():
    solver = solver_for(OWN, "paper")
    guess = OWN.index("crisp")
    told = spaced(score("crisp", "price"))
    kept = {OWN[i] for i in solver.consistent(solver.all, guess, told)}
    assert kept == {word for word in OWN if spaced(score("crisp", word)) == told}


def test_a_player_refuses_another_game():
    with pytest.raises(TypeError, match="expert: plays WordleEnv"):
        Expert().begin(object(), "", np.random.default_rng(0))


# The published files


def test_the_published_format_gives_back_our_episodes():
    spec, env = get_task("wordle"), make("wordle")
    episodes = list(spec.reader()(FIXTURE))
    assert len(episodes) == 6
    assert {e.success for e in episodes} == {True, False}
    for seed, episode in enumerate(episodes):
        played = spec.data_episode(env, seed)
        assert episode.segments == played.segments
        assert (episode.terminated, episode.truncated) == (True, False)
        assert (episode.success, episode.seed) == (played.success, seed)


def published(tmp_path, record):
    path = tmp_path / "data.jsonl"
    good = FIXTURE.read_text().splitlines()[0]
    path.write_text(good + "\n" + (record if isinstance(record, str) else json.dumps(record)))
    return read_published(path)


def test_an_invalid_guess_in_a_file_is_marked_as_such(tmp_path):
    record = {
        "sequence": [["Wordle:\n", 0.0], ["z z z z z\n", 1.0], ["\n", 0.0]],
        "reward": [-1.0, 0],
        "done": False,
    }
    episode = list(published(tmp_path, record))[1]
    assert [s.valid for s in episode.segments] == [True, False, True]
    assert not episode.terminated


GOOD = {
    "sequence": [["Wordle:\n", 0.0], ["c r i s p\n", 1.0], ["g g g g g\n", 0.0]],
    "reward": [0.0, 0.0],
    "done": True,
}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "not JSON"),
        ("[]", "the line: expected an object"),
        (GOOD | {"sequence": None}, "sequence: expected a list"),
        (GOOD | {"sequence": GOOD["sequence"][:2]}, "sequence: expected a list"),
        (GOOD | {"sequence": [["a\n", 0], ["b\n"], ["c\n", 0]]}, r"sequence\[1\]: expected \[text"),
        (GOOD | {"sequence": [["a\n", 0], ["b\n", 0], ["c\n", 0]]}, r"sequence\[1\]: .*action 1"),
        (GOOD | {"sequence": [["a\n", 0], ["b", 1], ["c\n", 0]]}, r"sequence\[1\]: .*newline"),
        (GOOD | {"reward": [0.0]}, "reward: expected a list of 2"),
        (GOOD | {"reward": ["-1", 0.0]}, r"reward\[0\]: expected a finite number, found '-1'"),
        (GOOD | {"reward": [float("nan"), 0.0]}, r"reward\[0\]: expected a finite"),
        (GOOD | {"reward": [10**400, 0.0]}, "too large"),
        (GOOD | {"reward": [0.0, -1.0]}, r"reward\[1\]: expected 0"),
        (GOOD | {"done": 1}, "done: expected true or false, found '1'"),
    ],
)
def test_a_bad_line_is_named_with_its_field(tmp_path, record, message):
    reading = published(tmp_path, record)
    assert next(reading).task == "wordle"  # a good line before a bad one is read
    with pytest.raises(ValueError, match=rf"data\.jsonl: line 2: .*{message}"):
        next(reading)


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.sampled_from(sorted(GOOD)), json_value, st.binary(max_size=8))
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, field, value, tail):
    path = tmp_path_factory.mktemp("fuzz") / "data.jsonl"
    path.write_bytes(json.dumps(GOOD | {field: value}).encode() + b"\n" + tail)
    try:
        refusal, lengths = None, [episode.length for episode in read_published(path)]
    except ValueError as error:
        refusal, lengths = str(error), []
    assert refusal.startswith(f"{path}: line ") if refusal else all(lengths)
