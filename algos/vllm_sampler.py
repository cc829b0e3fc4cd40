"""vLLM as the sampler of a language model: the same slots and actions as `algos.sampler`, on a GPU.

Optional (`pip install 'lmrl-ray[vllm]'`). It draws with its own generators, seeded by each slot's, so its
episodes are not those of `Sampler` (greedy ones are, up to rounding). Written against vLLM 0.30.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from algos import models
from algos.policy import Decoding, refused_by_vllm
from algos.sampler import SampledAction

VERSION = "0.30.0"
"""The last one for torch 2.13 that takes transformers 5.23."""


class VllmPolicy:
    """A language model that vLLM holds on this process's GPU.

    Args:
        folder: of `Policy.save`, without value heads, or a bare transformers folder.
        memory_share: of the GPU's memory that vLLM may take.

    Raises ModelError where vLLM is not installed or the policy is none of its kind.
    """

    def __init__(self, folder: Path, memory_share: float) -> None:
        try:
            import vllm
        except ImportError as error:
            raise models.ModelError(
                f"resources.rollout_engine: vllm is not installed where this rollout actor runs ({error}); "
                f"pip install 'lmrl-ray[vllm]' there (vllm=={VERSION}), or use torch"
            ) from error
        path = _language_model_folder(folder)
        start = models.load(path)
        self.codec, self.max_tokens = start.codec, start.max_tokens
        self._vllm: Any = vllm
        self.engine: Any = vllm.LLM(
            model=str(path),
            skip_tokenizer_init=True,
            dtype="float32",  # as the learner's; by itself vLLM would take half of it
            gpu_memory_utilization=memory_share,
            max_model_len=self.max_tokens,
            enable_prefix_caching=True,  # what `Sampler` keeps from turn to turn
            logprobs_mode="processed_logprobs",  # of what is drawn from, not of the bare model
        )

    def reload(self, folder: Path) -> None:
        """Take over the weights of a policy of the same shape."""
        path = str(_language_model_folder(folder))
        self.engine.collective_rpc("reload_weights", kwargs={"weights_path": path})
        self.engine.reset_prefix_cache()

    def sampler(self, decoding: Decoding, slots: int, max_action_tokens: int) -> VllmSampler:
        """Raises ValueError for a decoding that vLLM cannot do."""
        if reason := refused_by_vllm(decoding):
            raise ValueError(reason)
        return VllmSampler(self, decoding, slots, max_action_tokens)

    def generate(self, prompts: list[list[int]], settings: list[dict[str, Any]]) -> list[Any]:
        """vLLM's completion of each prompt."""
        outputs = self.engine.generate(
            [self._vllm.TokensPrompt(prompt_token_ids=p) for p in prompts],
            [self._vllm.SamplingParams(**s) for s in settings],
            use_tqdm=False,
        )
        return [output.outputs[0] for output in outputs]


class VllmSampler:
    """See `algos.sampler.Sampler`."""

    def __init__(self, policy: VllmPolicy, decoding: Decoding, slots: int, max_action_tokens: int) -> None:
        self._policy = policy
        self._ends = policy.codec.ends_action
        self._histories: list[list[int]] = [[] for _ in range(slots)]
        self._generators: dict[int, np.random.Generator] = {}
        self._settings = {
            "temperature": 0.0 if decoding.mode == "greedy" else decoding.temperature,
            "top_k": decoding.top_k or 0,
            "top_p": 1.0 if decoding.top_p is None else decoding.top_p,
            "min_p": decoding.min_p or 0.0,
            "max_tokens": max_action_tokens,
            "stop_token_ids": np.flatnonzero(self._ends).tolist(),
            "allowed_token_ids": np.flatnonzero(~policy.codec.forbidden.numpy()).tolist(),
            "ignore_eos": True,
            "detokenize": False,
            "logprobs": 0,  # of the drawn token alone
        }

    def start(self, slot: int, generator: np.random.Generator) -> None:
        """Give the slot to a new episode."""
        self._histories[slot] = []
        self._generators[slot] = generator

    def forget(self, slot: int) -> None:
        """Drop the slot's history; the next chunk holds all of the context."""
        self._histories[slot] = []

    def act(self, chunks: dict[int, np.ndarray]) -> dict[int, SampledAction]:
        """Read each slot's new tokens, then draw its action."""
        for slot, chunk in chunks.items():
            self._histories[slot] += chunk.tolist()
        settings = [
            {**self._settings, "seed": int(self._generators[slot].integers(2**31))} for slot in chunks
        ]
        drawn = self._policy.generate([self._histories[slot] for slot in chunks], settings)
        actions = {}
        for slot, completion in zip(chunks, drawn, strict=True):
            ids = list(completion.token_ids)
            logprobs = [at[token].logprob for token, at in zip(ids, completion.logprobs, strict=True)]
            self._histories[slot] += ids
            actions[slot] = SampledAction(
                np.asarray(ids, dtype=np.int32),
                np.asarray(logprobs, dtype=np.float32),
                stopped=bool(self._ends[ids[-1]]),
                read=len(ids),
            )
        return actions


def _language_model_folder(folder: Path) -> Path:
    if (folder / "heads.json").exists():
        raise models.ModelError(
            "resources.rollout_engine: vllm decodes language models; this has value heads"
        )
    return folder / "policy" if (folder / "policy").is_dir() else folder
