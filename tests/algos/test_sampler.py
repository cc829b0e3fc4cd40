"""The sampler: its KV cache equals reading everything anew, and it draws what the policy says."""

import numpy as np
import pytest
import torch
from support import tiny_language_model

from algos.cache import SlotCache
from algos.ilql import ILQL, ILQLConfig
from algos.models import LanguageModel
from algos.networks import hidden_states
from algos.policy import Decoding, LanguagePolicy, restrict
from algos.sampler import Sampler

TEXTS = ("move left\n", "There is a wall above you.\n", "a\n\nb\n\n" * 30)
CPU = torch.device("cpu")


def shaken(policy, scale=0.3):
    """The policy with weights that make some tokens likelier than others."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return policy.eval()


def language_policy():
    return shaken(LanguagePolicy(tiny_language_model(TEXTS)))


def value_policy():
    return shaken(ILQL(ILQLConfig(), tiny_language_model(TEXTS)).policy(), 0.1)


POLICIES = {"language": language_policy, "value": value_policy}


@torch.no_grad()
def read(trunk, ids):
    """Hidden states of one history, from scratch: [T, h]."""
    return trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]


def compare_with_reading_anew(trunks, seed, *, longest, tolerance):
    """Ragged chunks, slots that say nothing, slots given to new episodes, columns dropped again and again.

    Histories hold up to `longest` tokens; returns the longest there was.
    """
    rng = np.random.default_rng(seed)
    cache, histories, seen = SlotCache(trunks, 3, CPU), [[], [], []], 0
    for step in range(70):
        sizes = rng.choice([0, 1, 1, 2, 7, 15], size=3)
        sizes[rng.integers(3)] += 1
        for slot in range(3):
            idle = step == 35  # no history at all
            if idle or rng.random() < 0.15 or len(histories[slot]) + sizes[slot] > longest:
                cache.clear(slot)
                histories[slot] = []
        chunks = [rng.integers(1, 200, size=n) for n in sizes]
        hidden = cache.append(chunks)
        for slot, chunk in enumerate(chunks):
            histories[slot] += chunk.tolist()
            seen = max(seen, len(histories[slot]))
            assert cache.lengths[slot] == len(histories[slot])
            if len(chunk):
                for trunk, states in zip(trunks, hidden, strict=True):
                    expected = read(trunk, histories[slot])[-1]
                    torch.testing.assert_close(states[slot], expected, atol=tolerance, rtol=tolerance)
    return seen


@pytest.mark.parametrize("seed", range(3))
def test_the_kept_cache_equals_reading_every_history_anew(seed):
    trunks = [tiny_language_model(TEXTS, width=w, seed=w).trunk.eval() for w in (32, 16)]
    compare_with_reading_anew(trunks, seed, longest=76, tolerance=1e-4)


WINDOW = 32
SLIDING = {
    "Mistral": {"sliding_window": WINDOW},
    "Phi3": {"sliding_window": WINDOW},
    "Gemma3": {"sliding_window": WINDOW, "head_dim": 8, "sliding_window_pattern": 2},
    "Qwen2": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
}
"""Families with sliding windows, in all layers or (Gemma-3, Qwen-2) in some; their own settings."""


def sliding_model(family, **over):
    import transformers

    config_class = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    config = config_class(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=300,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        **{**SLIDING[family], **over},
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


@pytest.mark.parametrize("family", SLIDING)
def test_a_model_with_a_sliding_window_holds_no_more_than_it_and_reads_as_from_scratch(family):
    model = sliding_model(family)
    longest = LanguageModel(model, tiny_language_model(TEXTS).codec).max_tokens
    assert longest == WINDOW
    assert compare_with_reading_anew([model.base_model], 0, longest=longest, tolerance=1e-5) == WINDOW


def test_a_sliding_window_that_is_not_in_use_bounds_nothing():
    model = sliding_model("Qwen2", use_sliding_window=False)
    assert LanguageModel(model, tiny_language_model(TEXTS).codec).max_tokens == 64


def test_a_model_with_longrope_holds_no_more_than_its_original_length_and_reads_as_from_scratch():
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    model = sliding_model(
        "Phi3",
        sliding_window=None,
        original_max_position_embeddings=32,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **factors},
    )
    longest = LanguageModel(model, tiny_language_model(TEXTS).codec).max_tokens
    assert longest == 32
    assert compare_with_reading_anew([model.base_model], 0, longest=longest, tolerance=1e-5) == 32


@torch.no_grad()
@pytest.mark.parametrize("family", SLIDING)
def test_in_training_too_rows_as_long_as_the_window_do_not_depend_on_padding(family):
    trunk = sliding_model(family).base_model
    rows = [torch.arange(9, 9 + length) for length in (WINDOW, WINDOW - 1, 2)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.arange(WINDOW) < torch.tensor([[len(row)] for row in rows])
    together = hidden_states(trunk, ids, mask).reshape(3, WINDOW, -1)
    for row, states in zip(rows, together, strict=True):
        torch.testing.assert_close(states[: len(row)], read(trunk, row.tolist()), atol=1e-5, rtol=1e-5)


def test_the_cache_stays_small_however_many_episodes_pass_through_a_slot():
    trunk = tiny_language_model(TEXTS).trunk.eval()
    cache, widths = SlotCache([trunk], 2, CPU), []
    for _ in range(40):
        cache.append([np.arange(1, 21), np.arange(1, 3)])
        widths.append(cache._caches[0].get_seq_length())
        cache.clear(0)
        cache.clear(1)
    assert max(widths) <= 2 * 20 + 32 + 20


def test_looking_ahead_equals_reading_and_changes_no_history():
    trunk = tiny_language_model(TEXTS).trunk.eval()
    cache, histories = SlotCache([trunk], 3, CPU), [[5, 6, 7], [8], [9, 10, 11, 12, 13]]
    cache.append([np.asarray(h[:1]) for h in histories])
    cache.append([np.asarray(h[1:]) for h in histories])
    continuations = [np.asarray([20, 21]), np.asarray([22])]
    (states,) = cache.peek([2, 0], continuations)
    assert states.shape == (2, 2, 2, 32)
    for i, slot in enumerate((2, 0)):
        for j, tail in enumerate(continuations):
            expected = read(trunk, histories[slot] + tail.tolist())[-len(tail) :]
            torch.testing.assert_close(states[i, j, : len(tail)], expected, atol=1e-4, rtol=1e-4)
    (after,) = cache.append([np.asarray([30])] * 3)
    for slot, history in enumerate(histories):
        torch.testing.assert_close(after[slot], read(trunk, [*history, 30])[-1], atol=1e-4, rtol=1e-4)


def from_scratch(policy, history, decoding):
    """Log-probabilities of the next token, reading everything anew."""
    with torch.no_grad():
        return policy.log_probs([read(t, history)[-1:] for t in policy.trunks()], decoding)[0]


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("mode", ["greedy", "sample"])
def test_drawn_tokens_and_their_log_probs_equal_those_from_scratch(kind, mode):
    policy, decoding = POLICIES[kind](), Decoding(mode=mode, beta=2.0, temperature=0.7, top_p=0.99)
    sampler = Sampler(policy, decoding, slots=3, max_action_tokens=6)
    rng, histories = np.random.default_rng(0), [[], [], []]
    generators, unread = {}, [[], [], []]
    for slot in range(3):
        sampler.start(slot, np.random.default_rng(slot))
        generators[slot] = np.random.default_rng(slot)
    for turn in range(6):
        if turn == 3:  # a refilled slot, and one whose window slid
            sampler.start(0, np.random.default_rng(77))
            generators[0], histories[0], unread[0] = np.random.default_rng(77), [], []
            sampler.forget(1)
            unread[1], histories[1] = histories[1][-4:] + unread[1], []
        active = [0, 2] if turn == 4 else [0, 1, 2]
        chunks = {}
        for slot in active:
            chunks[slot] = np.asarray(unread[slot] + rng.integers(1, 200, size=rng.integers(1, 9)).tolist())
            histories[slot] += chunks[slot].tolist()
        for slot, action in sampler.act(chunks).items():
            for token, logprob in zip(action.ids, action.logprobs, strict=True):
                logp = from_scratch(policy, histories[slot], decoding)
                assert logprob == pytest.approx(logp[token].item(), abs=1e-4)
                if mode == "greedy":
                    assert token == logp.argmax()
                else:
                    cumulative = logp.double().exp().cumsum(-1).numpy()
                    expected = np.searchsorted(
                        cumulative / cumulative[-1], generators[slot].random(), "right"
                    )
                    assert token == expected
                histories[slot].append(int(token))
            unread[slot] = action.ids[action.read :].tolist()
            histories[slot] = histories[slot][: len(histories[slot]) - len(unread[slot])]


def test_an_action_ends_at_its_newline_or_at_the_limit():
    policy = language_policy()
    sampler = Sampler(policy, Decoding(), slots=8, max_action_tokens=5)
    found = []
    for slot in range(8):
        sampler.start(slot, np.random.default_rng(slot))
    for _ in range(20):
        for slot in range(8):
            sampler.forget(slot)
        found += sampler.act({slot: np.asarray([5, 6, 7 + slot]) for slot in range(8)}).values()
    ends = policy.codec.ends_action.numpy()
    for action in found:
        assert not ends[action.ids[:-1]].any()
        assert action.stopped == ends[action.ids[-1]]
        assert len(action.ids) == 5 or action.stopped
        assert action.read == len(action.ids) - 1
        assert not policy.codec.forbidden.numpy()[action.ids].any()
    assert {a.stopped for a in found} == {True, False}


def test_tokens_are_drawn_as_often_as_the_policy_says():
    policy, decoding = language_policy(), Decoding(top_k=3)
    sampler = Sampler(policy, decoding, slots=50, max_action_tokens=1)
    for slot in range(50):
        sampler.start(slot, np.random.default_rng([9, slot]))
    counts = np.zeros(policy.codec.vocab_size)
    for _ in range(40):
        for slot in range(50):
            sampler.forget(slot)
        for action in sampler.act({slot: np.asarray([5, 6]) for slot in range(50)}).values():
            counts[action.ids[0]] += 1
    expected = from_scratch(policy, [5, 6], decoding).exp().numpy()
    assert (expected > 0).sum() == 3
    assert counts[expected == 0].sum() == 0
    n = counts.sum()
    assert (np.abs(counts - n * expected) <= 4.5 * np.sqrt(n * expected * (1 - expected)) + 1e-9).all()


def test_forbidden_ids_are_never_drawn_however_likely():
    policy = language_policy()
    with torch.no_grad():
        policy.lm.get_output_embeddings().weight[policy.codec.forbidden] *= 100.0
    sampler = Sampler(policy, Decoding(temperature=5.0), slots=20, max_action_tokens=10)
    for slot in range(20):
        sampler.start(slot, np.random.default_rng(slot))
    for action in sampler.act({slot: np.asarray([5, slot + 1]) for slot in range(20)}).values():
        assert not policy.codec.forbidden.numpy()[action.ids].any()


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_reranking_equals_scoring_each_candidate_by_itself(kind, weight):
    policy, decoding = POLICIES[kind](), Decoding(mode="rerank", rerank_logit_weight=weight)
    texts = ("move left\n", "move right\n", "up\n", "\n", "There is a wall\n")
    actions = [policy.codec.encode(t) for t in texts]
    sampler = Sampler(policy, decoding, slots=3, max_action_tokens=30, actions=actions)
    histories = {0: [5, 6, 7], 1: [8], 2: [9, 10, 11, 12, 13, 14]}
    chosen = sampler.act({slot: np.asarray(h) for slot, h in histories.items()})
    for slot, history in histories.items():
        scores = []
        for ids in actions:
            whole = [*history, *ids.tolist()]
            states = [read(t, whole[:-1])[len(history) - 1 :] for t in policy.trunks()]
            with torch.no_grad():
                scores.append(policy.rerank_scores(states, torch.tensor(ids), decoding).sum().item())
        best = int(np.argmax(scores))
        assert chosen[slot].ids.tolist() == actions[best].tolist()
        assert chosen[slot].stopped
        assert chosen[slot].read == 0
        assert chosen[slot].logprobs.sum() == pytest.approx(
            torch.log_softmax(torch.tensor(scores), 0)[best].item(), abs=1e-4
        )


def test_reranking_actions_of_one_token_needs_no_look_ahead():
    policy = language_policy()
    actions = [np.asarray([t]) for t in (20, 30, 40)]
    sampler = Sampler(policy, Decoding(mode="rerank"), slots=1, max_action_tokens=1, actions=actions)
    logp = from_scratch(policy, [5, 6], Decoding())
    (action,) = sampler.act({0: np.asarray([5, 6])}).values()
    assert action.ids.tolist() == [(20, 30, 40)[int(logp[[20, 30, 40]].argmax())]]


def test_only_new_tokens_are_read():
    policy = language_policy()
    sampler = Sampler(policy, Decoding(), slots=2, max_action_tokens=4)
    for slot in range(2):
        sampler.start(slot, np.random.default_rng(slot))
    given = drawn = 0
    unread = {0: [], 1: []}
    for _ in range(5):
        chunks = {slot: np.asarray([*unread[slot], 5, 6, 7]) for slot in range(2)}
        given += sum(map(len, chunks.values()))
        for slot, action in sampler.act(chunks).items():
            drawn += action.read
            unread[slot] = action.ids[action.read :].tolist()
    assert sampler.tokens_read == given + drawn


def test_reranking_without_a_list_of_actions_is_an_error():
    with pytest.raises(ValueError, match="rerank needs a task with a fixed list of actions"):
        Sampler(language_policy(), Decoding(mode="rerank"), slots=1, max_action_tokens=4)


def test_sampling_in_a_slot_without_an_episode_is_an_error():
    sampler = Sampler(language_policy(), Decoding(), slots=1, max_action_tokens=4)
    with pytest.raises(RuntimeError, match="slot 0 has no episode"):
        sampler.act({0: np.asarray([5])})


def propose_from_scratch(policy, history, decoding, generator, limit):
    """Candidates of one history, token by token, reading everything anew: (ids, logprobs, Q of the last)."""
    found = [([], [], 0.0) for _ in range(decoding.candidates)]
    open_ones = list(range(decoding.candidates))
    while open_ones:
        for i in open_ones:
            ids, logprobs, _ = found[i]
            with torch.no_grad():
                states = [read(t, [*history, *ids])[-1:] for t in policy.trunks()]
                logp = torch.log_softmax(restrict(policy.language_log_probs(states[0]), decoding), dim=-1)[0]
                value = policy.values.min_q(states[1])[0]
            cumulative = logp.double().exp().cumsum(-1).numpy()
            token = int(np.searchsorted(cumulative / cumulative[-1], generator.random(), "right"))
            found[i] = ([*ids, token], [*logprobs, logp[token].item()], value[token].item())
        ends = policy.codec.ends_action
        open_ones = [i for i in open_ones if not ends[found[i][0][-1]] and len(found[i][0]) < limit]
    return found


def test_the_best_by_q_of_the_proposed_actions_is_taken():
    policy, decoding = value_policy(), Decoding(mode="propose", candidates=4, top_p=0.99)
    sampler = Sampler(policy, decoding, slots=3, max_action_tokens=5)
    histories, unread, ranks = {0: [5, 6, 7], 1: [8], 2: [9, 10, 11, 12]}, {0: [], 1: [], 2: []}, set()
    generators = {slot: np.random.default_rng(slot) for slot in histories}
    for slot in histories:
        sampler.start(slot, np.random.default_rng(slot))
    for turn in range(4):
        chunks = {s: np.asarray(unread[s] + (histories[s] if turn == 0 else [20 + turn])) for s in histories}
        for slot, action in sampler.act(chunks).items():
            if turn:
                histories[slot] += [*unread[slot], 20 + turn]
            found = propose_from_scratch(policy, histories[slot], decoding, generators[slot], 5)
            values = [value for _, _, value in found]
            best = int(np.argmax(values))
            assert action.ids.tolist() == found[best][0]
            assert action.logprobs.tolist() == pytest.approx(found[best][1], abs=1e-4)
            assert action.read == 0
            unread[slot] = action.ids.tolist()
            ranks.add(best)
    assert len(ranks) > 1


def test_what_is_proposed_does_not_depend_on_the_other_slots():
    policy, decoding = value_policy(), Decoding(mode="propose", candidates=3)
    alone, together = (Sampler(policy, decoding, slots=n, max_action_tokens=6) for n in (1, 4))
    alone.start(0, np.random.default_rng(9))
    for slot in range(4):
        together.start(slot, np.random.default_rng(9 if slot == 2 else slot))
    for turn in range(5):
        (one,) = alone.act({0: np.asarray([5, 6, 7 + turn])}).values()
        chunks = {slot: np.asarray([30 + slot] * (slot + turn)) for slot in (0, 1, 3)[: 1 + turn]}
        many = together.act({**{s: c for s, c in chunks.items() if len(c)}, 2: np.asarray([5, 6, 7 + turn])})
        assert many[2].ids.tolist() == one.ids.tolist()
        assert many[2].logprobs.tolist() == pytest.approx(one.logprobs.tolist(), abs=1e-4)


def test_one_proposal_is_what_the_language_model_says():
    policy = value_policy()
    found = []
    for speaker, mode in (
        (policy, "propose"),
        (LanguagePolicy(LanguageModel(policy.lm, policy.codec)), "sample"),
    ):
        sampler = Sampler(speaker, Decoding(mode=mode, candidates=1), slots=1, max_action_tokens=8)
        sampler.start(0, np.random.default_rng(4))
        (action,) = sampler.act({0: np.asarray([5, 6])}).values()
        found.append(action)
    assert found[0].ids.tolist() == found[1].ids.tolist()
    assert found[0].logprobs.tolist() == pytest.approx(found[1].logprobs.tolist(), abs=1e-5)


def test_proposing_needs_a_policy_with_values():
    with pytest.raises(ValueError, match=r"decoding\.mode: propose chooses among candidates by Q"):
        Sampler(language_policy(), Decoding(mode="propose"), slots=1, max_action_tokens=4)
