"""Policies: what a rollout needs of a trained algorithm, saved as a folder.

    LanguagePolicy   pi(a|s), a language model                                       (BC, PPO, ArCHer)
    ValuePolicy      pi(a|s) ~ pi_beta(a|s) exp(beta Q(s,a)) on the support of pi_beta   (ILQL, MC)

A folder holds `policy/`, a plain transformers folder (the language model), and for a ValuePolicy
`heads.safetensors` (the value trunk and heads) with `heads.json` (their shape).
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from algos import models
from algos.codec import TextCodec
from algos.lora import merged_state
from algos.networks import QHead, ValueHead
from algos.settings import Settings


class Decoding(Settings):
    """How actions are drawn."""

    mode: Literal["sample", "greedy", "rerank", "propose"] = Field(
        "sample",
        description="rerank scores the task's legal actions instead of decoding freely; propose lets the "
        "language model draw `candidates` whole actions and takes the best by Q",
    )
    temperature: float = Field(1.0, ge=1e-6, description="divides the logits before sampling")
    beta: float = Field(
        16.0, ge=0, description="weight of Q against log pi_beta, in 1/units of reward (value policies)"
    )
    top_k: int | None = Field(None, ge=1, description="support: the k likeliest tokens of the language model")
    top_p: float | None = Field(None, gt=0, le=1, description="support: the nucleus of the language model")
    min_p: float | None = Field(
        None, ge=0, lt=1, description="support: tokens at least this likely relative to the likeliest"
    )
    candidates: int = Field(5, ge=1, description="actions that are drawn for mode: propose")
    rerank_logit_weight: float = Field(0.0, ge=0, description="weight of log pi_beta in a reranked score")


def refused_by_vllm(decoding: Decoding) -> str | None:
    """Why vLLM cannot draw like this; None where it can."""
    if decoding.mode not in ("sample", "greedy"):
        return f"decoding.mode: {decoding.mode} needs hidden states, which vLLM does not give"
    cuts = [n for n in ("top_k", "top_p", "min_p") if getattr(decoding, n) is not None]
    if len(cuts) > 1:
        return f"decoding.{' and decoding.'.join(cuts)} together mean something else to vLLM; keep one"
    if decoding.temperature != 1.0 and cuts and cuts != ["top_k"]:
        return f"decoding.{cuts[0]} with a temperature means something else to vLLM, which applies it first"
    return None


class Policy(nn.Module, ABC):
    """A distribution over the next token, computed from the last hidden state of one or two trunks."""

    def __init__(self, language_model: models.LanguageModel) -> None:
        super().__init__()
        self.lm = language_model.model
        self.codec: TextCodec = language_model.codec
        self.max_tokens = language_model.max_tokens

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def trunks(self) -> list[Any]:
        """The networks that read the context; each has its own KV cache."""
        return [self.lm.base_model]

    @abstractmethod
    def log_probs(self, hidden: list[torch.Tensor], decoding: Decoding) -> torch.Tensor:
        """Log-probabilities that an action token is drawn from: a [B, h] for each trunk -> [B, V] float32."""

    @abstractmethod
    def rerank_scores(
        self, hidden: list[torch.Tensor], tokens: torch.Tensor, decoding: Decoding
    ) -> torch.Tensor:
        """What token i adds to the score of its action in state i: a [M, h] for each trunk, [M] -> [M]."""

    def spoken_log_probs(self, hidden: torch.Tensor, decoding: Decoding) -> torch.Tensor:
        """What the language model alone draws from: [B, h] -> [B, V]."""
        logp = restrict(self.language_log_probs(hidden), decoding)
        return torch.log_softmax(logp / decoding.temperature, dim=-1)

    def language_log_probs(self, hidden: torch.Tensor) -> torch.Tensor:
        """log pi(.|s) of the language model with special and unused ids ruled out: [B, h] -> [B, V]."""
        logits = self.lm.get_output_embeddings()(hidden).float()
        logits = logits.masked_fill(self.codec.forbidden.to(logits.device), -torch.inf)
        return torch.log_softmax(logits, dim=-1)

    def save(self, folder: Path) -> None:
        """Write the policy's folder (into an existing or new folder)."""
        folder.mkdir(parents=True, exist_ok=True)
        models.LanguageModel(self.lm, self.codec).save(folder / "policy")

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of all weights as numpy arrays, for the way through an object store."""
        return {k: v.detach().cpu().clone().numpy() for k, v in self.state_dict().items()}

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Take over `weights()` of a policy of the same shape."""
        with torch.no_grad():
            for name, value in self.state_dict().items():
                value.copy_(torch.from_numpy(weights[name].copy()))


class LanguagePolicy(Policy):
    """The language model itself."""

    def log_probs(self, hidden: list[torch.Tensor], decoding: Decoding) -> torch.Tensor:
        return self.spoken_log_probs(hidden[0], decoding)

    def rerank_scores(
        self, hidden: list[torch.Tensor], tokens: torch.Tensor, decoding: Decoding
    ) -> torch.Tensor:
        return self.language_log_probs(hidden[0]).gather(1, tokens[:, None]).squeeze(1)


class ValueHeads(nn.Module):
    """A trunk with Q heads (the smallest counts) and, where there is one, a V head."""

    def __init__(self, trunk: nn.Module, q: list[QHead], v: ValueHead | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.q = nn.ModuleList(q)
        self.v: ValueHead | None = v

    def min_q(self, hidden: torch.Tensor) -> torch.Tensor:
        """min over heads of Q(s, .): [N, h] -> [N, V]."""
        return torch.stack([cast(QHead, head).all(hidden) for head in self.q]).amin(0)

    def min_q_of(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """min over heads of Q(s, a): [N, h], [N] -> [N]."""
        return torch.stack([head(hidden, tokens)[0] for head in self.q]).amin(0)


class ValuePolicy(Policy):
    """The behaviour policy, steered by Q (LMRL-Gym equation 5; ILQL, Snell et al. 2023, section 4.3).

    The support is pi_beta's: without a CQL term the Q of a token that no state in the data was
    followed by stays at its initial value, often above every learnt one.
    """

    def __init__(self, language_model: models.LanguageModel, values: ValueHeads) -> None:
        super().__init__(language_model)
        self.values = values

    def trunks(self) -> list[Any]:
        return [self.lm.base_model, self.values.trunk]

    def log_probs(self, hidden: list[torch.Tensor], decoding: Decoding) -> torch.Tensor:
        if decoding.mode == "propose":
            return self.spoken_log_probs(hidden[0], decoding)
        logp = restrict(self.language_log_probs(hidden[0]), decoding)
        steered = logp + decoding.beta * self.values.min_q(hidden[1])
        return torch.log_softmax(steered / decoding.temperature, dim=-1)

    def rerank_scores(
        self, hidden: list[torch.Tensor], tokens: torch.Tensor, decoding: Decoding
    ) -> torch.Tensor:
        score = self.values.min_q_of(hidden[1], tokens)
        if self.values.v is not None:
            score = score - self.values.v(hidden[1])
        if decoding.rerank_logit_weight:
            logp = self.language_log_probs(hidden[0]).gather(1, tokens[:, None]).squeeze(1)
            score = score + decoding.rerank_logit_weight * logp
        return score

    def action_values(self, hidden: list[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
        """Q of token i in state i, which for the last token of an action is Q of all of it: [M] -> [M]."""
        return self.values.min_q_of(hidden[1], tokens)

    def save(self, folder: Path) -> None:
        super().save(folder)
        heads = self.values.q
        shape = {"q_heads": len(heads), "v_head": self.values.v is not None, "tied": _is_tied(heads[0])}
        (folder / "heads.json").write_text(json.dumps(shape))
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in merged_state(self.values).items()}
        save_file(tensors, folder / "heads.safetensors")


def load_policy(folder: Path) -> Policy:
    """The policy that `Policy.save` wrote, or a bare transformers folder (or Hugging Face name)."""
    if not (folder / "policy").is_dir():
        return LanguagePolicy(models.load(folder)).eval()
    language_model = models.load(folder / "policy")
    if not (folder / "heads.json").exists():
        return LanguagePolicy(language_model).eval()
    shape = json.loads((folder / "heads.json").read_text())
    width, vocab = language_model.width, language_model.model.config.vocab_size
    embedding = torch.zeros(vocab, width) if shape["tied"] else None
    values = ValueHeads(
        copy.deepcopy(language_model.trunk),
        [QHead(width, vocab, tied=embedding) for _ in range(shape["q_heads"])],
        ValueHead(width) if shape["v_head"] else None,
    )
    try:
        values.load_state_dict(load_file(folder / "heads.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise models.ModelError(f"{folder}: heads.safetensors cannot be loaded ({error})") from error
    return ValuePolicy(language_model, values).eval()


def restrict(logp: torch.Tensor, decoding: Decoding) -> torch.Tensor:
    """Log-probabilities [B, V] with -inf outside of the support that `decoding` names; not renormalised."""
    if decoding.min_p is not None:
        best = logp.amax(-1, keepdim=True)
        logp = logp.masked_fill(logp < best + np.log(max(decoding.min_p, 1e-30)), -torch.inf)
    if decoding.top_k is not None and decoding.top_k < logp.shape[-1]:
        floor = logp.topk(decoding.top_k, dim=-1).values[:, -1:]
        logp = logp.masked_fill(logp < floor, -torch.inf)
    if decoding.top_p is not None and decoding.top_p < 1:
        ordered, order = logp.sort(dim=-1, descending=True)
        mass_before = ordered.exp().cumsum(-1) - ordered.exp()
        outside = torch.zeros_like(logp, dtype=torch.bool).scatter(1, order, mass_before >= decoding.top_p)
        logp = logp.masked_fill(outside, -torch.inf)
    return logp


def _is_tied(head: nn.Module) -> bool:
    return "weight" in dict(head.named_buffers(recurse=False))
