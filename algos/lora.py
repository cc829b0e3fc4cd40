"""LoRA: a frozen language model, and small matrices beside its own that learn (Hu et al. 2021), by `peft`.

The frozen weights are there once: what copies a trunk (values, targets) copies its adapters alone
(`networks.copy_learnt`). What is saved for rollouts holds no adapters: they are added to the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import Field
from torch import nn

from algos.settings import Settings


class LoraError(ValueError):
    """Adapters cannot be added to a model."""


class LoraSettings(Settings):
    r: int = Field(16, ge=1, description="rank of an adapter")
    alpha: float = Field(32.0, gt=0, description="an adapter counts alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="of an adapter's input")
    target_modules: tuple[str, ...] | None = Field(
        None, description="names of the layers that get one; None for all linear ones but the output layer"
    )


def add_adapters(model: Any, settings: LoraSettings, *, base_in_bf16: bool = False) -> None:
    """Freeze a transformers model and put adapters into it, which change nothing as yet.

    With `base_in_bf16` the matrices under the adapters are stored so; the rest stays in float32.
    Raises LoraError when `peft` is not installed, or `target_modules` are not in the model or name its
    output layer, whose weight the losses read beside any adapter (`networks.TokenLogProb`).
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise LoraError("model.lora: peft is not installed; pip install 'lmrl-ray[lora]'") from error
    targets = "all-linear" if settings.target_modules is None else list(settings.target_modules)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),  # GPT-2's linear layer
    )
    output = model.get_output_embeddings()
    inside = (name for name, module in model.named_modules() if _is_matrix(module) and module is not output)
    takes = (
        f"model.lora.target_modules: found {targets!r}, but {type(model).__name__} takes adapters in "
        f"{', '.join(sorted({name.rpartition('.')[2] for name in inside}))}"
    )
    names = [name for name, _ in model.named_modules()]
    for target in settings.target_modules or ():  # peft is content when one of them is there
        if not any(f".{name}".endswith(f".{target}") for name in names):
            raise LoraError(f"{takes} (there is no {target!r})")
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise LoraError(f"{takes} ({str(error).splitlines()[0]})") from error
    if has_adapters(model.get_output_embeddings()):
        raise LoraError(f"{takes} (none in the output layer, whose weight the losses read as it is)")
    if base_in_bf16:
        for layer in _adapted(model).values():
            layer.base_layer.weight.data = layer.base_layer.weight.data.bfloat16()


@torch.no_grad()
def merged_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """`state_dict` of the same module without adapters: they are added to the weights, in float32.

    The sums are in main memory: beside the model a GPU may have no room for them.
    """
    state = module.state_dict()
    for name, layer in _adapted(module).items():
        weight = state.pop(f"{name}.base_layer.weight").cpu().float()
        state[f"{name}.weight"] = weight + layer.get_delta_weight("default").float().cpu()
        if f"{name}.base_layer.bias" in state:
            state[f"{name}.bias"] = state.pop(f"{name}.base_layer.bias")
    return {name: tensor for name, tensor in state.items() if ".lora_" not in name}


@contextmanager
def without_adapters(module: nn.Module) -> Iterator[None]:
    """Inside, the module computes what it did before it got adapters (without gradients)."""
    layers = list(_adapted(module).values())
    # `enable_adapters(False)` of peft would also freeze them.
    for layer in layers:
        layer._disable_adapters = True
    try:
        with torch.no_grad():
            yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def has_adapters(module: nn.Module) -> bool:
    return bool(_adapted(module))


def _adapted(module: nn.Module) -> dict[str, Any]:
    """The layers with an adapter, by name; known by what they can do, so that `peft` need not be there."""
    return {name: m for name, m in module.named_modules() if hasattr(m, "get_delta_weight")}


def _is_matrix(module: nn.Module) -> bool:
    return type(module).__name__ in ("Linear", "Conv1D")
