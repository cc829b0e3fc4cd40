"""Large models: what a run asks for beyond the defaults, checked before it begins and set up in a worker.

Options: `model.bf16`, `model.gradient_checkpointing`, `model.compile`, `model.lora`, `optimizer.offload_*`;
docs/scaling.md says what each does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from algos import models
from algos.lora import add_adapters
from algos.networks import run_in_bf16
from lmrl_ray.config import ConfigError, ModelConfig, RunConfig


def check_machine(config: RunConfig) -> None:
    """ConfigError for what cannot work where the learner will run; before anything is written."""
    backend = config.model.compile
    if backend is not None:
        known = sorted([*torch.compiler.list_backends(), "eager", "aot_eager"])
        if backend not in known:
            raise ConfigError(f"model.compile: found {backend!r}, known backends: {', '.join(known)}")
    if "nvme" in (config.optimizer.offload_optimizer, config.optimizer.offload_param) and _on_cpu(config):
        raise ConfigError(
            "optimizer: offloading to nvme is DeepSpeed's way of making room on a GPU, and the learner runs "
            "on a CPU; use none or cpu, or give it GPUs (resources.workers and resources.gpus_per_worker)"
        )


def check_model(start: str, config: ModelConfig) -> None:
    """ModelError, LoraError or TokenizerError when a run cannot start from the model, or so."""
    folder = Path(start) / "policy"
    model = folder if folder.is_dir() else start
    models.check(model)
    if config.lora is not None or config.gradient_checkpointing:
        _prepare(models.architecture(model), config)


def prepare(language_model: models.LanguageModel, config: ModelConfig) -> None:
    """Set the language model up as configured, before an algorithm makes copies of its trunk."""
    _prepare(language_model.model, config)
    if config.bf16:
        run_in_bf16(language_model.trunk)


def compile_trunks(algorithm: nn.Module, config: ModelConfig) -> None:
    """Have the transformers trunks inside of `algorithm` compiled at their first use; shapes may vary."""
    if config.compile is None:
        return
    # Set for the sake of DeepSpeed's import, which is over; it would make this do nothing.
    os.environ.pop("TORCHDYNAMO_DISABLE", None)
    import torch._dynamo
    from transformers import PreTrainedModel

    torch._dynamo.config.disable = False
    for module in algorithm.modules():
        if isinstance(module, PreTrainedModel) and module.base_model is module:
            module.compile(backend=config.compile, dynamic=True)


def _prepare(model: Any, config: ModelConfig) -> None:
    if config.lora is not None:
        add_adapters(model, config.lora, base_in_bf16=config.bf16)
    if config.gradient_checkpointing:
        models.recompute_layers(model)


def _on_cpu(config: RunConfig) -> bool:
    if config.resources.workers:
        return config.resources.gpus_per_worker == 0
    return not torch.cuda.is_available()
