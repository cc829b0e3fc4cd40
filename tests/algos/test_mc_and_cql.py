"""Monte-Carlo returns and token CQL: exact values, and they solve small games (T2, T4, T6, T12, T14, T15)."""

import numpy as np
import pytest
import torch
from small_games import SEEN, STITCH, Stitch, requests_of, returns
from support import fit, tiny_language_model
from test_ilql import STITCHING, A, B, C, D, OneHot, descend, game, one_batch, table_q, table_v, zeros

from algos.base import WorkerGroup
from algos.batch import pack
from algos.bc import BC, BCConfig
from algos.cql import CQL, CQLConfig
from algos.mc import MCConfig, MonteCarlo
from algos.play import context_rule
from algos.policy import Decoding, ValueHeads
from algos.sampler import Sampler
from algos.tokens import encode_episode

START = tiny_language_model(["move left\n"])


def monte_carlo(**config):
    algorithm = MonteCarlo(MCConfig(**config), START)
    v = table_v(torch.zeros(8)) if algorithm.config.bootstrap else None
    algorithm.values = ValueHeads(OneHot(), [table_q(zeros())], v)
    return algorithm


def learnt(algorithm, episodes, steps=150, lr=1.0):
    """The Q table after plain gradient descent."""
    prepared = algorithm.prepare(list(episodes), WorkerGroup()).episodes
    descend(algorithm, one_batch(*prepared), steps=steps, lr=lr)
    return heads_of(algorithm)[0].weight.detach().T


def heads_of(algorithm):
    return (algorithm.values if isinstance(algorithm, MonteCarlo) else algorithm.online_values).q


def conservative(**config):
    algorithm = CQL(CQLConfig(**{"cql_weight": 0.0, **config}), START)
    algorithm.online_values = ValueHeads(OneHot(), [table_q(zeros()) for _ in range(2)], None)
    algorithm.target_trunk = OneHot()
    algorithm.target_q = torch.nn.ModuleList([table_q(zeros()) for _ in range(2)]).requires_grad_(False)
    return algorithm


CHAIN = game((0, [4], 0), (1, [5], 0), (2, [6], 1))


@pytest.mark.parametrize("make", [monte_carlo, lambda **c: conservative(polyak=1.0, **c)], ids=["mc", "cql"])
def test_three_state_chain(make):  # T2
    q = learnt(make(gamma=0.9), [CHAIN])
    torch.testing.assert_close(q[[0, 1, 2], [4, 5, 6]], torch.tensor([0.81, 0.9, 1.0]), atol=1e-3, rtol=0)


def test_returns_of_a_long_episode_are_numbers():  # T2: 0.8 ** 499, where a matrix of powers has NaN
    long = game(*[(0, [4], 0)] * 499, (0, [4], 1))
    found = monte_carlo(gamma=0.8).prepare([long], WorkerGroup()).episodes[0].extras["returns"]
    found = found[long.is_action]
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(0.8**499, rel=1e-9)


@pytest.mark.parametrize(("discount", "first"), [("token", 0.9**4 - 0.9), ("turn", 0.9 - 1.0)])
def test_the_discount_counts_tokens_or_turns(discount, first):
    episode = game((0, [1, 2], -1), (1, [3, 4, 5], 1))
    found = monte_carlo(gamma=0.9, discount=discount).prepare([episode], WorkerGroup()).episodes[0]
    assert found.extras["returns"][episode.is_action][0] == pytest.approx(first)


def test_the_terminal_reward_counts_once():  # T15: 1.99 where the last transition stands twice
    found = monte_carlo(gamma=0.99).prepare([game((0, [4], 1))], WorkerGroup()).episodes[0]
    assert found.extras["returns"].tolist() == [0, 1, 0]


def test_an_episode_that_was_cut_short_goes_on_with_the_value_of_where_it_was_cut():  # T15: 1.495
    algorithm = monte_carlo(gamma=0.99, bootstrap=True)
    with torch.no_grad():
        algorithm.values.v.net.weight[0, 7] = 0.5
    cut, over = (game((0, [4], 0), (1, [5], 1), last=7, terminated=t) for t in (False, True))
    found = algorithm.prepare([over, cut], WorkerGroup()).episodes
    assert [e.extras["returns"][e.is_action].tolist() for e in found] == [
        pytest.approx([0.99, 1.0]),
        pytest.approx([0.99 * 1.495, 1.495]),
    ]


def test_cut_walks_are_worth_what_the_whole_ones_show():
    """State 2 is one move from the goal (-1), and half of the walks that lead there are cut on arrival."""
    walk = [(0, [4], -1), (1, [5], -1), (2, [6], -1)]
    walks = [
        game(*walk),
        game(*walk[:2], last=2, terminated=False),
        game(*walk[:1], last=1, terminated=False),
    ]
    q = []
    for bootstrap in (False, True):
        algorithm = monte_carlo(gamma=1.0, bootstrap=bootstrap)
        for _ in range(40):
            learnt(algorithm, walks, steps=5)
        q.append(heads_of(algorithm)[0].weight.detach().T[[0, 1, 2], [4, 5, 6]].tolist())
    assert q[0] == pytest.approx([-2.0, -1.5, -1.0], abs=0.01)
    assert q[1] == pytest.approx([-3.0, -2.0, -1.0], abs=0.01)


def test_the_loss_of_monte_carlo_returns_has_its_hand_computed_value():  # T6
    algorithm = monte_carlo(gamma=0.9, cql_weight=0.1)
    with torch.no_grad():
        weight = torch.full((8, 8), -1e4)
        weight[0, :4] = torch.arange(4.0) - 1.5
        weight[1, :4] = torch.arange(4.0) - 2.8
        algorithm.values.q[0].weight.copy_(weight.T)
    episode = algorithm.prepare([game((0, [2], 0), (1, [3], 1))], WorkerGroup()).episodes
    loss = algorithm(one_batch(*episode)).value.item()
    assert loss == pytest.approx(0.5 * (0.4**2 + 0.8**2) / 2 + 0.1 * 0.9401896, abs=1e-5)


def test_monte_carlo_returns_do_not_stitch():  # T4
    q = learnt(monte_carlo(gamma=1.0), STITCHING)
    assert q[0, [A, B]].tolist() == pytest.approx([0.0, 0.5], abs=1e-3)


def test_the_datas_own_next_action_is_what_token_cql_backs_up():  # T4 with tau .5
    q = learnt(conservative(gamma=1.0, polyak=1.0), STITCHING)
    assert q[1, [C, D]].tolist() == pytest.approx([0, 1], abs=1e-3)
    assert q[0, [A, B]].tolist() == pytest.approx([0.0, 0.5], abs=1e-3)


@pytest.mark.parametrize("make", [monte_carlo, conservative], ids=["mc", "cql"])
@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0.01, (0.006347, 0.980958)),
        (0.1, (0.057771, 0.826686)),
        (0.75, (0.25, 0.25)),
        (1.0, (0.285749, 0.142753)),
        (10.0, (0.478830, -0.436491)),
    ],
)
def test_the_conservative_term_keeps_the_mean_and_pulls_towards_the_data(make, weight, expected):  # T12
    """Token A earns 0 in three quarters of the data, token B 1 in one; no other is possible."""
    episodes = [game((0, [A], 0))] * 3 + [game((0, [B], 1))]
    algorithm = make(cql_weight=weight)
    with torch.no_grad():
        for head in heads_of(algorithm):
            head.bias.fill_(-1e4)
            head.bias[[A, B]] = 0.0
    learnt(algorithm, episodes, steps=300, lr=1.0 / max(weight, 1.0))
    for head in heads_of(algorithm):
        q = head.weight.detach()[[A, B], 0]
        assert q.tolist() == pytest.approx(expected, abs=2e-4)
        assert float(q @ torch.tensor([0.75, 0.25])) == pytest.approx(0.25, abs=1e-4)


def test_what_the_data_never_do_drifts_down_and_does_not_settle():  # T12
    algorithm = monte_carlo(cql_weight=0.01)
    (head,) = heads_of(algorithm)
    with torch.no_grad():
        head.bias.fill_(-1e4)
        head.bias[[A, B]] = 0.0
    for steps, expected in ((100, -0.130), (900, -0.917)):
        q = learnt(algorithm, [game((0, [A], 1))], steps=steps, lr=0.5)
        assert q[0, B].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(("count", "expected"), [(1, 0.5), (5, 0.96875)])
def test_the_best_of_several_proposals_is_as_good_as_it_should_be(count, expected):  # T14
    """One token is worth 0 and another 1; the language model says either, and nothing else."""
    policy = MonteCarlo(MCConfig(), tiny_language_model(["move left\n"])).policy()
    policy.codec.forbidden.fill_(True)[[A, B]] = False
    with torch.no_grad():
        policy.lm.get_output_embeddings().weight.zero_()
        policy.values.q[0].bias[B] = 1.0
    slots = 2000
    sampler = Sampler(policy, Decoding(mode="propose", candidates=count), slots, max_action_tokens=1)
    for slot in range(slots):
        sampler.start(slot, np.random.default_rng(slot))
    actions = sampler.act({slot: np.asarray([0]) for slot in range(slots)}).values()
    assert np.mean([a.ids[0] == B for a in actions]) == pytest.approx(expected, abs=0.025 / count)


def test_a_token_whose_successor_is_unknown_has_no_target():
    cut = game((0, [4], 0), (1, [5], 3), terminated=False)
    algorithm = conservative(polyak=1.0, gamma=1.0)
    q = learnt(algorithm, [cut], steps=100)
    assert q[1, 5].item() == 0.0
    assert q[0, 4].item() == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "config", "expected"),
    [(MonteCarlo, MCConfig(gamma=1.0), 0.5), (CQL, CQLConfig(gamma=1.0, polyak=0.5, cql_weight=0.001), 0.5)],
    ids=["mc", "cql"],
)
def test_a_network_finds_the_better_of_what_was_done(cls, config, expected):  # T4: b and then d
    start = tiny_language_model([s.text for e in SEEN for s in e.segments])
    rule = context_rule(STITCH, start.max_tokens)
    tokens = [encode_episode(e, start.codec, rule) for e in SEEN]
    fit(BC(BCConfig(), start), pack(tokens, 1000), steps=200, lr=1e-2)
    algorithm = cls(config, start)
    fit(algorithm, pack(algorithm.prepare(tokens, WorkerGroup()).episodes, 1000), steps=500, lr=3e-3)
    for decoding in ({"beta": 32.0}, {"mode": "propose", "candidates": 8}):
        found = returns(STITCH, Stitch, algorithm.policy(), requests_of(100), min_p=0.1, **decoding)
        assert np.mean(found) == pytest.approx(expected, abs=0.02)
