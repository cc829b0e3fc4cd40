"""Behaviour cloning: cross-entropy on action tokens alone, and it clones (T16)."""

from dataclasses import replace

import pytest
import torch
from small_games import LIGHTS, Lights, requests_of, returns
from support import episode_of, fit, gradients, tiny_language_model
from torch.nn import functional as F

from algos.base import UnknownAlgorithmError, get_algorithm
from algos.batch import empty_batch, pack
from algos.bc import BC, BCConfig
from algos.tokens import ContextRule, encode_episode

ALL = ContextRule(window=None, max_tokens=256, reserve=8)
EPISODES = (
    episode_of(
        ("red\n", False), ("stop\n", True, 0.0), ("again\n", False), ("red\n", True, 1.0), ("end\n", False)
    ),
    episode_of(
        ("green\n", False), ("go\n", True, 0.0), ("again\n", False), ("green\n", True, 1.0), ("end\n", False)
    ),
    episode_of(("green\n", False), ("stop now\n", True, 0.0), ("no\n", False), terminated=False),
)
TEXTS = sorted({s.text for e in EPISODES for s in e.segments})


def cloner(**config):
    return BC(BCConfig(**config), tiny_language_model(TEXTS))


def encoded(algorithm, episodes=EPISODES):
    codec = algorithm.policy().codec
    return [encode_episode(e, codec, ALL) for e in episodes]


def assert_same(found, expected, atol=1e-6):
    assert found[0] == pytest.approx(expected[0], abs=atol)
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=atol, rtol=1e-4)


def plain_gradients(algorithm, tokens, observation_weight=0.0):
    """Each episode by itself, all logits, a mask; what follows the last action is never learnt."""
    algorithm.zero_grad(set_to_none=True)
    count = sum(int(t.is_action.sum()) for t in tokens)
    total = torch.zeros(())
    for episode in tokens:
        ids = torch.from_numpy(episode.ids).long()[None]
        logits = algorithm.lm(input_ids=ids).logits[0, :-1]
        said = torch.from_numpy(episode.is_action[1:])
        logits = logits / torch.where(said, algorithm.temperature, 1.0)[:, None]
        entropy = F.cross_entropy(logits, ids[0, 1:], reduction="none")
        weight = torch.where(said, 1.0, observation_weight)
        weight[episode.actions[-1, 1] - 1 :] = 0.0
        total = total + (weight * entropy).sum() / count
    total.backward()
    return total.item(), {n: p.grad.clone() for n, p in algorithm.named_parameters()}


def test_the_loss_and_its_gradient_equal_masked_cross_entropy_over_all_logits():
    algorithm = cloner()
    tokens = encoded(algorithm)
    assert_same(gradients(algorithm, pack(tokens, 1000)), plain_gradients(algorithm, tokens))


@pytest.mark.parametrize("temperature", [1.0, 0.3])  # of the rounds of online filtered BC
def test_environment_tokens_can_be_learnt_with_a_weight_of_their_own(temperature):
    algorithm = cloner(observation_weight=0.3)
    algorithm.temperature = temperature
    tokens = encoded(algorithm)
    expected = plain_gradients(algorithm, tokens, observation_weight=0.3)
    assert_same(gradients(algorithm, pack(tokens, 1000)), expected)
    assert_same(gradients(algorithm, pack(tokens, 20)), expected)
    repeated = gradients(algorithm, pack(tokens * 3, 1000))
    assert_same(repeated, expected)


def test_the_loss_does_not_depend_on_order_padding_or_micro_batches():
    algorithm = cloner()
    tokens = encoded(algorithm)
    expected = gradients(algorithm, pack(tokens, 1000))
    assert_same(gradients(algorithm, pack(tokens[::-1], 1000)), expected)
    split = pack(tokens, 20)
    assert len(split) > 1
    assert_same(gradients(algorithm, split), expected)
    (batch,) = pack(tokens, 1000)
    rows, width = batch.input_ids.shape
    wide = {
        "input_ids": F.pad(batch.input_ids, (0, 9), value=7),
        "mask": F.pad(batch.mask, (0, 9)),
        "state_idx": batch.state_idx // width * (width + 9) + batch.state_idx % width,
        "next_state_idx": batch.next_state_idx,
    }
    assert rows == 3
    assert_same(gradients(algorithm, [replace(batch, **wide)]), expected)


def test_environment_tokens_get_no_gradient():
    algorithm = cloner()
    (batch,) = pack(encoded(algorithm), 1000)
    kept = []

    def keep(_module, _inputs, output):
        output.last_hidden_state.retain_grad()
        kept.append(output.last_hidden_state)

    algorithm.lm.base_model.register_forward_hook(keep)
    algorithm(batch).value.backward()
    gradient = kept[0].grad.reshape(-1, kept[0].shape[-1])
    at_actions = torch.zeros(len(gradient), dtype=torch.bool)
    at_actions[batch.state_idx] = True
    assert bool((gradient[~at_actions] == 0).all())
    assert bool((gradient[at_actions] != 0).any(-1).all())


def test_what_the_environment_says_last_changes_nothing():
    algorithm = cloner()
    changed = [
        episode_of(*((s.text, s.is_action, s.reward) for s in e.segments[:-1]), ("no end red\n", False))
        for e in EPISODES
    ]
    expected = gradients(algorithm, pack(encoded(algorithm), 1000))
    assert_same(gradients(algorithm, pack(encoded(algorithm, changed), 1000)), expected)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_batch_without_actions_has_the_loss_zero_and_touches_every_parameter(weight):
    algorithm = cloner(observation_weight=weight)
    loss, gradient = gradients(algorithm, [empty_batch()])
    assert loss == 0.0
    assert gradient.keys() == dict(algorithm.named_parameters()).keys()
    assert all(bool((g == 0).all()) for g in gradient.values())


def test_an_unknown_algorithm_is_an_error_that_names_the_nearest():
    assert get_algorithm("bc") is BC
    with pytest.raises(UnknownAlgorithmError, match="Did you mean 'ilql'"):
        get_algorithm("iql")


@pytest.mark.slow
def test_it_clones_a_deterministic_player():
    algorithm = cloner()
    tokens = encoded(algorithm, EPISODES[:2])
    loss = fit(algorithm, pack(tokens, 1000), steps=400, lr=1e-2)
    assert loss < 0.0015
    assert sum(returns(LIGHTS, Lights, algorithm.policy(), requests_of(200, 2))) > 198
