"""Policies: steering by Q in log space, supports, what is never sampled, and the way through files (T14)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support import tiny_language_model
from torch import nn

from algos.ilql import ILQL, ILQLConfig
from algos.networks import QHead, ValueHead
from algos.policy import Decoding, LanguagePolicy, ValueHeads, ValuePolicy, load_policy, restrict

TEXTS = ("move left\n", "There is a wall above you.\n")
WIDTH = 32


def three_token_policy(pi_beta, q, *, constant=0.0, elsewhere=0.0, v=None):
    """A policy whose language model allows tokens 10, 11, 12 in the state e_0, with the Q of each."""
    start = tiny_language_model(TEXTS)
    with torch.no_grad():
        weight = start.model.get_output_embeddings().weight
        weight.zero_()
        weight[:, 0] = -1e4
        weight[10 : 10 + len(pi_beta), 0] = torch.tensor(pi_beta).log()
        heads = [QHead(WIDTH, len(weight), initial=elsewhere) for _ in range(2)]
        for head, more in zip(heads, (0.0, 5.0), strict=True):  # the smaller of the twins counts
            head.bias[10 : 10 + len(q)] = torch.tensor(q) + more + constant
    return ValuePolicy(start, ValueHeads(nn.Identity(), heads, v))


STATE = torch.eye(WIDTH)[:1]


def probabilities(policy, **decoding):
    logp = policy.log_probs([STATE, STATE], Decoding(**decoding))
    assert logp.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    return logp.exp()[0, 10:13].tolist()


STEERED = {  # T14
    0.0: (0.5, 0.3, 0.2),
    0.5: (0.325040, 0.321540, 0.353420),
    1.0: (0.179000, 0.291944, 0.529056),
    4.0: (0.000816, 0.026717, 0.972467),
}


@pytest.mark.parametrize("beta", STEERED)
def test_the_policy_is_pi_beta_times_the_exponential_of_the_smaller_q(beta):
    policy = three_token_policy((0.5, 0.3, 0.2), (0.0, 1.0, 2.0))
    assert probabilities(policy, beta=beta) == pytest.approx(STEERED[beta], abs=1e-6)


def test_the_steered_policy_is_as_far_from_pi_beta_as_theory_says():  # T14
    found = torch.tensor(probabilities(three_token_policy((0.5, 0.3, 0.2), (0.0, 1.0, 2.0)), beta=1.0))
    assert (found * (found / torch.tensor((0.5, 0.3, 0.2))).log()).sum().item() == pytest.approx(
        0.322834, abs=1e-5
    )
    assert (found * torch.tensor((0.0, 1.0, 2.0))).sum().item() == pytest.approx(1.350056, abs=1e-5)


def test_adding_a_constant_to_q_changes_nothing():
    plain, shifted = (three_token_policy((0.5, 0.3, 0.2), (0.0, 1.0, 2.0), constant=c) for c in (0.0, -37.0))
    assert probabilities(shifted, beta=1.0) == pytest.approx(probabilities(plain, beta=1.0), abs=1e-5)


def test_temperature_divides_the_steered_logits():
    policy = three_token_policy((0.5, 0.3, 0.2), (0.0, 1.0, 2.0))
    expected = torch.softmax(torch.tensor(STEERED[1.0]).log() / 2.5, -1).tolist()
    assert probabilities(policy, beta=1.0, temperature=2.5) == pytest.approx(expected, abs=1e-5)


def test_a_token_that_pi_beta_rules_out_is_not_revived_by_its_q():
    policy = three_token_policy((0.98, 0.01, 0.01), (-101.0, -100.0, 0.0), elsewhere=0.0)
    assert probabilities(policy, beta=16.0, top_p=0.95) == pytest.approx([1, 0, 0])
    assert probabilities(policy, beta=16.0, top_k=1) == pytest.approx([1, 0, 0])
    assert probabilities(policy, beta=16.0, min_p=0.5) == pytest.approx([1, 0, 0])
    assert probabilities(policy, beta=16.0) == pytest.approx([0, 0, 1], abs=1e-6)


def test_reranking_adds_up_advantages_and_weighted_log_probabilities():
    torch.manual_seed(0)
    value = ValueHead(WIDTH, initial=0.25)
    policy = three_token_policy((0.5, 0.3, 0.2), (0.0, 1.0, 2.0), v=value)
    states, tokens = STATE.expand(3, -1), torch.tensor([10, 11, 12])
    plain = policy.rerank_scores([states, states], tokens, Decoding(mode="rerank"))
    assert plain.tolist() == pytest.approx([-0.25, 0.75, 1.75], abs=1e-6)
    weighted = policy.rerank_scores(
        [states, states], tokens, Decoding(mode="rerank", rerank_logit_weight=2.0)
    )
    expected = plain + 2 * torch.tensor((0.5, 0.3, 0.2)).log()
    torch.testing.assert_close(weighted, expected, atol=1e-5, rtol=0)


def test_reranking_without_a_value_head_adds_up_q():
    policy = three_token_policy((0.5, 0.3, 0.2), (0.0, 1.0, 2.0))
    scores = policy.rerank_scores([STATE, STATE], torch.tensor([12]), Decoding(mode="rerank"))
    assert scores.tolist() == [2.0]


logit_rows = st.lists(
    st.integers(-80, 80).map(lambda tenths: tenths / 10), min_size=5, max_size=12, unique=True
)


def log_probs_of(row):
    return torch.log_softmax(torch.tensor([row], dtype=torch.float64), -1)


def support(logp, **decoding):
    kept = restrict(logp, Decoding(**decoding))[0]
    inside = kept.isfinite()
    assert torch.equal(kept[inside], logp[0][inside]), "not renormalised"
    return set(inside.nonzero().flatten().tolist())


@given(logit_rows, st.integers(1, 15))
def test_top_k_keeps_the_k_likeliest(row, k):
    order = sorted(range(len(row)), key=lambda i: -row[i])
    assert support(log_probs_of(row), top_k=k) == set(order[:k])


@given(logit_rows, st.floats(0.01, 1.0))
def test_top_p_keeps_the_smallest_set_of_likeliest_tokens_that_has_the_mass(row, p):
    logp = log_probs_of(row)
    order = sorted(range(len(row)), key=lambda i: -row[i])
    kept, mass = [], 0.0
    for i in order:
        if mass >= p - 1e-12 and p < 1:
            break
        kept.append(i)
        mass += logp[0, i].exp().item()
    found = support(logp, top_p=p)
    # A mass that equals p to the last bits may fall on either side.
    assert found in (set(kept), set(order[: len(kept) + 1]), set(order[: max(len(kept) - 1, 1)]))
    assert logp[0, list(found)].exp().sum().item() >= min(p, 1) - 1e-9


@given(logit_rows, st.floats(0.001, 0.99))
def test_min_p_keeps_what_is_at_least_so_likely_relative_to_the_best(row, p):
    prob = log_probs_of(row)[0].exp()
    clear = (prob / prob.max() - p).abs() > 1e-9
    found = support(log_probs_of(row), min_p=p)
    for i in range(len(row)):
        if clear[i]:
            assert (i in found) == (prob[i] >= p * prob.max())


def test_the_likeliest_token_always_stays():
    logp = log_probs_of([0.0, 3.0, 1.0])
    assert support(logp, top_k=1, top_p=0.01, min_p=0.99) == {1}


def test_forbidden_ids_have_no_probability():
    policy = LanguagePolicy(tiny_language_model(TEXTS))
    with torch.no_grad():  # they are the likeliest by far
        policy.lm.get_output_embeddings().weight[policy.codec.forbidden, 0] = 50.0
    logp = policy.log_probs([STATE], Decoding())
    assert bool((logp[0][policy.codec.forbidden] == -torch.inf).all())
    assert logp.exp().sum().item() == pytest.approx(1.0, abs=1e-5)
    assert not policy.codec.forbidden[logp.argmax()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"top_k": 0},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 1.0},
        {"beta": -1.0},
        {"mode": "beam"},
        {"topk": 3},
    ],
)
def test_decoding_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValidationError):
        Decoding(**wrong)


def shaken(policy):
    """The policy with weights that no initialisation gives."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy.eval()


def language_policy():
    return shaken(LanguagePolicy(tiny_language_model(TEXTS)))


def value_policy(tie_heads=False):
    return shaken(ILQL(ILQLConfig(tie_heads=tie_heads), tiny_language_model(TEXTS)).policy())


def outputs(policy):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        hidden = [trunk(input_ids=ids).last_hidden_state[0] for trunk in policy.trunks()]
        decoding = Decoding(beta=2.0, rerank_logit_weight=0.5)
        tokens = torch.tensor([9, 10, 11, 12])
        return policy.log_probs(hidden, decoding), policy.rerank_scores(hidden, tokens, decoding)


POLICIES = {
    "language": language_policy,
    "value": value_policy,
    "value, tied heads": lambda: value_policy(tie_heads=True),
}


@pytest.mark.parametrize("kind", ["language", "value", "value, tied heads"])
def test_a_policy_that_was_saved_and_loaded_gives_identical_outputs(kind, tmp_path):
    policy = POLICIES[kind]()
    policy.save(tmp_path / "new")
    loaded = load_policy(tmp_path / "new")
    assert type(loaded) is type(policy)
    assert not loaded.training
    for ours, theirs in zip(outputs(policy), outputs(loaded), strict=True):
        assert torch.equal(ours, theirs)


def test_a_policy_without_a_value_head_is_saved_and_loaded(tmp_path):
    start = tiny_language_model(TEXTS)
    vocab = start.model.config.vocab_size
    heads = ValueHeads(tiny_language_model(TEXTS, seed=1).trunk, [QHead(WIDTH, vocab)], None)
    policy = shaken(ValuePolicy(start, heads))
    policy.save(tmp_path)
    for ours, theirs in zip(outputs(policy), outputs(load_policy(tmp_path)), strict=True):
        assert torch.equal(ours, theirs)


def test_a_plain_transformers_folder_is_a_language_policy(tmp_path):
    policy = language_policy()
    policy.save(tmp_path)
    loaded = load_policy(tmp_path / "policy")
    assert isinstance(loaded, LanguagePolicy)
    assert torch.equal(outputs(loaded)[0], outputs(policy)[0])


@pytest.mark.parametrize("kind", ["language", "value", "value, tied heads"])
def test_weights_travel_as_arrays_from_one_policy_to_another(kind):
    source, target = POLICIES[kind](), POLICIES[kind]()
    with torch.no_grad():
        for parameter in target.parameters():
            parameter.zero_()
    arrays = source.weights()
    assert all(isinstance(a, np.ndarray) for a in arrays.values())
    target.set_weights(arrays)
    for ours, theirs in zip(outputs(source), outputs(target), strict=True):
        assert torch.equal(ours, theirs)


def test_weights_that_were_taken_do_not_change_when_the_policy_goes_on_learning():
    policy = language_policy()
    taken, before = policy.weights(), outputs(policy)[0]
    shaken(policy)
    assert not torch.equal(outputs(policy)[0], before)
    policy.set_weights(taken)
    assert torch.equal(outputs(policy)[0], before)
