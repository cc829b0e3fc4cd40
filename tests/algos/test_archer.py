"""ArCHer: exact values of utterances on tables (T2-T4, T14, T15), and both variants solve small games."""

import math

import numpy as np
import pytest
import torch
from small_games import LIGHTS, Lights, requests_of, returns
from support import fit, tiny_language_model
from test_ilql import STATES, STITCHING, A, B, C, D, OneHot, descend, game, one_batch, table_q, table_v, zeros
from test_ppo import encoded, improve, random_player
from torch import nn

from algos.archer import ArCHer, ArCHerConfig, OfflineArCHer, OfflineArCHerConfig
from algos.base import WorkerGroup
from algos.batch import pack
from algos.bc import BC, BCConfig
from algos.networks import TokenLogProb
from algos.play import play
from algos.policy import Decoding

TEXTS = ("red\n", "stop\n", "again\n", "end\n")


def table(cls, config, q=None, v=None):
    """A learner whose critic is tables (zero where not given), and whose actor is one of logits."""
    algorithm = cls(config, tiny_language_model(TEXTS, width=8, layers=1))
    algorithm.lm.requires_grad_(False)
    algorithm.lm.transformer = OneHot()
    algorithm.log_prob = TokenLogProb(nn.Linear(STATES, STATES, bias=False))
    for critic in (algorithm.critic, algorithm.target):
        critic.trunk = OneHot()
        critic.q = nn.ModuleList([table_q(zeros() if q is None else q) for _ in range(2)])
        critic.v = nn.ModuleList([table_v(torch.zeros(STATES) if v is None else v) for _ in range(2)])
    algorithm.target.requires_grad_(False)
    return algorithm


def online(q=None, v=None, **config):
    config = {"actor_after": 0, "replayed": 0.0, "polyak": 1.0, **config}
    return table(ArCHer, ArCHerConfig(**config), q, v)


def offline(q=None, v=None, **config):
    return table(OfflineArCHer, OfflineArCHerConfig(**{"polyak": 1.0, **config}), q, v)


def actor(algorithm):
    """Its logits, [token, state]."""
    return algorithm.log_prob.lm_head.weight


def learn(algorithm, episodes, steps=60, lr=2.0):
    """The first Q table and V table after plain gradient descent."""
    prepared = algorithm.prepare(list(episodes), WorkerGroup()).episodes
    descend(algorithm, one_batch(*prepared), steps=steps, lr=lr)
    return algorithm.critic.q[0].weight.detach().T, algorithm.critic.v[0].net.weight.detach()[0]


@pytest.mark.parametrize("make", [online, offline])
def test_a_chain_of_utterances_is_discounted_by_the_turn(make):  # T2
    chain = game((0, [1, 4], 0), (1, [2, 3, 5], 0), (2, [6], 1))
    q, v = learn(make(gamma=0.9), [chain], lr=6.0)
    assert q[[1, 3, 2], [4, 5, 6]].tolist() == pytest.approx([0.81, 0.9, 1.0], abs=1e-3)
    assert v[[0, 1, 2]].tolist() == pytest.approx([0.81, 0.9, 1.0], abs=1e-3)


@pytest.mark.parametrize("make", [online, offline])
@pytest.mark.parametrize(("terminated", "expected"), [(True, 1.0), (False, 1.495)])
def test_a_cut_episode_counts_the_value_of_its_last_observation(make, terminated, expected):  # T15
    v = torch.zeros(STATES)
    v[7] = 0.5
    q, _ = learn(make(gamma=0.99, v=v), [game((0, [1, 4], 1), terminated=terminated)])
    assert q[1, 4].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("tau", "expected"), [(0.5, (0.5, 0.0, 0.25)), (0.7, (0.7, 0.2, 0.55)), (0.9, (0.9, 0.4, 0.85))]
)
def test_the_expectile_of_offline_archer_stitches(tau, expected):  # T4
    q, v = learn(offline(gamma=1.0, tau=tau), STITCHING, steps=200)
    assert [*q[0, [A, B]].tolist(), v[0].item()] == pytest.approx(expected, abs=2e-3)
    assert q[1, [C, D]].tolist() == pytest.approx([0.0, 1.0], abs=1e-3)


def two_utterances():
    """Token A, worth 1, is said in four of five episodes and token B, worth -1, in one."""
    return [game((0, [A], 1))] * 4 + [game((0, [B], -1))]


def test_advantages_gradient_and_weights_of_two_utterances():  # T14: pi = (.8, .2), Q = (1, -1)
    algorithm = online()
    _, v = learn(algorithm, two_utterances(), steps=300, lr=1.0)
    assert v[0].item() == pytest.approx(0.6, abs=1e-4)
    batch = one_batch(*algorithm.prepare(two_utterances(), WorkerGroup()).episodes)
    metrics = algorithm(batch).metrics
    assert metrics["advantage/mean"].item() == pytest.approx(0.0, abs=1e-4)
    assert metrics["advantage/size"].item() == pytest.approx(0.64, abs=1e-4)

    with torch.no_grad():
        actor(algorithm).fill_(-1e4)
        actor(algorithm)[[A, B], 0] = torch.tensor([0.8, 0.2]).log()
    algorithm(batch).value.backward()
    assert (-actor(algorithm).grad[[A, B], 0]).tolist() == pytest.approx([0.32, -0.32], abs=1e-4)

    weights = offline().weight(torch.tensor([0.4, -1.6, 50.0]))
    assert weights.tolist() == pytest.approx([1.491825, 0.201897, 100.0], rel=1e-5)


def test_the_smaller_of_the_twins_counts():
    algorithm = online()
    q, v = ([zeros() + x for x in (2.0, 3.0)], [torch.full((STATES,), x) for x in (1.5, 0.5)])
    algorithm.critic.q = nn.ModuleList([table_q(t) for t in q])
    algorithm.critic.v = nn.ModuleList([table_v(t) for t in v])
    batch = one_batch(*algorithm.prepare([game((0, [1, 4], 1))], WorkerGroup()).episodes)
    assert algorithm(batch).metrics["advantage/mean"].item() == pytest.approx(2.0 - 0.5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_every_token_of_an_utterance_is_learnt_its_stop_included(temperature):
    """With an advantage of 1 everywhere the actor's loss is that of cloning."""
    for algorithm, weight in ((online(q=zeros() + 1), 1.0), (offline(q=zeros() + 1), math.e)):
        algorithm.temperature = temperature
        episode = game((0, [1, 2, 3], 0), (4, [5, 6], 1))
        batch = one_batch(*algorithm.prepare([episode], WorkerGroup()).episodes)
        logp = torch.log_softmax(actor(algorithm).T / temperature, dim=-1)
        clone = -logp[[0, 1, 2, 4, 5], [1, 2, 3, 5, 6]].mean().item()
        assert algorithm(batch).metrics["loss/policy"].item() == pytest.approx(weight * clone, rel=1e-5)


def test_a_clipped_ratio_moves_the_actor_no_further():
    algorithm = online(q=zeros() + 1, clip=0.2)
    batch = one_batch(*algorithm.prepare([game((0, [1, 2], 1))], WorkerGroup()).episodes)
    log_prob = torch.log_softmax(actor(algorithm).T, dim=-1)[[0, 1], [1, 2]].detach()
    for shift, moves in ((0.0, True), (1.0, False)):
        batch.extras["old"].copy_(log_prob - shift)
        algorithm.zero_grad()
        algorithm(batch).value.backward()
        assert bool(actor(algorithm).grad.any()) == moves


def test_the_ratio_starts_at_one_whatever_the_sampler_noted():
    episode = game((0, [1, 2], 1))  # its log-probabilities are 0: as of a greedy sampler
    losses = []
    for clip in (0.2, None):
        algorithm = online(q=zeros() + 1, clip=clip)
        batch = one_batch(*algorithm.prepare([episode], WorkerGroup()).episodes)
        loss = algorithm(batch)
        loss.value.backward()
        losses.append((actor(algorithm).grad, loss.metrics["loss/policy"].item()))
    (clipped, value), (plain, _) = losses
    assert value == pytest.approx(-1.0)
    torch.testing.assert_close(clipped, plain)


def test_replayed_episodes_teach_q_and_neither_v_nor_the_actor():
    algorithm = online(replayed=3.0)
    old, new = game((0, [1, 4], 1)), game((3, [2, 5], 1))
    algorithm.prepare([old], WorkerGroup())
    torch.manual_seed(0)
    q, v = learn(algorithm, [new], steps=100)
    assert q[[1, 2], [4, 5]].tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    assert v[[0, 3]].tolist() == pytest.approx([0.0, 1.0], abs=1e-3)
    prepared = algorithm.prepare([new], WorkerGroup()).episodes
    for fresh in (False, True):
        part = [e for e in prepared if e.extras["fresh"].any() == fresh]
        algorithm.critic.q[0].weight.data += 1.0
        algorithm.critic.q[1].weight.data += 1.0
        algorithm.zero_grad()
        algorithm(one_batch(*part)).value.backward()
        assert bool(actor(algorithm).grad.any()) == fresh


def test_the_replay_buffer_is_bounded_and_drawn_from_by_the_seed():
    algorithm = online(replay=5, replayed=4.0)
    rounds = [[game((0, [1, 4], float(n)))] * 2 for n in range(6)]
    for episodes in rounds:
        torch.manual_seed(7)
        prepared = algorithm.prepare(episodes, WorkerGroup())
    assert [e.reward.sum() for e in algorithm._replay] == [3.0, 4.0, 4.0, 5.0, 5.0]
    assert prepared.metrics["archer/replay"] == 5
    assert len(prepared.episodes) == 2 + 8
    algorithm._replay = algorithm._replay[:-2]
    algorithm._replay.insert(0, rounds[3][0])
    torch.manual_seed(7)
    again = algorithm.prepare(rounds[5], WorkerGroup())
    assert [e.reward.sum() for e in again.episodes] == [e.reward.sum() for e in prepared.episodes]


def test_a_part_of_an_episode_is_replayed_that_often():
    algorithm = online(replayed=0.5)
    torch.manual_seed(0)
    sizes = [len(algorithm.prepare([game((0, [1, 4], 1))], WorkerGroup()).episodes) for _ in range(200)]
    assert sum(sizes) - 200 == pytest.approx(100, abs=25)


def test_the_actor_waits_for_its_critic():
    algorithm = ArCHer(ArCHerConfig(actor_after=2), tiny_language_model(TEXTS))
    episodes = [encoded(algorithm)]
    start = {k: v.clone() for k, v in algorithm.lm.state_dict().items()}
    critic = {k: v.clone() for k, v in algorithm.critic.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in algorithm.parameters() if p.requires_grad], weight_decay=0.0)
    stays = []
    for _ in range(3):
        algorithm(one_batch(*algorithm.prepare(episodes, WorkerGroup()).episodes)).value.backward()
        optimizer.step()
        optimizer.zero_grad()
        stays.append(all(torch.equal(v, start[k]) for k, v in algorithm.lm.state_dict().items()))
    assert stays == [True, True, False]
    assert any(not torch.equal(v, critic[k]) for k, v in algorithm.critic.state_dict().items())
    resumed = ArCHer(ArCHerConfig(actor_after=2), tiny_language_model(TEXTS))
    resumed.load_state_dict(algorithm.state_dict())
    assert resumed.prepare(episodes, WorkerGroup()).metrics["archer/actor_learns"] == 1


def test_targets_follow_the_critic():
    algorithm = online(polyak=0.1)
    learn(algorithm, [game((0, [4], 1))], steps=1)
    online_q, target_q = (c.q[0].weight[4, 0].item() for c in (algorithm.critic, algorithm.target))
    assert online_q > 0
    assert target_q == pytest.approx(0.1 * online_q, rel=1e-5)


@pytest.mark.slow
def test_offline_archer_learns_the_two_turns_that_win_from_random_play():
    """No first turn earns anything: without the value of the second they are all alike."""
    start = random_player()
    policy = BC(BCConfig(), start).policy().eval()
    played = play(LIGHTS, Lights, policy, requests_of(32, 2), decoding=Decoding(), slots=32, name="data")
    algorithm = OfflineArCHer(OfflineArCHerConfig(gamma=1.0, tau=0.7, awr_beta=10.0), start)
    episodes = algorithm.prepare([p.tokens for p in played], WorkerGroup()).episodes
    fit(algorithm, pack(episodes, 4000), steps=300, lr=1e-2)
    assert np.mean(returns(LIGHTS, Lights, algorithm.policy(), requests_of(200, 2))) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "epochs"), [({}, 1), ({"clip": 0.2, "replayed": 0.0}, 4)], ids=["reinforce", "clipped"]
)
def test_archer_learns_the_two_turns_that_win(config, epochs):
    algorithm = ArCHer(ArCHerConfig(gamma=1.0, actor_lr=0.3, **config), random_player())
    before = np.mean(returns(LIGHTS, Lights, algorithm.policy(), requests_of(200, 2)))
    assert before < 0.45
    improve(algorithm, rounds=40, lr=1e-3, epochs=epochs, portions=10 // epochs)
    assert np.mean(returns(LIGHTS, Lights, algorithm.policy(), requests_of(200, 2))) > 0.95
