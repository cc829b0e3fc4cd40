"""PPO: exact advantages, losses and KL estimates (T7-T9), and it improves on its start."""

import copy
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from small_games import LIGHTS, Lights, requests_of, returns
from support import episode_of, fit, tiny_language_model
from test_ilql import game

from algos.base import WorkerGroup
from algos.batch import pack
from algos.bc import BC, BCConfig
from algos.play import play
from algos.policy import Decoding
from algos.ppo import PPO, PPOConfig, clipped_policy_loss, clipped_value_loss, whiten
from algos.tokens import ContextRule, encode_episode

ALL = ContextRule(window=None, max_tokens=256, reserve=8)
EPISODE = episode_of(
    ("red\n", False), ("stop\n", True, -1.0), ("again\n", False), ("red\n", True, 1.0), ("end\n", False)
)
TEXTS = [s.text for s in EPISODE.segments]


def learner(**config):
    return PPO(PPOConfig(**config), tiny_language_model(TEXTS))


@pytest.fixture
def prepared(monkeypatch):
    """Prepares a round of which the model says what is given, and 0 of everything else."""

    def prepare(algorithm, episodes, **said):
        nothing = np.zeros(sum(int(e.is_action.sum()) for e in episodes))

        def look(algorithm, episodes, group, names):
            return {name: np.asarray(said.get(name, nothing)) for name in names}

        monkeypatch.setattr("algos.ppo.look", look)
        return algorithm.prepare(episodes, WorkerGroup())

    return prepare


def of_actions(episode, name):
    return episode.extras[name][episode.is_action]


TURNS = ([(0, [1, 2], -1), (5, [3, 4, 6], -1)], (-1.5, -1.4, -0.9, -0.8, -0.7))
SHORT = ([(0, [1, 2, 3], 1)], (0.2, 0.4, 0.6))
OVER = 9.0
"""What the model says of a state after the end, which counts for nothing."""


@pytest.mark.parametrize(
    ("options", "played"),
    [
        (
            {"gamma": 1.0},
            [
                (SHORT, 0.5, (1.20225, 1.055, 0.9)),
                (SHORT, None, (0.751, 0.58, 0.4)),
                (TURNS, None, (-0.4433644, -0.5719625, -0.07575, -0.185, -0.3)),
                (TURNS, -0.6, (-0.9320681, -1.0863875, -0.61725, -0.755, -0.9)),
            ],
        ),
        ({"gamma": 0.99}, [(SHORT, None, (0.7322731, 0.5702, 0.4))]),
        ({"gamma": 1.0, "lam": 0.0}, [(TURNS, None, (0.1, -0.5, 0.1, 0.1, -0.3))]),
        ({"gamma": 1.0, "lam": 1.0}, [(TURNS, None, (-0.5, -0.6, -0.1, -0.2, -0.3))]),
    ],
    ids=["together", "discounted", "lambda 0", "lambda 1"],
)
def test_advantages_over_action_tokens_across_turns(options, played, prepared):  # T7
    episodes = [game(*turns, terminated=last is None) for (turns, _), last, _ in played]
    value = np.concatenate([v for (_, v), _, _ in played])
    following = [[*v[1:], OVER if last is None else last] for (_, v), last, _ in played]
    algorithm = learner(whiten=False, **options)
    found = prepared(algorithm, episodes, value=value, next_value=np.concatenate(following)).episodes
    for episode, ((_, v), _, expected) in zip(found, played, strict=True):
        assert of_actions(episode, "advantage") == pytest.approx(expected, abs=1e-6)
        assert of_actions(episode, "return") == pytest.approx(np.add(expected, v), abs=1e-6)


def test_whitening_a_round_leaves_its_returns(prepared):  # T7
    turns, value = SHORT
    seen = {"value": value, "next_value": (*value[1:], OVER)}
    (episode,) = prepared(learner(gamma=1.0), [game(*turns)], **seen).episodes
    assert of_actions(episode, "advantage") == pytest.approx([1.214144, 0.020933, -1.235077], abs=1e-5)
    assert of_actions(episode, "return") == pytest.approx([0.951, 0.98, 1.0])


def test_advantages_are_whitened_with_the_variance_of_all_workers():  # T7
    found = whiten(np.array([0.751, 0.58, 0.4]), WorkerGroup())
    assert found == pytest.approx([1.214144, 0.020933, -1.235077], abs=1e-5)
    everyone = np.array([0.751, 0.58, 0.4])
    totals = iter([[3.0, everyone.sum()], [3.0, np.square(everyone - everyone.mean()).sum()]])
    shared = WorkerGroup(sum=lambda x: torch.tensor(next(totals), dtype=torch.float64))
    assert whiten(everyone[:1], shared) == pytest.approx([1.214144], abs=1e-5)


def test_the_clipped_policy_loss():  # T8
    ratio = torch.tensor([1.3, 1.3, 0.7, 0.7])
    loss, clipped = clipped_policy_loss(ratio.log(), torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2)
    assert loss.tolist() == pytest.approx([-1.2, 1.3, -0.7, 0.8])
    assert clipped.mean().item() == 0.5


def test_a_ratio_beyond_all_bounds_has_no_gradient_and_no_nan():
    log_ratio = torch.tensor([90.0, -200.0, 0.1], requires_grad=True)
    loss, _ = clipped_policy_loss(log_ratio, torch.tensor([1.0, -1.0, 1.0]), 0.2)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([-1.2, 0.8, -1.10517], abs=1e-5)
    assert log_ratio.grad.tolist() == pytest.approx([0.0, 0.0, -1.10517], abs=1e-5)


def test_the_clipped_value_loss_stops_where_the_value_has_moved_far_enough():  # T8
    value = torch.tensor([0.5], requires_grad=True)
    loss = clipped_value_loss(value, torch.tensor([0.0]), torch.tensor([1.0]), 0.2)
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.32)
    assert value.grad.item() == 0.0
    assert clipped_value_loss(value, torch.tensor([0.0]), torch.tensor([1.0]), None).item() == 0.125


@pytest.mark.parametrize(("weight", "total"), [(0.0, 0.05), (0.5, 0.09), (1.0, 0.13)])
def test_the_loss_weighs_the_values_against_the_policy(weight, total):  # T8
    algorithm = learner(value_weight=weight, value_clip=0.2, initial_value=0.5)
    (episode,) = algorithm.prepare([game((0, [1, 2, 3, 4], 0))], WorkerGroup()).episodes
    changed = {
        "old": of_actions(episode, "old") - np.log([1.3, 1.3, 0.7, 0.7]),
        "advantage": np.array([1.0, -1.0, 1.0, -1.0]),
        "value": np.array([0.0, 0.5, 0.5, 0.5]),
        "return": np.array([1.0, 0.5, 0.5, 0.5]),
    }
    loss = algorithm(*pack([episode.with_actions(**changed)], 1000))
    assert loss.metrics["loss/policy"].item() == pytest.approx(0.05, abs=1e-6)
    assert loss.metrics["loss/value"].item() == pytest.approx(0.08, abs=1e-6)
    assert loss.metrics["ppo/kl_to_old"].item() == pytest.approx(0.0471553, abs=1e-6)
    assert loss.metrics["ppo/clipped"].item() == 0.5
    assert loss.value.item() == pytest.approx(total, abs=1e-6)


def encoded(algorithm):
    return encode_episode(EPISODE, algorithm.policy().codec, ALL)


def moved(algorithm, scale=0.3):
    """The policy away from its start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in algorithm.lm.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return algorithm


def test_nothing_is_far_from_anything_before_the_first_step():
    algorithm = learner()
    prepared = algorithm.prepare([encoded(algorithm)], WorkerGroup())
    assert prepared.metrics["ppo/kl_to_start"] == pytest.approx(0.0, abs=1e-6)
    (batch,) = pack(prepared.episodes, 1000)
    metrics = algorithm(batch).metrics
    assert metrics["ppo/kl_to_old"].item() == pytest.approx(0.0, abs=1e-6)
    assert metrics["ppo/clipped"].item() == 0.0


def test_the_penalty_lowers_the_reward_of_tokens_that_the_start_finds_unlikely():
    algorithm = moved(learner(kl_weight=0.5, whiten=False, gamma=1.0, lam=1.0))
    tokens = encoded(algorithm)
    returns_of = {}
    for weight in (0.0, 0.5):
        algorithm.kl_weight.fill_(weight)
        episode = algorithm.prepare([tokens], WorkerGroup()).episodes[0]
        returns_of[weight] = episode.extras["return"][tokens.is_action]
        old = episode.extras["old"][tokens.is_action]
    with torch.no_grad():
        start = PPO(PPOConfig(), tiny_language_model(TEXTS))
        reference = start.prepare([tokens], WorkerGroup()).episodes[0].extras["old"][tokens.is_action]
    penalty = 0.5 * (old - reference)
    expected = returns_of[0.0] - np.cumsum(penalty[::-1])[::-1]
    assert returns_of[0.5] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("lam", "expected"), [(0.0, (-0.05, 0.1, 1.0)), (1.0, (1.05, 1.1, 1.0))])
def test_each_token_pays_for_being_likelier_than_at_the_start(lam, expected, prepared):  # T8
    algorithm = learner(kl_weight=0.1, gamma=1.0, lam=lam)
    said = {"old": np.array([-1, -2, -0.5]), "reference": np.array([-1.5, -1, -0.5])}
    (episode,) = prepared(algorithm, [game((0, [1, 2, 3], 1))], **said).episodes
    assert of_actions(episode, "return") == pytest.approx(expected)


@pytest.mark.parametrize(("target", "weight"), [(0.18, 0.214161), (0.2, 0.192745)])
def test_the_kl_that_steers_the_penalty_points_from_the_policy_to_its_start(target, weight, prepared):  # T9
    """Of (.8, .2) from (.5, .5); with the two exchanged the estimate would be .167255."""
    algorithm = learner(kl_weight=0.2, kl_target=target, kl_horizon=10)
    said = {"old": np.log([0.8] * 8 + [0.2] * 2), "reference": np.log([0.5] * 10)}
    metrics = prepared(algorithm, [game((0, [1], 0))] * 10, **said).metrics
    assert metrics["ppo/kl_to_start"] == pytest.approx(0.192745, abs=1e-6)
    assert algorithm.kl_weight.item() == pytest.approx(weight, abs=1e-6)


def test_the_kl_of_policies_that_are_far_apart_does_not_explode(prepared):  # T9
    """Of (.99, .01) from (.01, .99); with the two exchanged the estimate would be 92.506884."""
    said = {"old": np.log([0.99] * 99 + [0.01]), "reference": np.log([0.01] * 99 + [0.99])}
    metrics = prepared(learner(), [game((0, [1], 0))] * 100, **said).metrics
    assert metrics["ppo/kl_to_start"] == pytest.approx(4.503217, abs=1e-6)


@pytest.mark.parametrize(("kl", "expected"), [(6.6, 0.200256), (60.0, 0.200512), (-3.0, 0.199488)])
def test_the_adaptive_weight_of_the_penalty(kl, expected):  # T8
    algorithm = learner(kl_weight=0.2, kl_target=6.0)
    algorithm._steer(kl, 128, WorkerGroup())
    assert algorithm.kl_weight.item() == pytest.approx(expected, abs=1e-6)


def test_a_round_longer_than_the_horizon_does_not_turn_the_penalty_into_a_reward():
    algorithm = learner(kl_weight=0.2, kl_target=6.0, kl_horizon=10)
    algorithm._steer(0.0, 128, WorkerGroup())
    assert algorithm.kl_weight.item() == pytest.approx(0.16)


def test_a_penalty_of_zero_cannot_be_steered():
    with pytest.raises(ValueError, match="steers kl_weight by factors"):
        PPOConfig(kl_weight=0.0, kl_target=6.0)


def test_the_weight_of_the_penalty_is_saved_with_the_model():
    algorithm = learner(kl_weight=0.2, kl_target=6.0)
    algorithm._steer(60.0, 128, WorkerGroup())
    fresh = learner(kl_weight=0.2, kl_target=6.0)
    fresh.load_state_dict(algorithm.state_dict())
    assert fresh.kl_weight.item() == pytest.approx(0.200512, abs=1e-6)


def test_a_round_ends_when_the_policy_has_gone_far():
    algorithm = learner(max_kl=0.02)
    assert algorithm.round_is_over({"ppo/kl_to_old": 0.03})
    assert not algorithm.round_is_over({"ppo/kl_to_old": 0.01})
    assert not learner().round_is_over({"ppo/kl_to_old": 9.0})


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_demonstrations_are_cloned_and_nothing_else(temperature):
    algorithm = moved(learner(bc_weight=0.5))
    algorithm.temperature = temperature
    tokens = encoded(algorithm)
    (batch,) = pack(algorithm.beside([], [tokens], WorkerGroup()), 1000)
    loss = algorithm(batch)
    (plain,) = pack([tokens], 1000)
    clone = BC(BCConfig(), algorithm._start[0])(plain)
    assert loss.value.item() == pytest.approx(0.5 * clone.value.item(), rel=1e-5)
    assert loss.metrics["loss/policy"].item() == 0.0
    assert loss.metrics["loss/value"].item() == 0.0


@pytest.mark.parametrize("copies", [1, 20])
def test_demonstrations_do_not_dilute_the_rest(copies):
    algorithm = learner(bc_weight=0.5)
    tokens = encoded(algorithm)
    own = algorithm.prepare([tokens], WorkerGroup()).episodes
    moved(algorithm)
    alone = algorithm(*pack(own, 1000)).metrics
    cloned = algorithm(*pack(algorithm.beside([], [tokens], WorkerGroup()), 1000)).metrics["loss/bc"]
    (batch,) = pack(algorithm.beside(own, [tokens] * copies, WorkerGroup()), 1000)
    both = algorithm(batch).metrics
    assert both["loss/bc"].item() == pytest.approx(cloned.item(), rel=1e-5)
    for name in ("loss/policy", "loss/value", "ppo/kl_to_old", "ppo/clipped", "ppo/surprise"):
        assert both[name].item() == pytest.approx(alone[name].item(), rel=1e-5), name
    assert both["ppo/kl_to_old"] > 0


def test_a_worker_without_episodes_prepares_none():
    assert learner().prepare([], WorkerGroup()).episodes == []


def gloo_worker(store, rank, world):
    """The rank's group, of ranks that are threads of this process."""
    ranks = dist.ProcessGroupGloo(store, rank, world, timedelta(seconds=60))

    def everyone(value, op=dist.ReduceOp.SUM):
        shared = value.clone()
        ranks.allreduce([shared], op).wait()
        return shared

    return WorkerGroup(60, everyone, lambda value: int(everyone(torch.tensor(value), dist.ReduceOp.MAX)))


def test_uneven_shares_of_a_round_are_prepared_like_the_whole(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    alone, *workers = [moved(learner(kl_weight=0.2, kl_target=1e-4, kl_horizon=20)) for _ in range(3)]
    tokens = [encoded(alone), game((0, [1, 2, 3], 1), terminated=False), game(), game((5, [4], -2))] * 2
    shares, store = (tokens[:1], tokens[1:]), dist.HashStore()

    def prepare(rank):
        return workers[rank].prepare(shares[rank], gloo_worker(store, rank, 2))

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(prepare, range(2))
    whole = alone.prepare(tokens, WorkerGroup())
    for found, expected in zip([*first.episodes, *second.episodes], whole.episodes, strict=True):
        assert found.extras["advantage"] == pytest.approx(expected.extras["advantage"], abs=1e-4)
    for found in (first, second):
        assert found.metrics == pytest.approx(whole.metrics, rel=1e-4)
    weights = [worker.kl_weight.item() for worker in workers]
    assert weights == pytest.approx([alone.kl_weight.item()] * 2)
    assert weights[0] > 0.2


def test_the_reference_stays_when_the_policy_moves():
    algorithm = learner()
    before = copy.deepcopy(algorithm._reference[0].state_dict())
    moved(algorithm)
    for name, value in algorithm._reference[0].state_dict().items():
        assert torch.equal(value, before[name])
    assert not any("_reference" in n for n in algorithm.state_dict())


RANDOM = [
    episode_of((light, False), (first, True, 0.0), ("again\n", False), (second, True, 0.0), ("end\n", False))
    for light in ("red\n", "green\n")
    for first in ("stop\n", "go\n")
    for second in ("red\n", "green\n")
]


def random_player():
    """A clone of someone who presses the buttons at random: right in a quarter of the games."""
    model = tiny_language_model(sorted({s.text for e in RANDOM for s in e.segments}), spread=32**-0.5)
    batches = pack([encode_episode(e, model.codec, ALL) for e in RANDOM], 4000)
    fit(BC(BCConfig(), model), batches, steps=150, lr=1e-2)
    return model


def improve(algorithm, rounds, lr, epochs=4, portions=1):
    """Rounds of 64 games, a few steps each."""
    optimizer = torch.optim.Adam(
        {"params": [p], "lr": lr * algorithm.lr_scale(name)}
        for name, p in algorithm.named_parameters()
        if p.requires_grad
    )
    for number in range(rounds):
        requests = [
            type(r)(r.index, 1000 * number + r.index, r.task_id) for r in requests_of(64, num_tasks=2)
        ]
        policy = algorithm.policy().eval()
        played = play(LIGHTS, Lights, policy, requests, decoding=Decoding(), slots=64, name="x")
        episodes = algorithm.prepare([p.tokens for p in played], WorkerGroup()).episodes
        for _ in range(epochs):
            order = np.random.default_rng(number).permutation(len(episodes))
            for part in np.array_split(order, portions):
                optimizer.zero_grad()
                for batch in pack([episodes[i] for i in part], 4000):
                    algorithm(batch).value.backward()
                optimizer.step()
                algorithm.after_step()


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [{}, {"value_trunk": "shared", "value_clip": 0.5}, {"bc_weight": 0.0, "discount": "turn", "lam": 1.0}],
    ids=["separate", "shared", "turns"],
)
def test_it_learns_the_two_turns_that_win(config):
    algorithm = PPO(PPOConfig(gamma=1.0, **config), random_player())
    before = np.mean(returns(LIGHTS, Lights, algorithm.policy(), requests_of(200, 2)))
    assert before < 0.45
    improve(algorithm, rounds=40, lr=1e-3)
    assert np.mean(returns(LIGHTS, Lights, algorithm.policy(), requests_of(200, 2))) > 0.95
