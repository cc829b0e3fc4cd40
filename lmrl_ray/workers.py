"""Learner workers under Ray Train: the same loop in every worker, restarted when one is lost."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lmrl_ray import checkpoint
from lmrl_ray.cluster import ensure_ray, learner_bundle
from lmrl_ray.config import RunConfig
from lmrl_ray.learner import LearnerContext, LearnerJob, checkpoint_name, learn


class WorkerError(RuntimeError):
    """The learner workers failed more often than they may be restarted."""


class RayTrainContext(LearnerContext):
    """A worker of Ray Train; its reports are barriers that carry rank 0's checkpoint to the storage."""

    def __init__(self) -> None:
        import ray.train

        self._train = ray.train
        self.rank = ray.train.get_context().get_world_rank()
        self.world_size = ray.train.get_context().get_world_size()

    def save(self, write: Callable[[Path], None], step: int, metrics: dict[str, float]) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "checkpoint"
            write(folder)
            mine = self._train.Checkpoint.from_directory(str(folder)) if self.rank == 0 else None
            self._train.report(
                {**metrics, "step": step}, checkpoint=mine, checkpoint_dir_name=checkpoint_name(step)
            )


def learn_on_workers(job: LearnerJob, config: RunConfig, callbacks: tuple[Any, ...] = ()) -> None:
    """Run the loop on `resources.workers` workers. WorkerError when they cannot be kept running."""
    resources = config.resources
    ensure_ray(resources)
    import ray
    from ray import train
    from ray.train.torch import TorchTrainer

    from lmrl_ray.interfaces import OwnInterfaceConfig

    _forget_what_is_gone(job.checkpoints)
    storage, name = job.checkpoints.parent, job.checkpoints.name
    gpu = resources.gpus_per_worker > 0
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        torch_config=OwnInterfaceConfig("nccl" if gpu else "gloo", timeout_s=int(resources.timeout_s)),
        scaling_config=train.ScalingConfig(
            num_workers=resources.workers,
            elastic_resize_monitor_interval_s=resources.resize_every_s,
            use_gpu=gpu,
            resources_per_worker=learner_bundle(resources),
        ),
        run_config=train.RunConfig(
            name=name,
            storage_path=str(storage.resolve()),
            checkpoint_config=train.CheckpointConfig(num_to_keep=config.training.keep_checkpoints),
            failure_config=train.FailureConfig(max_failures=resources.max_failures),
            worker_runtime_env={"env_vars": _environment()},
            logging_config=train.LoggingConfig(log_level="ERROR"),
            callbacks=list(callbacks),
        ),
    )
    controllers: list[Any] = []
    # Ray Train's own handler of Ctrl-C ends the process as if it had failed, and stays after the training.
    setattr(trainer, "_register_sigint_handler", controllers.append)  # noqa: B010
    try:
        trainer.fit()
    except KeyboardInterrupt:
        for controller in controllers:
            with suppress(ray.exceptions.RayActorError):  # so it tells that it is gone
                ray.get(controller.abort.remote())
        raise
    except train.TrainingFailedError as error:
        raise WorkerError(_cause(error)) from error


def _forget_what_is_gone(checkpoints: Path) -> None:
    """Ray begins no run of which it remembers a checkpoint that is gone: a resume in one process, or its
    owner, has removed it. Our loop finds the last one without Ray.

    Damaged ones that training goes back behind go, too: Ray would count their names twice, and prune the
    new ones in their place.
    """
    checkpoint.drop_later(checkpoints, checkpoint.latest(checkpoints))
    memory = checkpoints / "checkpoint_manager_snapshot.json"
    if memory.is_file():
        known = json.loads(memory.read_text())["checkpoint_results"]
        if not all((checkpoints / entry["checkpoint_dir_name"]).is_dir() for entry in known):
            memory.unlink()


def _worker(config: dict[str, Any]) -> None:
    learn(config["job"], RayTrainContext())


def _environment() -> dict[str, str]:
    """What each worker process needs before it imports DeepSpeed."""
    variables = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHDYNAMO_DISABLE": "1",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if name in os.environ:
            variables[name] = os.environ[name]
    return variables


def _cause(error: Exception) -> str:
    """What the worker said, without Ray's frames."""
    reasons = getattr(error, "worker_failures", None) or {}
    first = next(iter(reasons.values()), error)
    lines = [line for line in str(first).strip().splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)
