"""Heads and kernels on [N, h]: equal to the plain formulation, with its gradients (T11, T12, T16)."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_language_model
from torch import nn
from torch.nn import functional as F

from algos.lora import LoraError, LoraSettings, add_adapters
from algos.networks import (
    ChunkedLogSumExp,
    QHead,
    TokenLogProb,
    ValueHead,
    hidden_states,
    linear_logsumexp,
    polyak_,
)

TRUNK = tiny_language_model(["move left\n"]).trunk.eval()


def leaves(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator).requires_grad_() for s in shapes]


def test_cross_entropy_and_gradient_of_four_logits():  # T12
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    x, weight, bias = logits.clone().requires_grad_(), torch.eye(4), torch.zeros(4)
    loss = (linear_logsumexp(x, weight, bias, 1) - x[:, 2]).sum()
    loss.backward()
    assert loss.item() == pytest.approx(1.4401897, abs=1e-6)
    expected = torch.tensor([[0.0320586, 0.0871443, -0.7631172, 0.6439143]])
    torch.testing.assert_close(x.grad, expected, atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, 9), chunk=st.integers(1, 10), seed=st.integers(0, 1000))
def test_chunked_logsumexp_and_its_gradients_equal_the_plain_one(n, chunk, seed):
    ours, plain = (leaves((n, 5), (11, 5), (11,), seed=seed) for _ in range(2))
    out = linear_logsumexp(*ours, chunk)
    reference = torch.logsumexp(plain[0] @ plain[1].T + plain[2], dim=-1)
    torch.testing.assert_close(out, reference, atol=1e-6, rtol=1e-6)
    weights = torch.linspace(-1, 2, n)
    (out * weights).sum().backward()
    (reference * weights).sum().backward()
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_chunked_logsumexp_passes_the_numerical_gradient_check():
    x, weight, bias = (t.detach().double().requires_grad_() for t in leaves((5, 3), (7, 3), (7,)))
    assert torch.autograd.gradcheck(lambda *t: ChunkedLogSumExp.apply(*t, 2), (x, weight, bias))


def test_chunked_logsumexp_is_finite_for_huge_logits():
    x = torch.tensor([[1000.0, -1000.0]])
    assert linear_logsumexp(x, torch.eye(2), torch.zeros(2), 1).item() == 1000.0


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("biased", [False, True])
def test_token_log_probs_equal_log_softmax_and_its_gradients(biased, temperature):
    torch.manual_seed(0)
    head = nn.Linear(6, 13, bias=biased)
    plain = copy.deepcopy(head)
    hidden, reference = leaves((4, 6)), leaves((4, 6))
    tokens = torch.tensor([3, 0, 12, 3])
    found = TokenLogProb(head)(hidden[0], tokens, temperature)
    expected = F.log_softmax(plain(reference[0]) / temperature, -1).gather(1, tokens[:, None]).squeeze(1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(hidden[0].grad, reference[0].grad, atol=1e-6, rtol=1e-5)
    for a, b in zip(head.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("targets", [("lm_head",), ("c_attn", "lm_head")])
def test_an_adapter_of_the_output_layer_is_refused_for_nothing_here_would_read_it(targets):
    model = tiny_language_model(["move left\n"]).model
    with pytest.raises(LoraError, match=r"found .*lm_head.*in c_attn, c_fc, c_proj \(none in the output"):
        add_adapters(model, LoraSettings(target_modules=targets))


def test_one_misspelt_target_among_others_is_refused_too():
    model = tiny_language_model(["move left\n"]).model
    with pytest.raises(LoraError, match=r"in c_attn, c_fc, c_proj \(there is no 'c_porj'\)"):
        add_adapters(model, LoraSettings(target_modules=("c_attn", "c_porj")))


def some_q_head(tied=False):
    torch.manual_seed(1)
    head = QHead(6, 13, initial=-2.0, tied=torch.randn(13, 6) if tied else None)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
    return head


@pytest.mark.parametrize("tied", [False, True])
def test_gathered_q_equals_the_column_of_the_whole_matrix(tied):
    head, (hidden,) = some_q_head(tied), leaves((5, 6))
    tokens = torch.tensor([0, 12, 5, 5, 1])
    whole = head.all(hidden)
    q, lse = head(hidden, tokens, chunk=2)
    torch.testing.assert_close(q, whole.gather(1, tokens[:, None]).squeeze(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(lse, whole.logsumexp(-1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_gathered_q_has_the_gradients_of_the_whole_matrix(tied):
    tokens = torch.tensor([0, 12, 5, 5, 1])
    ours, plain = some_q_head(tied), some_q_head(tied)
    (hidden,), (reference,) = leaves((5, 6)), leaves((5, 6))
    q, lse = ours(hidden, tokens, chunk=2)
    (q.square() + lse).sum().backward()
    whole = plain.all(reference)
    (whole.gather(1, tokens[:, None]).squeeze(1).square() + whole.logsumexp(-1)).sum().backward()
    torch.testing.assert_close(hidden.grad, reference.grad, atol=1e-4, rtol=1e-4)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
def test_heads_start_at_the_constant_they_are_given(tied):
    (hidden,) = leaves((5, 6))
    head = QHead(6, 13, initial=-4.4, tied=torch.randn(13, 6) if tied else None)
    torch.testing.assert_close(head.all(hidden), torch.full((5, 13), -4.4))
    torch.testing.assert_close(ValueHead(6, initial=-4.4)(hidden), torch.full((5,), -4.4))


def test_a_tied_head_never_changes_the_embedding():
    head = some_q_head(tied=True)
    assert "weight" not in dict(head.named_parameters())
    assert "weight" in head.state_dict()


def test_heads_compute_in_float32_on_a_bfloat16_trunk():
    hidden = torch.randn(3, 6, dtype=torch.bfloat16)
    tokens = torch.tensor([0, 1, 2])
    assert some_q_head()(hidden, tokens, 2)[1].dtype == torch.float32
    assert ValueHead(6)(hidden).dtype == torch.float32
    assert TokenLogProb(nn.Linear(6, 13).to(torch.bfloat16))(hidden, tokens).dtype == torch.float32


def test_polyak_averages_as_often_as_it_is_called():  # T11
    cases = ((0.005, 138, 0.499291), (0.005, 100, 0.394230), (0.001, 100, 0.095208), (0.1, 6, 0.468559))
    for rate, updates, expected in cases:
        target, online = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))
        for _ in range(updates):
            polyak_([target], [online], rate)
        torch.testing.assert_close(target.data, torch.full((3,), expected), atol=2e-6, rtol=0)
        assert online.tolist() == [1, 1, 1]


def test_a_small_polyak_rate_does_not_get_stuck():  # in bfloat16 it would
    target, online = nn.Parameter(torch.ones(1)), nn.Parameter(torch.tensor([1.05]))
    for _ in range(10_000):
        polyak_([target], [online], 0.005)
    assert target.item() == pytest.approx(1.05, abs=1e-4)


@torch.no_grad()
def test_hidden_states_do_not_depend_on_padding_or_on_other_rows():
    rows = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
    ids, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    together = hidden_states(TRUNK, ids, mask).reshape(3, 7, -1)
    for i, row in enumerate(rows):
        alone = hidden_states(TRUNK, torch.tensor([row]), torch.ones(1, len(row), dtype=torch.bool))
        torch.testing.assert_close(together[i, : len(row)], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_state_does_not_depend_on_later_tokens():
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    changed = ids.clone()
    changed[0, 4:] = torch.tensor([20, 21])
    mask = torch.ones(1, 6, dtype=torch.bool)
    before, after = hidden_states(TRUNK, ids, mask), hidden_states(TRUNK, changed, mask)
    assert torch.equal(before[:4], after[:4])
    assert not torch.allclose(before[4:], after[4:])
