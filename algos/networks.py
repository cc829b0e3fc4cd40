"""Networks: a causal language model as a trunk, and value heads on its action tokens.

Q(s, a) = phi(h_s) . W[a] + b[a] is a gathered row for every TD and value loss, and a log-sum-exp over
the vocabulary, where the CQL term needs one, is computed in chunks and recomputed in the backward
pass: no tensor of [tokens, vocabulary] is kept. Heads are fp32 whatever the trunk is.

Heads: LMRL-Gym section 5 and appendix E (two-layer MLP, last weight zero, bias the mean return).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import nn
from torch.nn import functional as F

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class ChunkedLogSumExp(torch.autograd.Function):
    """logsumexp_a (x . W[a] + b[a]) for x [N, h], W [V, h], b [V] -> [N], in chunks of rows.

    Saves only the result; the backward pass recomputes each chunk: P = exp(q - lse) * g,
    dx = P W, dW += P^T x, db += sum P.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, chunk: int
    ) -> torch.Tensor:
        parts = [torch.logsumexp(F.linear(c, weight, bias), dim=-1) for c in torch.split(x, chunk)]
        result = torch.cat(parts) if parts else x.new_zeros(0)
        ctx.save_for_backward(x, weight, bias, result)
        ctx.chunk = chunk
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, bias, result = ctx.saved_tensors
        d_x = torch.empty_like(x)
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        for start in range(0, len(x), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            p = F.linear(x[part], weight, bias).sub_(result[part, None]).exp_().mul_(grads[0][part, None])
            d_x[part] = p @ weight
            d_weight.addmm_(p.T, x[part])
            d_bias += p.sum(0)
        return d_x, d_weight, d_bias, None


def linear_logsumexp(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, chunk: int = 1024
) -> torch.Tensor:
    """log sum_a exp(x . W[a] + b[a]): [N, h], [V, h], [V] -> [N]."""
    apply: Callable[..., torch.Tensor] = ChunkedLogSumExp.apply
    return apply(x, weight, bias, chunk)


class TokenLogProb(nn.Module):
    """log pi(a | s) of given tokens from hidden states, without the [N, V] matrix of logits.

    pi is the softmax of the logits divided by the temperature.
    """

    def __init__(self, lm_head: nn.Module) -> None:
        super().__init__()
        self.lm_head = lm_head

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
        """[N, h], [N] -> [N]."""
        weight = cast(torch.Tensor, self.lm_head.weight).float()
        raw_bias = cast(torch.Tensor | None, getattr(self.lm_head, "bias", None))
        bias = weight.new_zeros(len(weight)) if raw_bias is None else raw_bias.float() / temperature
        x = hidden.float() / temperature
        chosen = (x * weight[tokens]).sum(-1) + bias[tokens]
        return chosen - linear_logsumexp(x, weight, bias)


def different_rows(hidden: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states at `index` [N], each different one once, [U, h], and where each of the N is in them.

    Episodes that pass through one place share its state: 128 of the maze have 100 for 5,000 tokens.
    """
    different, rows = torch.unique(index, return_inverse=True)
    return hidden[different], rows


class QHead(nn.Module):
    """Q(s, .) over the vocabulary: h -> ReLU(W1 h) -> W2, or the frozen token embedding as W2 (`tied`).

    Starts at the constant `initial`, so all tokens are worth the same before the first step.
    """

    weight: torch.Tensor

    def __init__(
        self, hidden: int, vocab: int, initial: float = 0.0, tied: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(hidden, hidden), nn.ReLU()]
        if tied is not None:
            layers.append(_zero(nn.Linear(hidden, hidden)))
        self.features = nn.Sequential(*layers)
        if tied is None:
            self.weight = nn.Parameter(torch.zeros(vocab, hidden))
        else:
            self.register_buffer("weight", tied.detach().float().clone())
        self.bias = nn.Parameter(torch.full((vocab,), float(initial)))

    def forward(
        self, hidden: torch.Tensor, tokens: torch.Tensor, chunk: int = 0, rows: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Q of the given tokens: [N, h], [N] -> ([N],), and with `chunk` > 0 the log-sum-exp, ([N], [N]).

        With `rows` [N] the state of token i is row `rows[i]` of `hidden` [U, h].
        """
        x = self.features(hidden.float())
        lse = linear_logsumexp(x, self.weight, self.bias, chunk) if chunk else None
        if rows is not None:
            x, lse = x[rows], None if lse is None else lse[rows]
        q = (x * self.weight[tokens]).sum(-1) + self.bias[tokens]
        return (q,) if lse is None else (q, lse)

    def all(self, hidden: torch.Tensor) -> torch.Tensor:
        """Q of every token: [N, h] -> [N, V]; for decoding, on the last position alone."""
        return F.linear(self.features(hidden.float()), self.weight, self.bias)


class ValueHead(nn.Module):
    """V(s): h -> ReLU(W1 h) -> 1, starting at the constant `initial`."""

    def __init__(self, hidden: int, initial: float = 0.0) -> None:
        super().__init__()
        last = _zero(nn.Linear(hidden, 1))
        nn.init.constant_(last.bias, float(initial))
        self.net = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), last)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, h] -> [N]."""
        out: torch.Tensor = self.net(hidden.float())
        return out.squeeze(-1)


def hidden_states(trunk: nn.Module, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Last hidden states after the final layer norm, flat: [B, T] -> [B*T, h].

    Rows begin at position 0 and are padded on the right. A trunk that `run_in_bf16` marked computes in
    bfloat16, whatever its weights are; one with gradient checkpointing recomputes its layers.
    """
    attention = None if bool(mask.all()) else mask.long()
    in_bf16 = getattr(trunk, "runs_in_bf16", False)
    with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=in_bf16), _recomputing(trunk):
        output = trunk(input_ids=input_ids, attention_mask=attention, use_cache=False)
    hidden: torch.Tensor = output.last_hidden_state
    return hidden.reshape(-1, hidden.shape[-1])


def run_in_bf16(trunk: Any) -> None:
    """Have `hidden_states` run the trunk, and every copy made of it from now on, in bfloat16."""
    trunk.runs_in_bf16 = True


@contextmanager
def _recomputing(trunk: nn.Module) -> Iterator[None]:
    """Let layers be recomputed that are in evaluation mode: transformers asks for training mode.

    Most of our algorithms learn in evaluation mode, which is without dropout. A layer's own flag decides
    nothing else: dropout is a module below it.
    """
    layers = [m for m in trunk.modules() if getattr(m, "gradient_checkpointing", False) and not m.training]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def copy_learnt(module: ModuleT) -> ModuleT:
    """A copy with parameters of its own (float32) for those that learn; it shares the frozen ones.

    So a trunk with adapters is copied without the weights under them.
    """
    shared = {id(p): p for p in module.parameters() if not p.requires_grad}
    result = copy.deepcopy(module, shared)
    for parameter in result.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return result


@torch.no_grad()
def polyak_(targets: Iterable[nn.Parameter], online: Iterable[nn.Parameter], rate: float) -> None:
    """target <- (1 - rate) target + rate online, in place, where the online one learns.

    Under ZeRO-3 a parameter is a placeholder and its shard is `ds_tensor`; online and target shards
    are cut alike, so no communication is needed.
    """
    pairs = [(_storage(t), _storage(o)) for t, o in zip(targets, online, strict=True) if o.requires_grad]
    if pairs:
        torch._foreach_lerp_([t for t, _ in pairs], [o for _, o in pairs], rate)


def _storage(parameter: nn.Parameter) -> torch.Tensor:
    shard: torch.Tensor = getattr(parameter, "ds_tensor", parameter.data)
    if shard.numel() != getattr(shard, "ds_numel", shard.numel()):
        raise RuntimeError("optimizer.offload_param: nvme has weights on disk, where no target can follow")
    return shard


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
