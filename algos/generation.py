"""Lines of text in batches: what a language model does as a simulator rather than as a policy.

A causal model is read by the `Sampler` of the rollouts. An encoder-decoder reads the prompts with its
encoder and is decoded here, token by token, with a generator for each line. Either way what is drawn for
a prompt depends on the prompt and its seed, not on the batch (up to the rounding of a batched product).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from algos import models
from algos.policy import Decoding, Policy, load_policy
from algos.sampler import Sampler, invert
from envs.answering import Request


class Generator(Protocol):
    """Adds a line to each prompt."""

    def lines(self, requests: Sequence[Request]) -> list[str]:
        """One line for each request, in order, without newlines."""
        ...


def load_generator(folder: Path) -> Generator:
    """The model in a folder (of `Policy.save` or `save_pretrained`) or of a Hugging Face name.

    Causal or encoder-decoder, as its configuration says; on a GPU where there is one. Raises ModelError
    when it cannot be loaded.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if models.is_encoder_decoder(policy_folder(folder)):
        return Seq2SeqGenerator(*models.load_seq2seq(policy_folder(folder)), device)
    return CausalGenerator(load_policy(folder).to(device))


def policy_folder(folder: Path) -> Path:
    """Where its transformers folder is."""
    return folder / "policy" if (folder / "policy").is_dir() else folder


class CausalGenerator:
    """Continues prompts with a policy; a prompt too long for the model's window loses its beginning."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    def lines(self, requests: Sequence[Request]) -> list[str]:
        """See `Generator`."""
        found = [""] * len(requests)
        alike: dict[tuple[bool, int], list[int]] = {}
        for i, request in enumerate(requests):
            alike.setdefault((request.seed is None, request.max_tokens), []).append(i)
        for (greedy, limit), part in alike.items():
            for i, line in zip(part, self._decode([requests[i] for i in part], greedy, limit), strict=True):
                found[i] = line
        return found

    def _decode(self, requests: list[Request], greedy: bool, limit: int) -> list[str]:
        room = self._policy.max_tokens - limit
        if room < 1:
            raise models.ModelError(
                f"the model's window of {self._policy.max_tokens} tokens has no room for a prompt beside a "
                f"line of {limit}; use a model with a longer one"
            )
        decoding = Decoding(mode="greedy" if greedy else "sample")
        sampler = Sampler(self._policy, decoding, len(requests), limit)
        chunks = {}
        for slot, request in enumerate(requests):
            sampler.start(slot, np.random.default_rng(request.seed))
            chunks[slot] = self._policy.codec.encode(request.prompt)[-room:]
        actions = sampler.act(chunks)
        return [_first_line(self._policy.codec.decode(actions[slot].ids)) for slot in range(len(requests))]


class Seq2SeqGenerator:
    """Answers prompts with an encoder-decoder (T5 and the like), which ends a line with its end token.

    A prompt longer than the tokenizer's `model_max_length` loses its beginning.
    """

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._tokenizer.truncation_side = "left"  # a dialogue's latest turn is at its end
        self._device = device

    @torch.no_grad()
    def lines(self, requests: Sequence[Request]) -> list[str]:
        """See `Generator`."""
        model, config = self._model, self._model.config
        prompts = self._tokenizer(
            [r.prompt for r in requests], padding=True, truncation=True, return_tensors="pt"
        ).to(self._device)
        mask = prompts["attention_mask"]
        encoded = model.get_encoder()(input_ids=prompts["input_ids"], attention_mask=mask)
        rngs = [None if r.seed is None else np.random.default_rng(r.seed) for r in requests]
        greedy = torch.tensor([rng is None for rng in rngs])
        start = config.decoder_start_token_id
        drawn = torch.full((len(requests), 1), start, device=self._device)
        open_lines = np.ones(len(requests), dtype=bool)
        cache = None
        for _ in range(max(r.max_tokens for r in requests)):
            out = model(
                encoder_outputs=encoded,
                attention_mask=mask,
                decoder_input_ids=drawn[:, -1:],
                past_key_values=cache,
                use_cache=True,
            )
            cache = out.past_key_values
            logp = torch.log_softmax(out.logits[:, -1].double(), dim=-1).cpu()
            sampled = invert(logp, [0.0 if r is None else r.random() for r in rngs])
            tokens = torch.where(greedy, logp.argmax(-1), sampled)
            drawn = torch.cat([drawn, tokens.to(self._device)[:, None]], dim=1)
            open_lines &= tokens.numpy() != config.eos_token_id
            if not open_lines.any():
                break
        return [
            self._line(ids[: r.max_tokens]) for ids, r in zip(drawn[:, 1:].tolist(), requests, strict=True)
        ]

    def _line(self, ids: list[int]) -> str:
        end = self._model.config.eos_token_id
        kept = ids[: ids.index(end)] if end in ids else ids
        return _first_line(self._tokenizer.decode(kept, skip_special_tokens=True))


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].strip()
