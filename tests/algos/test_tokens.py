"""Token episodes: alignment, rewards on last tokens, and how much of the past is in a prompt."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import episode_of

from algos import models
from algos.codec import TextCodec
from algos.tokens import ContextRule, TokenEpisodeBuilder, encode_episode

ALL = ContextRule(window=None, max_tokens=1000, reserve=10)
BYTES = TextCodec(models.train_tokenizer([], 257))


def built(parts, rule=ALL, terminated=True):
    """An episode of (number of tokens, is_action, reward, valid) parts with ids 0, 1, 2, ..."""
    builder, at = TokenEpisodeBuilder(rule), 0
    for size, is_action, reward, valid in parts:
        ids = np.arange(at, at + size, dtype=np.int32)
        at += size
        if is_action:
            builder.add_action(ids, np.full(size, -0.5), reward, valid)
        else:
            builder.add_observation(ids)
    return builder.build(terminated)


def test_rewards_sit_on_the_last_token_of_their_action():
    episode = built([(2, False, 0, True), (2, True, -1, True), (1, False, 0, True), (3, True, -2, True)])
    assert episode.ids.tolist() == list(range(8))
    assert episode.is_action.tolist() == [False, False, True, True, False, True, True, True]
    assert episode.reward.tolist() == [0, 0, 0, -1, 0, 0, 0, -2]
    assert episode.actions.tolist() == [[2, 4], [5, 8]]


def test_log_probabilities_are_kept_for_action_tokens_and_are_zero_elsewhere():
    episode = built([(2, False, 0, True), (2, True, -1, True), (1, False, 0, True)])
    assert episode.logprob.tolist() == [0, 0, -0.5, -0.5, 0]


def test_encoding_an_episode_keeps_its_text_and_its_rewards():
    episode = episode_of(
        ("Guess: ä\n", False),
        ("pear\n", True, -1.0),
        ("No. 🧩\n", False),
        ("plum\n", True, 2.0),
        ("Yes\n", False),
    )
    tokens = encode_episode(episode, BYTES, ALL)
    assert BYTES.decode(tokens.ids) == episode.text
    assert [BYTES.decode(tokens.ids[a:b]) for a, b in tokens.actions] == ["pear\n", "plum\n"]
    assert [tokens.reward[b - 1] for _, b in tokens.actions] == [-1.0, 2.0]
    assert tokens.reward.sum() == episode.total_return
    assert tokens.terminated
    assert not encode_episode(replace(episode, terminated=False, truncated=True), BYTES, ALL).terminated


lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12).map(
    lambda text: text + "\n"
)


@given(st.lists(st.tuples(lines, lines), min_size=1, max_size=5), lines)
def test_ids_of_an_episode_decode_to_its_text_whatever_was_said(turns, last):
    parts = [p for said, done in turns for p in ((said, False), (done, True, -1.0))]
    episode = episode_of(*parts, (last, False))
    tokens = encode_episode(episode, BYTES, ALL)
    assert BYTES.decode(tokens.ids) == episode.text
    assert tokens.is_action.sum() == sum(len(BYTES.encode(done)) for _, done in turns)


def naive_context(parts, segment, rule):
    """First token of the longest allowed suffix of the segments before `segment`, or None."""
    for first in range(segment):
        past = parts[first:segment]
        fits = sum(p[0] for p in past) <= rule.max_tokens - rule.reserve
        in_window = rule.window is None or len(past) <= rule.window
        remembered = not rule.forget_on_invalid or not any(p[1] and not p[3] for p in past)
        if fits and in_window and remembered:
            return sum(p[0] for p in parts[:first])
    return None


rules = st.builds(
    ContextRule,
    window=st.none() | st.integers(1, 6),
    max_tokens=st.integers(12, 40),
    reserve=st.integers(2, 6),
    forget_on_invalid=st.booleans(),
)
observations = st.tuples(st.integers(1, 6), st.just(False), st.just(0), st.just(True))
actions = st.tuples(st.integers(1, 2), st.just(True), st.just(-1), st.booleans())


@given(st.lists(st.tuples(observations, actions), min_size=1, max_size=8), observations, rules, st.booleans())
def test_contexts_are_the_longest_suffixes_that_window_size_and_forgetting_allow(
    turns, last, rule, terminated
):
    parts = [p for turn in turns for p in turn] + [last]
    episode = built(parts, rule, terminated)
    expected = [naive_context(parts, i, rule) for i, p in enumerate(parts) if p[1]]
    final = 0 if terminated else naive_context(parts, len(parts), rule)
    assert episode.context.tolist() == [*expected, final]
    for start, (_, end) in zip(episode.context[:-1], episode.actions, strict=True):
        assert end - start <= rule.max_tokens


def test_a_window_of_one_segment_holds_the_latest_observation_alone():
    parts = [(3, False, 0, True), (2, True, -1, True), (4, False, 0, True), (2, True, -1, True)]
    episode = built([*parts, (5, False, 0, True)], replace(ALL, window=1), terminated=False)
    assert episode.context.tolist() == [0, 5, 11]


def test_an_invalid_action_wipes_what_came_before_the_next_observation():
    parts = [(3, False, 0, True), (2, True, -4, False), (4, False, 0, True), (2, True, -1, True)]
    remembering = built(parts, replace(ALL, window=40))
    forgetting = built(parts, replace(ALL, window=40, forget_on_invalid=True))
    assert remembering.context.tolist() == [0, 0, 0]
    assert forgetting.context.tolist() == [0, 5, 0]


def test_a_record_that_stops_at_an_action_that_wiped_everything_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="an invalid one has wiped it, nothing follows"):
        built([(3, False, 0, True), (2, True, -4, False)], replace(ALL, forget_on_invalid=True), False)


def test_an_action_longer_than_was_reserved_for_it_still_fits_into_the_models_window():
    rule = ContextRule(window=None, max_tokens=20, reserve=4)
    episode = built([(6, False, 0, True), (2, True, 0, True), (8, False, 0, True), (9, True, 0, True)], rule)
    assert episode.context.tolist() == [0, 6, 0]
    assert episode.actions[-1, 1] - episode.context[1] <= rule.max_tokens


def test_an_observation_that_does_not_fit_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="latest observation has 17 tokens, the model's window 20"):
        built([(17, False, 0, True), (1, True, 0, True)], ContextRule(None, max_tokens=20, reserve=4))


@pytest.mark.parametrize("tokens", [16, 17, 40])
def test_an_action_as_long_as_the_models_window_or_longer_is_an_error_that_says_so(tokens):
    with pytest.raises(ValueError, match=f"the model's window 16, of which {tokens} are kept for the action"):
        built([(3, False, 0, True), (tokens, True, 0, True)], ContextRule(None, max_tokens=16, reserve=4))


def test_an_episode_that_begins_with_an_action_is_an_error():
    with pytest.raises(ValueError, match="an action needs a context"):
        built([(2, True, 0, True)])


@pytest.mark.parametrize("text", ["", "left", "left\nright\n", "\nleft"])
def test_an_action_that_is_not_one_line_is_an_error(text):
    """Nobody would learn to end it, or it would be played as another."""
    with pytest.raises(ValueError, match=r"segment 1 of an episode of .* is the action .* one line"):
        encode_episode(episode_of(("Go:\n", False), (text, True, 0.0)), BYTES, ALL)


def test_an_action_without_tokens_is_an_error():
    with pytest.raises(ValueError, match="no tokens"):
        built([(2, False, 0, True), (0, True, 0, True)])


def test_an_episode_that_is_read_begins_with_an_observation():
    with pytest.raises(ValueError, match=r"segment 0 of an episode of .* begins with an observation"):
        encode_episode(episode_of(("left\n", True, 0.0), ("Go:\n", False)), BYTES, ALL)


@pytest.mark.parametrize(
    ("earned", "said", "message"),
    [
        (0.0, 1.0, "segment 2 of an episode of .* is an observation with a reward of 1.0"),
        (float("nan"), 0.0, "segment 1 of an episode of .* is one with a reward of nan"),
    ],
)
def test_a_reward_that_could_not_be_learnt_from_is_an_error(earned, said, message):
    episode = episode_of(("red\n", False), ("stop\n", True, earned), ("over\n", False, said))
    with pytest.raises(ValueError, match=message):
        encode_episode(episode, BYTES, ALL)


def test_an_episode_without_actions_has_the_context_of_its_first_action():
    assert built([(4, False, 0, True)], terminated=False).context.tolist() == [0]


def test_extras_are_added_beside_those_there_are():
    episode = built([(2, False, 0, True), (2, True, -1, True)]).with_extras(a=np.zeros(4))
    both = episode.with_extras(b=np.ones(4))
    assert sorted(both.extras) == ["a", "b"]
    assert sorted(episode.extras) == ["a"]
