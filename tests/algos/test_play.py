"""Playing episodes: tokens in, tokens out, whatever the task, the slots and the mishaps."""

from collections import Counter
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_language_model

from algos import sampler
from algos.batch import pack
from algos.cache import SlotCache
from algos.networks import hidden_states
from algos.play import EpisodeRequest, context_rule, play
from algos.policy import Decoding, LanguagePolicy
from algos.tokens import TokenEpisodeBuilder
from envs.core import Outcome, TextEnv
from envs.registry import Scale, TaskSpec, get_task, task_ids


class Chatter(TextEnv):
    """Says lines of random length for a random number of turns; "bad" letters make an action invalid."""

    num_tasks = 3

    def __init__(self, fail_at=None, longest=4):
        super().__init__()
        self._fail_at = fail_at
        self._longest = longest

    def privileged(self):
        return {}

    def _reset(self, task_id):
        self._left = int(self.np_random.integers(1, 7))
        self._check(0)
        return self._line()

    def _step(self, action):
        assert action.endswith("\n")
        assert action.count("\n") == 1
        self._left -= 1
        self._check(self._turn)
        over = self._left == 0
        terminated = over and bool(self.np_random.integers(2))
        return Outcome(
            self._line(),
            float(-len(action) % 5),
            terminated=terminated,
            truncated=over and not terminated,
            success=terminated,
            valid=len(action) % 3 != 0,
        )

    def _line(self):
        words = self.np_random.choice(
            ["wall", "goal", "above", "12", "é", ""], self.np_random.integers(1, self._longest)
        )
        return " ".join(words) + "\n"

    def _check(self, turn):
        if self._fail_at == (self._task_id, turn):
            raise RuntimeError("the simulator fell over")

    def _get_state(self):
        return {}

    def _set_state(self, state):
        raise NotImplementedError


CHATTER = TaskSpec(
    id="chatter",
    family="chatter",
    description="",
    entry="",
    observation="dialogue",
    horizon=7,
    window=None,
    scale=Scale(0.0, None, None),
    max_action_tokens=5,
    baselines={},
    best_baseline="",
    data_episodes=0,
    table1={},
)
TEXTS = ("wall goal above 12\n", "move left\n", "a\n\nb\n\n" * 30)


@cache
def policy(positions=256):
    """A language model whose lines often end within a few tokens."""
    start = tiny_language_model(TEXTS, positions=positions)
    with torch.no_grad():
        for parameter in start.model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        output = torch.nn.Linear(32, start.codec.vocab_size)
        output.weight.copy_(start.model.lm_head.weight)
        output.bias.copy_(4.5 * start.codec.ends_action)
        start.model.lm_head = output
    return LanguagePolicy(start).eval()


def requests(count, first=0):
    return [EpisodeRequest(index=i, seed=1000 + i) for i in range(first, first + count)]


def played(spec=CHATTER, make_env=Chatter, who=None, wanted=None, slots=3, **decoding):
    episodes = play(
        spec,
        make_env,
        who or policy(),
        wanted or requests(7),
        decoding=Decoding(**decoding),
        slots=slots,
        name="me",
    )
    return {e.index: e for e in episodes}


@torch.no_grad()
def played_alone(spec, env, who, request, decoding):
    """One episode, reading the whole context anew for every token: segments, ids and log-probabilities."""
    rng, codec = np.random.default_rng([request.seed, 2]), who.codec
    observation, _ = env.reset(seed=request.seed)
    builder, texts, over = TokenEpisodeBuilder(context_rule(spec, who.max_tokens)), [observation], False
    builder.add_observation(codec.encode(observation))
    while not over:
        context = builder.tokens(builder.context_start()).tolist()
        ids, logprobs = [], []
        while len(ids) < spec.max_action_tokens and not (ids and codec.ends_action[ids[-1]]):
            states = who.lm.base_model(input_ids=torch.tensor([context + ids])).last_hidden_state[0, -1:]
            logp = who.log_probs([states], decoding)[0]
            if decoding.mode == "greedy":
                ids.append(int(logp.argmax()))
            else:
                cumulative = logp.double().exp().cumsum(-1)
                ids.append(int(torch.searchsorted(cumulative, rng.random() * cumulative[-1], right=True)))
            logprobs.append(float(logp[ids[-1]]))
        text = codec.decode(ids)
        cut = not text.endswith("\n")
        text += "\n" * cut
        observation, reward, terminated, truncated, info = env.step(text)
        builder.add_action(np.asarray(ids), np.asarray(logprobs), reward, info["valid"])
        builder.close_action(codec.newline[: int(cut)])
        builder.add_observation(codec.encode(observation))
        texts += [text, observation]
        over = terminated or truncated
    return texts, builder.build(terminated)


VARIANTS = {
    "whole history": {},
    "window of 1": {"window": 1},
    "window of 4": {"window": 4},
    "forgetting": {"forget_on_invalid": True},
    "window and forgetting": {"window": 5, "forget_on_invalid": True},
}


@pytest.mark.parametrize("mode", ["sample", "greedy"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_episodes_equal_those_played_one_by_one_reading_everything_anew(variant, mode):
    spec = replace(CHATTER, **VARIANTS[variant])
    for index, found in played(spec, slots=3, mode=mode).items():
        texts, tokens = played_alone(spec, Chatter(), policy(), requests(7)[index], Decoding(mode=mode))
        assert [s.text for s in found.episode.segments] == texts
        assert found.tokens.ids.tolist() == tokens.ids.tolist()
        assert found.tokens.context.tolist() == tokens.context.tolist()
        np.testing.assert_allclose(found.tokens.logprob, tokens.logprob, atol=1e-4)


def test_a_full_model_window_slides_as_if_everything_were_read_anew():
    small, env = policy(positions=24), partial_chatter(longest=5)
    slid = 0
    for index, found in played(make_env=env, who=small, wanted=requests(9), slots=4).items():
        texts, tokens = played_alone(CHATTER, env(), small, requests(9)[index], Decoding())
        assert [s.text for s in found.episode.segments] == texts
        assert found.tokens.ids.tolist() == tokens.ids.tolist()
        slid += int((np.diff(found.tokens.context[:-1]) > 0).sum())
    assert slid > 3


def partial_chatter(**arguments):
    return lambda: Chatter(**arguments)


def test_an_episode_does_not_depend_on_what_else_is_in_the_batch():
    one_by_one = played(slots=1)
    for others in (played(slots=2), played(slots=7), played(wanted=requests(7)[::-1], slots=4)):
        assert others.keys() == one_by_one.keys()
        for index, found in others.items():
            assert found.episode == one_by_one[index].episode
            assert found.tokens.ids.tolist() == one_by_one[index].tokens.ids.tolist()
            np.testing.assert_allclose(found.tokens.logprob, one_by_one[index].tokens.logprob, atol=1e-5)
    alone = played(wanted=[requests(7)[4]])
    assert alone[4].episode == one_by_one[4].episode


class ShortEnv:
    """Makes environments of a task whose episodes are truncated after `turns` actions."""

    def __init__(self, spec, turns):
        self.spec, self.turns = spec, turns

    def __call__(self):
        env = self.spec.make()
        step = env.step

        def short_step(action):
            observation, reward, terminated, truncated, info = step(action)
            return (
                observation,
                reward,
                terminated,
                truncated or (info["turn"] >= self.turns and not terminated),
                info,
            )

        env.step = short_step
        return env


class Recording(SlotCache):
    """Remembers every history at the end of which a token was drawn."""

    seen: list

    def __init__(self, trunks, slots, device):
        super().__init__(trunks, slots, device)
        self.histories = [()] * slots

    def clear(self, slot):
        super().clear(slot)
        self.histories[slot] = ()

    def append(self, chunks):
        for slot, chunk in enumerate(chunks):
            if len(chunk):
                self.histories[slot] += tuple(int(i) for i in chunk)
                self.seen.append(self.histories[slot])
        return super().append(chunks)


@pytest.mark.parametrize("task", task_ids())
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_the_ids_of_an_episode_are_those_the_model_saw_in_every_task(task, seed):
    spec, who = replace(get_task(task), max_action_tokens=5), policy(positions=1024)
    wanted = [EpisodeRequest(i, seed + i) for i in range(3)]
    recording = type("Recording", (Recording,), {"seen": []})
    with patch.object(sampler, "SlotCache", recording):
        episodes = played(spec, ShortEnv(spec, turns=3), who, wanted, slots=2)
    expected = Counter()
    for found in episodes.values():
        tokens, text = found.tokens, found.episode.text
        assert who.codec.decode(tokens.ids) == text
        for context, (start, end) in zip(tokens.context[:-1], tokens.actions.tolist(), strict=True):
            expected.update(tuple(tokens.ids[context:t].tolist()) for t in range(start, end))
        check_ids_against_segments(found, who.codec)
    assert Counter(recording.seen) == expected


def check_ids_against_segments(found, codec):
    """Concatenated segments, environment's as they are encoded by themselves, are the episode's ids."""
    tokens, at = found.tokens, 0
    spans = iter(tokens.actions.tolist())
    owed = []
    for segment in found.episode.segments:
        if segment.is_action:
            start, end = next(spans)
            assert start == at
            assert tokens.is_action[start:end].all()
            owed = [] if codec.decode(tokens.ids[start:end]).endswith("\n") else codec.newline.tolist()
            assert codec.decode([*tokens.ids[start:end], *owed]) == segment.text
            assert tokens.reward[end - 1] == segment.reward
            at = end
        else:
            ids = [*owed, *codec.encode(segment.text).tolist()]
            assert tokens.ids[at : at + len(ids)].tolist() == ids
            assert not tokens.is_action[at : at + len(ids)].any()
            at += len(ids)
    assert at == len(tokens.ids)


@pytest.mark.parametrize(
    "decoding", [{}, {"temperature": 0.7, "top_p": 0.9}, {"top_k": 5}, {"mode": "greedy"}]
)
def test_stored_log_probs_are_those_of_a_forward_pass_over_the_packed_episode(decoding):
    spec = replace(CHATTER, window=3)
    episodes = [e.tokens for e in played(spec, **decoding).values()]
    with torch.no_grad():
        for batch in pack(episodes, 300):
            states = hidden_states(policy().lm.base_model, batch.input_ids, batch.mask)[batch.state_idx]
            logp = policy().log_probs([states], Decoding(**decoding))
            recomputed = logp.gather(1, batch.action_tok[:, None]).squeeze(1)
            torch.testing.assert_close(batch.logprob, recomputed, atol=1e-4, rtol=1e-4)


def test_a_context_begins_with_its_observation_also_after_an_action_that_was_cut():
    codec = policy().codec
    found = played(replace(CHATTER, window=1)).values()
    assert any(e.cut_actions for e in found)
    for episode in found:
        tokens, said = episode.tokens, [s.text for s in episode.episode.segments if not s.is_action]
        prompts = [tokens.ids[c:a] for c, (a, _) in zip(tokens.context, tokens.actions, strict=False)]
        assert [codec.decode(ids) for ids in prompts] == said[: len(prompts)]


def test_cut_actions_get_their_newline_and_are_counted():
    spec = replace(CHATTER, max_action_tokens=2)
    episodes = played(spec, wanted=requests(12))
    codec, cut = policy().codec, 0
    for found in episodes.values():
        actions = [s.text for s in found.episode.segments if s.is_action]
        assert all(a.endswith("\n") and a.count("\n") == 1 for a in actions)
        tokens = found.tokens
        ends = [bool(codec.ends_action[tokens.ids[end - 1]]) for _, end in tokens.actions]
        assert found.cut_actions == ends.count(False)
        for stopped, (_, end) in zip(ends, tokens.actions, strict=True):
            assert stopped or tokens.ids[end] == codec.newline[0]
        assert codec.decode(tokens.ids) == found.episode.text
        check_ids_against_segments(found, codec)
        cut += found.cut_actions
    assert 0 < cut < sum(e.episode.length for e in episodes.values())


@pytest.mark.parametrize("turn", [0, 2])
def test_a_simulator_that_raises_fails_its_episode_and_the_others_go_on(turn):
    wanted = [EpisodeRequest(i, 50 + i, task_id=i % 3) for i in range(9)]
    sound = played(wanted=wanted, slots=2)
    found = played(make_env=partial_chatter(fail_at=(1, turn)), wanted=wanted, slots=2)
    assert found.keys() == sound.keys()
    failed = [i for i, e in found.items() if e.episode.error]
    reached = [i for i in (1, 4, 7) if sound[i].episode.length >= max(turn, 0)]
    assert failed
    assert sorted(failed) == reached
    for index, result in found.items():
        if index in failed:
            assert result.episode.error == "RuntimeError: the simulator fell over"
            assert result.tokens is None
            assert result.episode.task_id == 1
            assert not result.episode.success
            assert not result.episode.terminated
            assert result.episode.seed == 50 + index
        else:
            assert result.episode == sound[index].episode
            assert result.tokens.ids.tolist() == sound[index].tokens.ids.tolist()


class Lecturer(TextEnv):
    """Says more than any model here can read: at once (task 0), in its last words (1), never (2)."""

    num_tasks = 3

    def privileged(self):
        return {}

    def _reset(self, task_id):
        return "hello " * 500 + "\n" if task_id == 0 else "hello\n"

    def _step(self, action):
        return Outcome("hello " * 500 + "\n" if self._task_id == 1 else "so\n", 0.0, truncated=True)

    def _get_state(self):
        return {}

    def _set_state(self, state):
        raise NotImplementedError


def test_an_observation_too_long_for_the_model_fails_its_episode_and_the_others_go_on():
    found = played(make_env=Lecturer, wanted=[EpisodeRequest(i, i, task_id=i % 3) for i in range(9)], slots=2)
    for index, result in found.items():
        if index % 3 == 2:
            assert result.episode.error is None
            assert result.tokens is not None
        else:
            assert "the model's window" in result.episode.error
            assert result.tokens is None


class Crescendo(TextEnv):
    """Each line is a word longer than the last, until a model has read as much as it can."""

    def privileged(self):
        return {}

    def _reset(self, task_id):
        self._words = 1
        return "goal\n"

    def _step(self, action):
        self._words += 1
        return Outcome("goal " * self._words + "\n", 0.0, truncated=self._words > 40)

    def _get_state(self):
        return {}

    def _set_state(self, state):
        raise NotImplementedError


def test_reranked_actions_longer_than_sampled_ones_leave_room_in_the_window_and_fail_no_other_episode():
    actions = ("a\n", "move left and above the wall and left again\n")
    spec = replace(CHATTER, max_action_tokens=1, window=1, actions=actions)
    small = policy(positions=48)
    longest = max(len(small.codec.encode(a)) for a in actions)
    assert longest > 10
    found = played(spec, make_env=Crescendo, who=small, wanted=requests(3), slots=2, mode="rerank")
    for result in found.values():
        latest = small.codec.encode(result.episode.segments[-1].text)
        assert "the latest observation has" in result.episode.error
        assert len(latest) + longest > 48 >= len(latest) - 8 + longest


def test_what_an_episode_says_of_itself():
    found = played(wanted=[EpisodeRequest(index=4, seed=11, task_id=2)])[4].episode
    assert (found.task, found.seed, found.task_id, found.policy, found.simulator, found.error) == (
        *("chatter", 11, 2, "me", "rule"),
        None,
    )
    assert found.segments[0].is_action is False
    assert [s.is_action for s in found.segments[1:3]] == [True, False]


def test_only_termination_leaves_the_last_state_without_a_value():
    episodes = played(wanted=requests(12)).values()
    assert {e.episode.terminated for e in episodes} == {True, False}
    for found in episodes:
        assert found.episode.terminated != found.episode.truncated
        assert found.tokens.terminated == found.episode.terminated
        assert found.episode.success == found.episode.terminated


def test_reranking_plays_the_listed_actions_alone():
    spec = get_task("maze-fo")
    found = played(spec, ShortEnv(spec, turns=4), wanted=requests(3), mode="rerank")
    for result in found.values():
        assert result.cut_actions == 0
        said = {s.text for s in result.episode.segments if s.is_action}
        assert said <= set(spec.actions)
        assert all(s.valid for s in result.episode.segments)


def test_simulators_are_made_once_for_each_slot_and_never_more_than_there_are_episodes():
    made = []

    def make_env():
        made.append(Chatter())
        return made[-1]

    played(make_env=make_env, wanted=requests(5), slots=2)
    assert len(made) == 2
    made.clear()
    played(make_env=make_env, wanted=requests(2), slots=64)
    assert len(made) == 2


def test_no_request_gives_no_episode():
    assert list(play(CHATTER, Chatter, policy(), [], decoding=Decoding(), slots=4, name="me")) == []
