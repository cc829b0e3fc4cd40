"""Small models, texts and episodes that the tests share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from algos import models
from algos.base import Algorithm
from algos.batch import PackedBatch
from algos.codec import TextCodec
from algos.models import LanguageModel
from envs.core import Episode, Segment
from envs.maze import behaviour, env

FULL = os.environ.get("LMRL_FULL_TESTS") == "1"
"""`make reliability` measures what its page says; in CI the longest tests do less of it."""


def shorten_mazes(patch: pytest.MonkeyPatch) -> None:
    """A maze that this process plays ends after 20 moves, not 100: that is what takes the time."""
    for module in (behaviour, env):
        patch.setattr(module, "MAX_MOVES", 20)


def tiny_language_model(
    texts: Sequence[str],
    *,
    width: int = 32,
    layers: int = 2,
    seed: int = 0,
    positions: int = 256,
    vocab: int = 300,
    spread: float = 0.02,
) -> LanguageModel:
    """A GPT-2 of a few thousand parameters with a byte-level tokenizer trained on `texts`.

    `spread` is the standard deviation of its first weights; the default hardly tells two inputs apart.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = models.train_tokenizer(texts, vocab)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=spread,
    )
    torch.manual_seed(seed)
    return LanguageModel(GPT2LMHeadModel(config), TextCodec(tokenizer, config.vocab_size))


def episode_of(
    *parts: tuple[str, bool] | tuple[str, bool, float], terminated: bool = True, **over: Any
) -> Episode:
    """An episode from (text, is_action[, reward]) parts."""
    segments = tuple(Segment(*p) for p in parts)
    fields: dict[str, Any] = {
        "task": "maze-fo",
        "segments": segments,
        "terminated": terminated,
        "truncated": not terminated,
        "success": terminated,
        "seed": 0,
        "task_id": 0,
        "simulator": "rule",
        "policy": "test",
    }
    return Episode(**{**fields, **over})


DIALOGUES = (
    episode_of(
        ("red\n", False), ("stop\n", True, -1.0), ("again\n", False), ("red\n", True, 1.0), ("end\n", False)
    ),
    episode_of(("green\n", False), ("go on\n", True, 0.5), ("no\n", False), terminated=False),
    episode_of(
        ("red\n", False), ("go\n", True, 0.0), ("again\n", False), ("stop\n", True, 2.0), ("no\n", False)
    ),
)
"""Three dialogues of one or two actions; the second was cut short."""
DIALOGUE_TEXTS = sorted({s.text for e in DIALOGUES for s in e.segments})


def gradients(algorithm: Algorithm, batches: Sequence[PackedBatch]) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss over all batches, and the gradient of each parameter that is trained."""
    algorithm.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        loss = algorithm(batch).value
        loss.backward()
        total += loss.item()
    return total, {n: p.grad.clone() for n, p in algorithm.named_parameters() if p.requires_grad}


def fit(algorithm: Algorithm, batches: Sequence[PackedBatch], *, steps: int, lr: float) -> float:
    """Full-batch Adam with a rate that falls to zero. Returns the last loss."""
    optimizer = torch.optim.Adam([p for p in algorithm.parameters() if p.requires_grad], lr=lr)
    loss = 0.0
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        loss = 0.0
        for batch in batches:
            value = algorithm(batch).value
            value.backward()
            loss += value.item()
        optimizer.step()
        algorithm.after_step()
    return loss
