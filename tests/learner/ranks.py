"""Real ranks of a gloo process group that take jobs one after the other (a start costs seconds)."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

from engine_jobs import Job, Outcome, run

_TIMEOUT_S = 120


class Ranks:
    """A context manager: `run(job)` runs it on all ranks and returns what each had to say."""

    def __init__(self, world: int, store: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for rank in range(world):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, world, str(store), theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def run(self, job: Job) -> list[Outcome]:
        for pipe in self._pipes:
            pipe.send(job)
        answers = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(_TIMEOUT_S), f"rank {rank} does not answer"
            answers.append(pipe.recv())
        failures = [a for a in answers if isinstance(a, str)]
        assert not failures, "\n".join(failures)
        return answers


def _serve(rank: int, world: int, store: str, pipe: Connection) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": "0"}
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, world),
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=_TIMEOUT_S / 2),
    )
    while True:
        job = pipe.recv()
        try:
            pipe.send(run(job, rank, world))
        except Exception:
            pipe.send(f"rank {rank}: {traceback.format_exc()}")
