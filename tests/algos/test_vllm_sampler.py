"""vLLM behind the sampler's interface, against a stand-in with its signatures that decodes on the CPU."""

import sys

import fake_vllm
import numpy as np
import pytest
import torch
from support import tiny_language_model
from test_play import CHATTER, TEXTS, Chatter

from algos.models import ModelError
from algos.play import EpisodeRequest, play
from algos.policy import Decoding, LanguagePolicy, load_policy, refused_by_vllm
from algos.vllm_sampler import VllmPolicy

REQUESTS = [EpisodeRequest(i, seed=1000 + i) for i in range(6)]


@pytest.fixture
def vllm(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", fake_vllm)
    monkeypatch.setattr(fake_vllm, "made", [])
    return fake_vllm


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two policies of one shape whose lines are long."""
    found = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("policies") / str(seed)
        LanguagePolicy(tiny_language_model(TEXTS, positions=48, seed=seed, spread=0.2)).save(folder)
        found.append(folder)
    return found


def played(who, slots=3, **decoding):
    episodes = play(CHATTER, Chatter, who, REQUESTS, decoding=Decoding(**decoding), slots=slots, name="me")
    return sorted(episodes, key=lambda e: e.index)


def ours(folder):
    return load_policy(folder)


def test_greedy_episodes_are_those_of_our_sampler(vllm, folders):
    """Through windows that slide and histories that are cut to the model's own."""
    mine, theirs = played(ours(folders[0]), mode="greedy"), played(VllmPolicy(folders[0], 0.9), mode="greedy")
    assert any(p.tokens.context.any() for p in mine)
    for a, b in zip(mine, theirs, strict=True):
        assert a.episode == b.episode
        assert a.cut_actions == b.cut_actions
        assert a.tokens.ids.tolist() == b.tokens.ids.tolist()
        np.testing.assert_allclose(a.tokens.logprob, b.tokens.logprob, atol=1e-4)


@pytest.mark.parametrize("decoding", [{}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.8}, {"min_p": 0.1}])
def test_logprobs_are_those_of_the_distribution_that_our_sampler_draws_from(vllm, folders, decoding):
    who = ours(folders[0])
    for found in played(VllmPolicy(folders[0], 0.9), **decoding):
        tokens = found.tokens
        for (start, end), context in zip(tokens.actions, tokens.context, strict=False):
            ids = torch.tensor(tokens.ids[context:end]).long()[None]
            with torch.no_grad():
                states = who.lm.base_model(input_ids=ids).last_hidden_state[0]
                logp = who.log_probs([states[start - context - 1 : end - context - 1]], Decoding(**decoding))
            expected = logp[range(end - start), tokens.ids[start:end]]
            np.testing.assert_allclose(tokens.logprob[start:end], expected, atol=1e-4)


def test_an_episode_depends_on_its_seed_and_not_on_the_others(vllm, folders):
    who = VllmPolicy(folders[0], 0.9)
    texts = [p.episode.text for p in played(who, slots=1)]
    assert texts == [p.episode.text for p in played(who, slots=6)]
    assert len(set(texts)) == len(texts)


def test_new_weights_are_played_by_the_same_engine(vllm, folders):
    who = VllmPolicy(folders[0], 0.9)
    played(who, mode="greedy")
    who.reload(folders[1])
    expected = played(ours(folders[1]), mode="greedy")
    assert [p.episode for p in played(who, mode="greedy")] == [p.episode for p in expected]
    assert len(vllm.made) == 1


def test_without_vllm_the_error_says_what_to_install(monkeypatch, folders):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"vllm is not installed .*lmrl-ray\[vllm\].*0\.30\.0"):
        VllmPolicy(folders[0], 0.9)


def test_a_policy_with_value_heads_is_refused(vllm, folders, tmp_path):
    (tmp_path / "heads.json").write_text("{}")
    with pytest.raises(ModelError, match="this has value heads"):
        VllmPolicy(tmp_path, 0.9)


@pytest.mark.parametrize(
    ("decoding", "reason"),
    [
        ({"mode": "rerank"}, "rerank needs hidden states"),
        ({"mode": "propose"}, "propose needs hidden states"),
        ({"top_k": 3, "top_p": 0.5}, r"decoding\.top_k and decoding\.top_p together"),
        ({"temperature": 0.5, "min_p": 0.1}, r"decoding\.min_p with a temperature"),
    ],
)
def test_a_decoding_that_vllm_does_otherwise_is_refused(vllm, folders, decoding, reason):
    assert refused_by_vllm(Decoding()) is None
    with pytest.raises(ValueError, match=reason):
        VllmPolicy(folders[0], 0.9).sampler(Decoding(**decoding), 2, 4)
