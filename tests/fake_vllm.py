"""What we use of vLLM 0.30.0, with its names, defaults and orders of arguments, decoding on the CPU.

Copied from `entrypoints/llm.py`, `sampling_params.py`, `inputs/llm.py`, `outputs.py` and `logprobs.py` of
that release; what is drawn follows `v1/sample/sampler.py`: allowed ids, temperature, min-p, top-k, top-p.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch

from algos import models

ENGINE_ARGS = {"max_model_len", "enable_prefix_caching", "logprobs_mode"}
"""Of `EngineArgs`, which takes what `LLM` has no argument for; it has many more."""
made: list[LLM] = []


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass(kw_only=True)
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    allowed_token_ids: list[int] | None = None


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.92,
        **kwargs: Any,
    ) -> None:
        assert kwargs.keys() <= ENGINE_ARGS
        assert skip_tokenizer_init
        assert dtype == "float32"
        assert 0 < gpu_memory_utilization <= 1
        assert kwargs["logprobs_mode"] == "processed_logprobs"
        self._limit = kwargs["max_model_len"]
        self._model = models.load(Path(model)).model
        self.prefix_cache_is_stale = False
        made.append(self)

    @torch.no_grad()
    def generate(
        self,
        prompts: list[TokensPrompt],
        sampling_params: list[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        assert not self.prefix_cache_is_stale
        assert sampling_params is not None
        assert not use_tqdm
        return [
            RequestOutput(prompt["prompt_token_ids"], [self._complete(prompt["prompt_token_ids"], params)])
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]

    def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> list[None]:
        assert method == "reload_weights"
        assert kwargs is not None
        self._model = models.load(Path(kwargs["weights_path"])).model
        self.prefix_cache_is_stale = True
        return [None]

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        self.prefix_cache_is_stale = False
        return True

    def _complete(self, prompt: list[int], params: SamplingParams) -> CompletionOutput:
        assert not params.detokenize, "without a tokenizer"
        assert prompt
        assert len(prompt) + params.max_tokens <= self._limit
        ids: list[int] = []
        logprobs = []
        generator = torch.Generator().manual_seed(params.seed)
        while len(ids) < params.max_tokens and not (ids and ids[-1] in params.stop_token_ids):
            logits = self._model(input_ids=torch.tensor([prompt + ids])).logits[0, -1].float()
            logp = _processed(logits, params)
            drawn = torch.multinomial(logp.exp(), 1, generator=generator)
            token = int(logp.argmax() if params.temperature == 0 else drawn)
            ids.append(token)
            logprobs.append({token: Logprob(float(logp[token]))})
        return CompletionOutput(0, "", ids, None, logprobs if params.logprobs is not None else None)


def _processed(logits: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    mask = torch.ones(len(logits), dtype=torch.bool)
    mask[params.allowed_token_ids] = False
    logits = logits.masked_fill(mask, -torch.inf) / (params.temperature or 1.0)
    if params.temperature:
        probabilities = logits.softmax(-1)
        logits = logits.masked_fill(probabilities < params.min_p * probabilities.max(), -torch.inf)
        if params.top_k > 0:
            logits = logits.masked_fill(logits < logits.topk(params.top_k).values[-1], -torch.inf)
        ordered, order = logits.softmax(-1).sort(descending=True)
        logits[order[(ordered.cumsum(-1) - ordered) >= params.top_p]] = -torch.inf
    return logits.log_softmax(-1)
