"""Returns and targets over action tokens, against hand-computed vectors (algorithms.md 14: T1, T2, T7)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algos.returns import lambda_returns, n_step_returns


def one_chain(length):
    ends = np.zeros(length, bool)
    ends[-1] = True
    return ends


def next_values(values, bootstrap):
    return np.append(values[1:], bootstrap)


def discounts(length, gamma, terminated):
    factor = np.full(length, gamma)
    factor[-1] *= not terminated
    return factor


def reward_to_go(reward, discount):
    zeros = np.zeros(len(reward))
    return lambda_returns(np.asarray(reward, float), discount, zeros, one_chain(len(reward)), lam=1.0)


def test_reward_to_go_skips_environment_tokens():  # T1
    found = reward_to_go([0, -1, 0, 0, -1], discounts(5, 0.9, terminated=True))
    np.testing.assert_allclose(found, [-1.5561, -1.729, -0.81, -0.9, -1], atol=1e-12)


def test_reward_to_go_with_a_discount_per_turn():  # T1
    found = reward_to_go([0, -1, 0, 0, -1], np.array([1, 0.9, 1, 1, 0.0]))
    np.testing.assert_allclose(found, [-1.9, -1.9, -1, -1, -1], atol=1e-12)


def test_three_state_chain():  # T2
    found = reward_to_go([0, 0, 1], discounts(3, 0.9, terminated=True))
    np.testing.assert_allclose(found, [0.81, 0.9, 1], atol=1e-12)


def test_long_chains_do_not_underflow_to_nan():  # T2
    reward = np.zeros(500)
    reward[-1] = 1
    found = reward_to_go(reward, discounts(500, 0.8, terminated=True))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], 0.8**499, rtol=1e-9)


GAE_CASES = {  # T7: rewards, values, gamma, lambda, value after the end, lambda-returns
    "terminated": ([0, 0, 1], [0.2, 0.4, 0.6], 1.0, 0.95, None, [0.951, 0.98, 1]),
    "discounted": ([0, 0, 1], [0.2, 0.4, 0.6], 0.99, 0.95, None, [0.9322731, 0.9702, 1]),
    "truncated": ([0, 0, 1], [0.2, 0.4, 0.6], 1.0, 0.95, 0.5, [1.40225, 1.455, 1.5]),
    "across turns": (
        [0, -1, 0, 0, -1],
        [-1.5, -1.4, -0.9, -0.8, -0.7],
        1.0,
        0.95,
        None,
        [-1.9433644, -1.9719625, -0.97575, -0.985, -1],
    ),
    "across turns, truncated": (
        [0, -1, 0, 0, -1],
        [-1.5, -1.4, -0.9, -0.8, -0.7],
        1.0,
        0.95,
        -0.6,
        [-2.4320681, -2.4863875, -1.51725, -1.555, -1.6],
    ),
    "lambda 1": ([0, -1, 0, 0, -1], [-1.5, -1.4, -0.9, -0.8, -0.7], 1.0, 1.0, None, [-2, -2, -1, -1, -1]),
    "lambda 0": (
        [0, -1, 0, 0, -1],
        [-1.5, -1.4, -0.9, -0.8, -0.7],
        1.0,
        0.0,
        None,
        [-1.4, -1.9, -0.8, -0.7, -1],
    ),
}


@pytest.mark.parametrize("case", GAE_CASES)
def test_lambda_returns_equal_the_generalised_advantage_plus_the_value(case):
    reward, values, gamma, lam, bootstrap, expected = GAE_CASES[case]
    n = len(reward)
    found = lambda_returns(
        np.asarray(reward, float),
        discounts(n, gamma, terminated=bootstrap is None),
        next_values(np.asarray(values), bootstrap or 0.0),
        one_chain(n),
        lam,
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


numbers = st.floats(-2, 2, width=32)
entries = st.lists(st.tuples(numbers, st.floats(0, 1, width=32), numbers, st.booleans()), max_size=12)


def columns(rows):
    reward, discount, value, ends = (np.asarray([r[i] for r in rows], float) for i in range(4))
    ends = ends.astype(bool)
    if len(ends):
        ends[-1] = True
    return reward, discount, value, ends


@given(entries, st.integers(1, 6) | st.just(10**9))
def test_n_step_returns_equal_their_definition(rows, n):
    reward, discount, value, ends = columns(rows)
    expected = []
    for k in range(len(reward)):
        total, factor, j = 0.0, 1.0, k
        while True:
            total += factor * reward[j]
            factor *= discount[j]
            if ends[j] or j - k + 1 == n:
                break
            j += 1
        expected.append(total + factor * value[j])
    np.testing.assert_allclose(n_step_returns(reward, discount, value, ends, n), expected, atol=1e-9)


@given(entries)
def test_the_limits_of_both_backups_agree(rows):
    reward, discount, value, ends = columns(rows)
    one_step = reward + discount * value
    arguments = (reward, discount, value, ends)
    np.testing.assert_allclose(lambda_returns(*arguments, lam=0.0), one_step, atol=1e-9)
    np.testing.assert_allclose(n_step_returns(*arguments, n=1), one_step, atol=1e-9)
    monte_carlo = lambda_returns(*arguments, lam=1.0)
    np.testing.assert_allclose(n_step_returns(*arguments, n=len(rows) + 1), monte_carlo, atol=1e-9)


@given(entries, entries, st.floats(0, 1))
def test_nothing_flows_from_one_chain_into_another(first, second, lam):
    apart = [lambda_returns(*columns(rows), lam=lam) for rows in (first, second)]
    joined = [np.concatenate(both) for both in zip(columns(first), columns(second), strict=True)]
    np.testing.assert_allclose(lambda_returns(*joined, lam=lam), np.concatenate(apart), atol=1e-12)
