"""Rollouts, our sampler against `generate` over the whole history: `python benchmarks/rollout_sampler.py`.

Both play the same 20-turn episodes with the same random model, 32 at a time, greedily and on one
thread (as in a rollout actor), and must produce the same ids. The baseline gives `generate` each
turn's whole history, batched, padded on the left and with its own KV cache inside the call; it is
given ids, so that it does not even have to tokenise again. Tokens are action tokens.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial

import numpy as np
import torch

from algos.models import LanguageModel
from algos.play import EpisodeRequest, play
from algos.policy import Decoding, LanguagePolicy
from algos.tokens import TokenEpisode
from benchmarks.common import (
    ACTION_TOKENS,
    SPEC,
    TURNS,
    Figure,
    Timed,
    arguments,
    language_model,
    report,
    speedup,
    timed,
)

EPISODES = 32
REPETITIONS = 3

Histories = list[np.ndarray]


def with_sampler(lm: LanguageModel, episodes: int) -> list[TokenEpisode]:
    """The episodes as our sampler plays them."""
    requests = [EpisodeRequest(i, seed=i) for i in range(episodes)]
    policy, decoding = LanguagePolicy(lm).eval(), Decoding(mode="greedy")
    played = play(SPEC, SPEC.make, policy, requests, decoding=decoding, slots=episodes, name="bench")
    tokens = {p.index: p.tokens for p in played if p.tokens}
    return [tokens[i] for i in range(episodes)]


def with_generate(lm: LanguageModel, episodes: int) -> Histories:
    """The ids of the same episodes, with `generate` on the whole history at each turn."""
    codec, envs = lm.codec, [SPEC.make() for _ in range(episodes)]
    histories = [codec.encode(env.reset(seed=i)[0]) for i, env in enumerate(envs)]
    over = False
    while not over:
        for i, action in enumerate(_generate(lm, histories)):
            text = codec.decode(action).split("\n", 1)[0] + "\n"
            observation, _, over, _, _ = envs[i].step(text)
            newline = [] if codec.ends_action[action[-1]] else codec.newline
            histories[i] = np.concatenate([histories[i], action, newline, codec.encode(observation)])
    return [h.astype(np.int32) for h in histories]


@torch.no_grad()
def _generate(lm: LanguageModel, histories: Histories) -> Histories:
    """An action for each history."""
    codec, width = lm.codec, max(map(len, histories))
    ids = np.zeros((len(histories), width), dtype=np.int64)
    mask = np.zeros_like(ids)
    for i, history in enumerate(histories):
        ids[i, width - len(history) :] = history
        mask[i, width - len(history) :] = 1
    out = lm.model.generate(
        input_ids=torch.from_numpy(ids),
        attention_mask=torch.from_numpy(mask),
        do_sample=False,
        use_cache=True,
        max_new_tokens=ACTION_TOKENS,
        eos_token_id=codec.ends_action.nonzero().flatten().tolist(),
        suppress_tokens=codec.forbidden.nonzero().flatten().tolist(),
        pad_token_id=codec.tokenizer.pad_token_id,
    )
    return [_until_newline(lm, row[width:].numpy()) for row in out]


def _until_newline(lm: LanguageModel, action: np.ndarray) -> np.ndarray:
    ends = lm.codec.ends_action.numpy()[action]
    return action[: int(ends.argmax()) + 1] if ends.any() else action


def main(argv: list[str]) -> int:
    check = arguments(__doc__).parse_args(argv).check
    torch.set_num_threads(1)
    lm = language_model()
    ours, baseline, tokens = list[Timed](), list[Timed](), 0
    for episodes in (2, *[EPISODES] * REPETITIONS):  # the first is a warm-up
        a, played = timed(partial(with_sampler, lm, episodes))
        b, generated = timed(partial(with_generate, lm, episodes))
        for p, ids in zip(played, generated, strict=True):
            if not np.array_equal(p.ids, ids):
                raise AssertionError("the sampler and `generate` produced different episodes")
        if episodes == EPISODES:
            tokens = sum(int(p.is_action.sum()) for p in played)
            ours.append(a)
            baseline.append(b)
    longest = max(len(p.ids) for p in played)
    figure = Figure(
        "rollouts, sampler against generate",
        f"{tokens / statistics.median(t.wall for t in ours):,.0f} tokens/s",
        f"{tokens / statistics.median(t.wall for t in baseline):,.0f} tokens/s",
        speedup([t.wall for t in ours], [t.wall for t in baseline]),
        claim=3,
        note=f"by CPU time {speedup([t.cpu for t in ours], [t.cpu for t in baseline]):.2f}x; "
        f"{EPISODES} episodes at a time, {TURNS} turns, {longest} tokens, same text",
    )
    return report([figure], check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
