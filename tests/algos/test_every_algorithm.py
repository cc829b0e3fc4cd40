"""What holds for every algorithm on token episodes, whatever its loss (T16)."""

import pytest
import torch
from support import DIALOGUE_TEXTS, DIALOGUES, gradients, tiny_language_model

from algos.base import WorkerGroup, algorithm_ids, get_algorithm
from algos.batch import empty_batch, pack
from algos.tokens import ContextRule, encode_episode

ALL = ContextRule(window=None, max_tokens=256, reserve=8)
LATEST = ContextRule(window=1, max_tokens=256, reserve=8)
SETTINGS = {
    "filtered-bc": {"fraction": 1.0},
    "online-filtered-bc": {"fraction": 1.0},
    "mc": {"cql_weight": 0.1, "bootstrap": True},
    "ilql": {"cql_weight": 0.1},
    "ppo": {"value_clip": 0.2, "bc_weight": 0.5},
    "archer": {"actor_after": 0, "clip": 0.2},
}


def shaken(algorithm, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in algorithm.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


def prepared(algorithm, rule=ALL):
    """The episodes ready to be packed, after which the weights have moved on."""
    tokens = [encode_episode(e, algorithm.policy().codec, rule) for e in DIALOGUES]
    episodes = algorithm.prepare(tokens, WorkerGroup()).episodes
    if algorithm.uses_demonstrations:
        episodes = algorithm.beside(episodes, tokens[:1], WorkerGroup())
    shaken(algorithm, 1)
    return episodes


@pytest.fixture(params=algorithm_ids())
def algorithm(request):
    cls = get_algorithm(request.param)
    made = cls(cls.Config(**SETTINGS.get(request.param, {})), tiny_language_model(DIALOGUE_TEXTS))
    shaken(made, 0)
    return made


def test_the_loss_does_not_depend_on_padding_order_or_micro_batches(algorithm):
    agrees_when_split(algorithm, prepared(algorithm), 30)


def test_the_loss_does_not_depend_on_where_an_episode_is_cut(algorithm):
    """ILQL's longer backups are the exception (see `pack`)."""
    episodes = prepared(algorithm, LATEST)
    assert sum(int(b.chain_end.sum()) for b in pack(episodes, 7)) > len(episodes)
    agrees_when_split(algorithm, episodes, 7)


def agrees_when_split(algorithm, episodes, max_tokens):
    loss, expected = gradients(algorithm, pack(episodes, 1000))
    split = pack(episodes[::-1], max_tokens)
    assert len(split) > 1
    found, by_parts = gradients(algorithm, split)
    assert found == pytest.approx(loss, abs=2e-6)
    assert any(bool(g.any()) for g in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(by_parts[name], gradient, atol=3e-6, rtol=1e-3)


def test_environment_tokens_get_no_gradient(algorithm):
    """The gradient of the trunk's output is zero wherever no action token is chosen (cloning's
    `observation_weight`, 0 unless it is set, is there to change that)."""
    (batch,) = pack(prepared(algorithm), 1000)
    kept = []

    def keep(_module, _inputs, output):
        if output.last_hidden_state.requires_grad:
            output.last_hidden_state.retain_grad()
            kept.append(output.last_hidden_state)

    for module in algorithm.modules():
        if type(module).__name__ == "GPT2Model":
            module.register_forward_hook(keep)
    algorithm(batch).value.backward()
    acting = torch.zeros(batch.input_ids.numel(), dtype=torch.bool)
    acting[batch.state_idx] = True
    assert kept
    for hidden in kept:
        gradient = hidden.grad.reshape(-1, hidden.shape[-1])
        assert bool((gradient[~acting] == 0).all())
        assert bool((gradient[acting] != 0).any())


def test_no_tensor_of_tokens_by_vocabulary_is_kept_for_the_backward_pass(algorithm):
    """At GPT-2's vocabulary it would be the largest by far (T16)."""
    (batch,) = pack(prepared(algorithm), 1000)
    vocabulary = algorithm.policy().codec.vocab_size
    kept = []

    def keep(tensor):
        kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        algorithm(batch)
    assert kept
    rows = {shape.numel() // vocabulary for shape in kept if shape[-1:] == (vocabulary,)}
    assert all(n < len(batch.state_idx.unique()) for n in rows), rows


def test_a_batch_without_actions_has_the_loss_zero_and_touches_every_parameter(algorithm):
    loss = algorithm(empty_batch())
    loss.value.backward()
    assert loss.value.item() == 0.0
    assert all(m.item() == 0.0 for m in loss.metrics.values())
    for name, parameter in algorithm.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert bool((parameter.grad == 0).all())


def test_a_worker_may_have_no_episodes(algorithm):
    assert algorithm.prepare([], WorkerGroup()).episodes == []


def test_its_configuration_refuses_unknown_keys(algorithm):
    with pytest.raises(ValueError, match="extra"):
        type(algorithm).Config(unknown=1)
