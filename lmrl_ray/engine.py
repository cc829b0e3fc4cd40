"""Engines: one optimiser step of an algorithm, on one process or sharded over many.

    TorchEngine      plain torch, one process
    DeepSpeedEngine  ZeRO 0-3 over all workers of the process group

Gradients are of the mean over *all* action tokens of the step, whatever the number of workers and
micro-batches: each micro-batch is divided by the global count, and the engine's averaging undone.

The optimiser's state is saved and loaded by parameter name, whole, so that a run resumes on any
number of workers, at any ZeRO stage, and from a file that holds tensors alone.
"""

from __future__ import annotations

import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import HashStore

from algos.base import Algorithm, Loss
from algos.batch import PackedBatch, empty_batch
from lmrl_ray.config import OptimizerConfig

OptimizerState = dict[str, torch.Tensor]
"""`step` (int64), and `exp_avg/NAME` and `exp_avg_sq/NAME` for each trainable parameter."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Engine(ABC):
    """Runs an algorithm's loss, backward pass and optimiser on this worker's share of a step."""

    rank = 0
    world_size = 1

    def __init__(self, algorithm: Algorithm, config: OptimizerConfig) -> None:
        self.algorithm = algorithm
        self.config = config
        self.device = worker_device()

    def train_step(self, batches: Sequence[PackedBatch], lr: float) -> dict[str, float]:
        """One optimiser step on this worker's micro-batches. Returns the metrics of the whole step.

        All workers must call it together; one that has no batch passes none.
        """
        count, most = int(self.sum(torch.tensor(sum(b.num_actions for b in batches)))), self.max(len(batches))
        if count == 0:
            return {"actions": 0.0}
        work = [*batches, *[empty_batch()] * (most - len(batches))]
        totals: dict[str, torch.Tensor] = {}
        for i, batch in enumerate(work):
            loss = self._forward(batch.normalized_by(count).to(self.device))
            self._backward(loss.value * self.world_size, last=i == len(work) - 1)
            for name, value in loss.metrics.items():
                totals[name] = totals.get(name, torch.zeros((), device=self.device)) + value
        norm = self._apply(lr)
        self.algorithm.after_step()
        metrics = dict(zip(totals, self.sum(torch.stack(list(totals.values()))).tolist(), strict=True))
        return {**metrics, "grad_norm": norm, "lr": lr, "actions": float(count)}

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Over all workers, element by element. All call it together."""
        return values

    def max(self, value: int) -> int:
        """The most that any worker has. All call it together."""
        return value

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """[n, ...] of each worker, with an n of its own, one after the other. All call it together."""
        return values

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, the algorithm's modules hold their whole weights. All workers enter together."""
        yield

    @abstractmethod
    def optimizer_state(self) -> OptimizerState:
        """The whole state, the same on all workers (who call it together)."""

    @abstractmethod
    def load_optimizer_state(self, state: OptimizerState) -> None:
        """Take over `optimizer_state()`, of any engine."""

    @abstractmethod
    def _forward(self, batch: PackedBatch) -> Loss: ...

    @abstractmethod
    def _backward(self, loss: torch.Tensor, last: bool) -> None: ...

    @abstractmethod
    def _apply(self, lr: float) -> float:
        """Clip, step, zero the gradients; returns the norm before clipping."""

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.algorithm.named_parameters() if p.requires_grad}


class TorchEngine(Engine):
    """One process, plain torch."""

    def __init__(self, algorithm: Algorithm, config: OptimizerConfig) -> None:
        super().__init__(algorithm.to(worker_device()), config)
        self._optimizer = make_optimizer(self._trainable(), config, algorithm.lr_scale)

    def optimizer_state(self) -> OptimizerState:
        return _plain_state(self._optimizer, self._trainable())

    def load_optimizer_state(self, state: OptimizerState) -> None:
        _load_plain_state(self._optimizer, self._trainable(), state)

    def _forward(self, batch: PackedBatch) -> Loss:
        loss: Loss = self.algorithm(batch)
        return loss

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def _apply(self, lr: float) -> float:
        set_lr(self._optimizer, lr)
        norm = nn.utils.clip_grad_norm_(self._trainable().values(), self.config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(norm)


class DeepSpeedEngine(Engine):
    """ZeRO over the workers of the default process group (made here when there is none)."""

    def __init__(self, algorithm: Algorithm, config: OptimizerConfig) -> None:
        super().__init__(algorithm, config)
        deepspeed = import_deepspeed()
        self._safe = deepspeed.utils
        self._stage = config.zero_stage
        self._gather = deepspeed.zero.GatheredParameters
        ensure_process_group()
        deepspeed.init_distributed(dist_backend=dist.get_backend(), verbose=False)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._engine, *_ = deepspeed.initialize(
            model=algorithm.to(self.device),
            optimizer=make_optimizer(self._trainable(), config, algorithm.lr_scale),
            config=_deepspeed_config(config, sum(p.numel() for p in self._trainable().values())),
        )

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        if self.world_size == 1:
            return values
        shared = values.to(self.device)
        dist.all_reduce(shared)
        return shared.to(values.device)

    def max(self, value: int) -> int:
        most = torch.tensor(value, device=self.device)
        if self.world_size > 1:
            dist.all_reduce(most, op=dist.ReduceOp.MAX)
        return int(most)

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        if self.world_size == 1:
            return values
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, values)
        return torch.cat(parts)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        with self._gather(list(self.algorithm.parameters()), enabled=self._stage == 3):
            yield

    def optimizer_state(self) -> OptimizerState:
        if self._stage == 0:
            return _plain_state(self._base_optimizer(), self._trainable())
        states = [s for s in self._base_optimizer().state.values() if "step" in s]
        if not states:
            return {"step": torch.tensor(0)}
        result = {"step": torch.as_tensor(int(states[0]["step"]))}
        self._link_moments()
        for name, parameter in self._trainable().items():
            for moment in _MOMENTS:
                full = self._safe.safe_get_full_optimizer_state(parameter, moment)
                result[f"{moment}/{name}"] = full.detach().cpu().reshape(_shape(parameter)).clone()
        return result

    def load_optimizer_state(self, state: OptimizerState) -> None:
        if self._stage == 0:
            _load_plain_state(self._base_optimizer(), self._trainable(), state)
            return
        if int(state["step"]) == 0:
            return
        self._allocate_moments(int(state["step"]))
        for name, parameter in self._trainable().items():
            for moment in _MOMENTS:
                value = state[f"{moment}/{name}"].to(self.device)
                if self._stage == 3:
                    self._safe.safe_set_local_optimizer_state(
                        parameter, self._shard(parameter, value), moment
                    )
                else:
                    self._safe.safe_set_full_optimizer_state(parameter, value, moment)

    def _forward(self, batch: PackedBatch) -> Loss:
        loss: Loss = self._engine(batch)
        return loss

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss)

    def _apply(self, lr: float) -> float:
        set_lr(self._base_optimizer(), lr)
        if self._stage == 0:  # DeepSpeed would clip alike, but keep the norm to itself
            norm = nn.utils.clip_grad_norm_(self._trainable().values(), self.config.max_grad_norm)
            self._engine.step()
            return float(norm)
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def _base_optimizer(self) -> torch.optim.Optimizer:
        wrapped = self._engine.optimizer
        optimizer: torch.optim.Optimizer = wrapped.optimizer if self._stage else wrapped
        return optimizer

    def _allocate_moments(self, step: int) -> None:
        """Give the flat partitions the state that AdamW would make at its first step."""
        zero, optimizer = self._engine.optimizer, self._base_optimizer()
        flat = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        for partition in flat:
            optimizer.state[partition] = {
                "step": torch.tensor(float(step)),
                **{moment: torch.zeros_like(partition) for moment in _MOMENTS},
            }
        self._link_moments()

    def _link_moments(self) -> None:
        """Let ZeRO 1 and 2 find each parameter's moments in the flat partitions.

        DeepSpeed does so once, after the first group's first step, when the second group has none yet.
        """
        if self._stage != 3:
            zero = self._engine.optimizer
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    def _shard(self, parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        """This worker's part of a whole tensor under ZeRO-3, which pads the last shard."""
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        padded = value.new_zeros(size * self.world_size)
        padded[: value.numel()] = value.flatten()
        return padded[self.rank * size : (self.rank + 1) * size]


def make_engine(algorithm: Algorithm, config: OptimizerConfig) -> Engine:
    """The engine that the configuration names."""
    return (
        DeepSpeedEngine(algorithm, config) if config.engine == "deepspeed" else TorchEngine(algorithm, config)
    )


def make_optimizer(
    parameters: dict[str, nn.Parameter], config: OptimizerConfig, lr_scale: Callable[[str], float]
) -> torch.optim.AdamW:
    """AdamW, with weight decay on matrices alone (no bias, no layer norm)."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault((parameter.dim() < 2, lr_scale(name)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": groups[key],
                "weight_decay": 0.0 if key[0] else config.weight_decay,
                "lr_scale": key[1],
            }
            for key in sorted(groups)
        ],
        lr=config.lr,
        betas=config.betas,
        eps=1e-8,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def worker_device() -> torch.device:
    """The GPU of this worker (LOCAL_RANK), or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def ensure_process_group() -> None:
    """A process group of one, unless a launcher made a larger one."""
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        with _on_loopback():
            dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    os.environ.setdefault("LOCAL_RANK", "0")
    os.environ.setdefault("RANK", str(dist.get_rank()))
    os.environ.setdefault("WORLD_SIZE", str(dist.get_world_size()))


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A group of one listens, too: where the machine's name leads, and that may be out into the network."""
    before = os.environ.get("GLOO_SOCKET_IFNAME")
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    os.environ["GLOO_SOCKET_IFNAME"] = loopback
    try:
        yield
    finally:
        del os.environ["GLOO_SOCKET_IFNAME"]
        if before is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = before


def import_deepspeed() -> Any:
    """DeepSpeed, without the probing, compiling and chatter of its import on a CPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    # Its Muon optimiser is compiled at import, which costs seconds and is not used.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    with _without_mlflow():
        import deepspeed

    deepspeed.utils.logger.setLevel("ERROR")
    # On a CPU this operator is compiled for a minute at the first start; gloo serves as well.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


@contextmanager
def _without_mlflow() -> Iterator[None]:
    """DeepSpeed's autotuner, not used here, would import the whole of it: a third of a worker's start."""
    if "mlflow" in sys.modules:
        yield
        return
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["mlflow"]


def _deepspeed_config(config: OptimizerConfig, trainable: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.max_grad_norm if config.zero_stage else 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        "zero_optimization": {
            "stage": config.zero_stage,
            "stage3_param_persistence_threshold": 0,
            # DeepSpeed allocates the whole bucket, 2 GB by default, however small the model.
            "reduce_bucket_size": min(500_000_000, trainable),
            **_offloads(config),
        },
    }


def _offloads(config: OptimizerConfig) -> dict[str, Any]:
    places = {"offload_optimizer": config.offload_optimizer, "offload_param": config.offload_param}
    return {
        key: {"device": place, "pin_memory": torch.cuda.is_available(), "nvme_path": config.nvme_path}
        for key, place in places.items()
        if place != "none"
    }


def _plain_state(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter]) -> OptimizerState:
    result: OptimizerState = {"step": torch.tensor(0)}
    for name, parameter in parameters.items():
        state = optimizer.state.get(parameter)
        if state:
            result["step"] = torch.as_tensor(int(state["step"]))
            result |= {f"{m}/{name}": state[m].detach().cpu().clone() for m in _MOMENTS}
    return result


def _load_plain_state(
    optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], state: OptimizerState
) -> None:
    if int(state["step"]) == 0:
        return
    for name, parameter in parameters.items():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(state["step"])),
            **{m: state[f"{m}/{name}"].to(parameter.device).clone() for m in _MOMENTS},
        }


def _shape(parameter: nn.Parameter) -> torch.Size:
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape
