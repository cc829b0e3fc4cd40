"""Packing into index form, against a reference that looks at each action token by itself (T1, T8, T16)."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_language_model

from algos.batch import empty_batch, pack
from algos.networks import hidden_states
from algos.tokens import ContextRule, TokenEpisodeBuilder

ALL = ContextRule(window=None, max_tokens=1000, reserve=10)
PLENTY = 10_000
TRUNK = tiny_language_model(["move left\n"]).trunk.eval()


def built(parts, rule=ALL, terminated=True):
    """An episode of (ids, is_action[, valid]) parts; action number i earns -i - 1."""
    builder = TokenEpisodeBuilder(rule)
    for ids, is_action, *valid in parts:
        if is_action:
            logprobs = -0.1 * np.arange(1, len(ids) + 1)
            builder.add_action(np.asarray(ids), logprobs, -1.0 - len(builder._actions), *(valid or [True]))
        else:
            builder.add_observation(np.asarray(ids))
    return builder.build(terminated)


T1 = (([1, 2], False), ([3, 4], True), ([5], False), ([6, 7, 8], True), ([9, 10], False))


def numbered(episodes):
    """The episodes with an extra that names every token among all of them."""
    named, count = [], 0
    for episode in episodes:
        named.append(episode.with_extras(name=np.arange(count, count + len(episode.ids), dtype=float)))
        count += len(episode.ids)
    return named


def naive_entries(episodes):
    """By token name: what an action token's entry must say, from its episode alone."""
    entries = {}
    for episode in numbered(episodes):
        ids, context = episode.ids.tolist(), episode.context.tolist()
        spans = episode.actions.tolist()
        for k, (start, end) in enumerate(spans):
            for t in range(start, end):
                last = t == spans[-1][1] - 1
                if t + 1 < end:
                    following = ids[context[k] : t + 1]
                elif not last:
                    following = ids[context[k + 1] : spans[k + 1][0]]
                else:
                    following = None if episode.terminated else ids[context[k + 1] :]
                entries[int(episode.extras["name"][t])] = {
                    "state": ids[context[k] : t],
                    "action": ids[t],
                    "next": following,
                    "reward": float(episode.reward[t]),
                    "turn_end": t + 1 == end,
                    "last": last,
                    "logprob": float(episode.logprob[t]),
                }
    return entries


def prefix_at(batch, flat):
    row, column = divmod(int(flat), batch.input_ids.shape[1])
    assert bool(batch.mask[row, : column + 1].all())
    return batch.input_ids[row, : column + 1].tolist()


def packed_entries(batches):
    """The same from the packed batches. Each token must stand in them once."""
    entries = {}
    for b in batches:
        for i in range(b.num_actions):
            name = int(b.extras["name"][i])
            assert name not in entries
            entries[name] = {
                "state": prefix_at(b, b.state_idx[i]),
                "action": int(b.action_tok[i]),
                "next": prefix_at(b, b.next_state_idx[i]) if b.continues[i] else None,
                "reward": float(b.reward[i]),
                "turn_end": bool(b.turn_end[i]),
                "logprob": float(b.logprob[i]),
            }
    return entries


def naive_observed_pairs(episodes):
    """Environment tokens with what stands before them in the prompt of the action that follows."""
    pairs = Counter()
    for episode in episodes:
        ends = [0, *episode.actions[:, 1].tolist()]
        for context, end, (start, _) in zip(
            episode.context[:-1].tolist(), ends[:-1], episode.actions.tolist(), strict=True
        ):
            for t in range(max(context + 1, end), start):
                pairs[tuple(episode.ids[context:t].tolist()), int(episode.ids[t])] += 1
    return pairs


def observed_pairs(batches):
    return Counter(
        (tuple(prefix_at(b, flat)), int(token))
        for b in batches
        for flat, token in zip(b.observed_idx, b.observed_tok, strict=True)
    )


def check_against_naive(episodes, batches):
    expected, found = naive_entries(episodes), packed_entries(batches)
    assert found.keys() == expected.keys()
    for name, entry in found.items():
        assert entry == {k: v for k, v in expected[name].items() if k != "last"}
    assert observed_pairs(batches) == naive_observed_pairs(episodes)
    # In the order of time, and a chain ends where its episode or its piece does.
    order = {name: k for k, name in enumerate(sorted(expected))}
    for b in batches:
        names = [int(x) for x in b.extras["name"]]
        assert not names or bool(b.chain_end[-1])
        for i, name in enumerate(names):
            if b.chain_end[i]:
                assert i + 1 == len(names) or b.turn_end[i]
            else:
                assert order[names[i + 1]] == order[name] + 1
                assert not expected[name]["last"]
            if expected[name]["last"]:
                assert bool(b.chain_end[i])


tokens = st.lists(st.integers(1, 4), min_size=1, max_size=4)
turns = st.lists(
    st.tuples(tokens.map(lambda i: (i, False)), st.tuples(tokens, st.just(True), st.booleans())),
    max_size=6,
)
rules = st.builds(
    ContextRule,
    window=st.none() | st.integers(1, 5),
    max_tokens=st.integers(14, 40),
    reserve=st.integers(4, 6),
    forget_on_invalid=st.booleans(),
)


@st.composite
def episode_lists(draw):
    rule = draw(rules)
    return [
        built([p for turn in draw(turns) for p in turn] + [(draw(tokens), False)], rule, draw(st.booleans()))
        for _ in range(draw(st.integers(0, 4)))
    ]


@settings(max_examples=150, deadline=None)
@given(episode_lists(), st.integers(8, 200))
def test_every_action_token_has_its_own_history_and_its_own_next_state(episodes, budget):
    check_against_naive(episodes, pack(numbered(episodes), budget))


@settings(max_examples=100, deadline=None)
@given(episode_lists(), st.integers(8, 200))
def test_a_micro_batch_keeps_to_its_budget_unless_a_row_and_its_next_state_are_longer(episodes, budget):
    longest = max(
        (e.actions[i, 1] - e.context[i] for e in episodes for i in range(len(e.actions))), default=0
    )
    longest = max([longest, *(len(e.ids) - e.context[-1] for e in episodes if not e.terminated)])
    for batch in pack(episodes, budget):
        assert batch.input_ids.numel() <= max(budget, 2 * longest)


@settings(max_examples=100, deadline=None)
@given(episode_lists())
def test_rows_that_are_equal_or_a_prefix_of_another_are_computed_once(episodes):
    batches = pack(episodes, PLENTY)
    for batch in batches:
        rows = [r[m].tolist() for r, m in zip(batch.input_ids, batch.mask, strict=True)]
        for i, row in enumerate(rows):
            assert all(other[: len(row)] != row for j, other in enumerate(rows) if j != i)
        used = {prefix for f in (batch.state_idx, batch.next_state_idx) for prefix in map(int, f)}
        assert {divmod(u, batch.input_ids.shape[1])[0] for u in used} == set(range(len(rows)))
        assert not batch.input_ids[~batch.mask].any()


@settings(max_examples=4, deadline=None)
@given(episode_lists(), st.integers(8, 200))
def test_states_equal_those_of_each_history_read_by_itself(episodes, budget):
    with torch.no_grad():
        for b in pack(numbered(episodes), budget):
            states = hidden_states(TRUNK, b.input_ids, b.mask)
            for i in range(b.num_actions):
                ids = torch.tensor([prefix_at(b, b.state_idx[i])])
                alone = hidden_states(TRUNK, ids, torch.ones_like(ids, dtype=torch.bool))[-1]
                torch.testing.assert_close(states[b.state_idx[i]], alone, atol=1e-5, rtol=1e-5)


def test_alignment_of_a_truncated_episode():  # T1
    (batch,) = pack([built(T1, terminated=False)], PLENTY)
    assert batch.input_ids.tolist() == [list(range(1, 11))]
    assert batch.state_idx.tolist() == [1, 2, 4, 5, 6]
    assert batch.action_tok.tolist() == [3, 4, 6, 7, 8]
    assert batch.next_state_idx.tolist() == [2, 4, 5, 6, 9]
    assert batch.reward.tolist() == [0, -1, 0, 0, -2]
    assert batch.continues.tolist() == [1, 1, 1, 1, 1]
    assert batch.turn_end.tolist() == [False, True, False, False, True]
    assert batch.chain_end.tolist() == [False, False, False, False, True]
    torch.testing.assert_close(batch.logprob, torch.tensor([-0.1, -0.2, -0.1, -0.2, -0.3]))


def test_alignment_of_a_terminated_episode():  # T1
    (batch,) = pack([built(T1)], PLENTY)
    assert batch.state_idx.tolist() == [1, 2, 4, 5, 6]
    assert batch.next_state_idx.tolist()[:4] == [2, 4, 5, 6]
    assert batch.continues.tolist() == [1, 1, 1, 1, 0]


def test_terminated_truncated_and_going_on_in_the_next_window_are_three_things():
    window = replace(ALL, window=1)
    (ended,) = pack([built(T1, window)], PLENTY)
    (stopped,) = pack([built(T1, window, terminated=False)], PLENTY)
    first_turn = slice(0, 2)
    for batch in (ended, stopped):
        assert prefix_at(batch, batch.next_state_idx[1]) == [5], "the prompt of the next window"
        assert batch.continues[first_turn].tolist() == [1, 1]
    assert ended.continues.tolist()[-1] == 0
    assert stopped.continues.tolist()[-1] == 1
    assert prefix_at(stopped, stopped.next_state_idx[-1]) == [9, 10], "the last observation"


def test_a_piece_is_closed_by_the_prompt_of_the_next_one():
    episode = built(T1, replace(ALL, window=1))
    batches = pack(numbered([episode]), 7)
    assert len(batches) == 2
    check_against_naive([episode], batches)
    first = next(b for b in batches if b.action_tok.tolist() == [3, 4])
    assert prefix_at(first, first.next_state_idx[-1]) == [5]
    assert first.continues.tolist() == [1, 1]
    assert first.chain_end.tolist() == [False, True]


def test_short_rows_beside_a_long_one_do_not_break_the_budget():
    forgetting = replace(ALL, forget_on_invalid=True)
    short = [p for i in range(8) for p in (([40 + i], True, False), ([50 + i], False))]
    episode = built([(list(range(30)), False), *short], forgetting, terminated=False)
    batches = pack(numbered([episode]), 80)
    assert max(b.input_ids.numel() for b in batches) <= 80
    check_against_naive([episode], batches)


def test_many_episodes_over_few_contexts_make_few_rows():
    parts = [p for i in range(8) for p in (([1 + i % 3, 9], False), ([20 + i % 2, 30], True))]
    rule = replace(ALL, window=1)
    one, many = ([built([*parts, ([7], False)], rule)] * n for n in (1, 128))
    (once,), (often,) = pack(one, PLENTY), pack(many, PLENTY)
    assert often.input_ids.tolist() == once.input_ids.tolist()
    assert len(once.input_ids) == 6
    assert often.num_actions == 128 * once.num_actions


def test_the_denominator_counts_the_action_tokens_of_all_micro_batches():  # T8: 1.25, not 1.5
    short = built((([1, 2], False), ([3], True), ([4], False)))
    long = built((([1, 2, 7, 8, 9, 10, 11, 12], False), ([3, 4, 5], True), ([4], False)))
    losses = {1: 2.0, 3: 1.0}
    batches = pack([long, short], 11)
    assert [b.num_actions for b in batches] == [1, 3]
    means = [losses[b.num_actions] * b.num_actions / b.denominator for b in batches]
    assert sum(means) == pytest.approx(1.25)


def test_nothing_packs_to_nothing():
    assert pack([], 100) == []
    assert pack([built([([1, 2], False)])], 100) == []


def test_an_empty_batch_has_a_token_and_no_action():
    batch = empty_batch()
    assert batch.num_actions == 0
    assert batch.input_ids.shape == (1, 1)
    assert batch.mask.all()
    assert batch.reward.dtype == torch.float32


def test_a_batch_moves_with_its_extras_and_keeps_its_denominator():
    (batch,) = pack(numbered([built(T1)]), PLENTY)
    moved = batch.to("meta")
    assert moved.input_ids.device.type == "meta"
    assert moved.extras["name"].device.type == "meta"
    assert moved.denominator == batch.denominator == 5.0
    assert batch.normalized_by(7.0).denominator == 7.0
