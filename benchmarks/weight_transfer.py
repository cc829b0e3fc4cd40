"""Weights from a learner to 2 and to 4 rollout actors: `python benchmarks/weight_transfer.py`.

100 MB of float32 in 148 tensors, from the learner's tensors into tensors of each actor, all on one machine:

    put        one `ray.put` of numpy arrays; the actors read the same copy of the object store   (ours)
    broadcast  a gloo broadcast of one flat tensor, by Ray's collective library
    direct     Ray's direct transport: tensors go from process to process by gloo

The three take turns; a first round warms up and does not count, and each actor's weights are compared with
the learner's after each. MB/s are those that arrive, in all actors together.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import ray
import torch
from ray.experimental.collective import create_collective_group, destroy_collective_group
from ray.util import collective

from benchmarks.common import Figure, arguments, report, speedup
from lmrl_ray.cluster import ensure_ray
from lmrl_ray.config import ResourcesConfig

ACTORS = (2, 4)
TENSORS = 148
SIZE = 100_000_000 // 4 // TENSORS
REPETITIONS = 5
Tensors = list[torch.Tensor]


class _Holder:
    """A process with weights."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.weights: Tensors = [torch.zeros(SIZE) for _ in range(TENSORS)]

    def checksum(self) -> float:
        return float(sum(w.double().sum() for w in self.weights))


class Learner(_Holder):
    def step(self) -> None:
        for weights in self.weights:
            weights.normal_()

    def put(self) -> list[Any]:
        """In a list, so that the actors are given the reference and Ray does not copy the value for them."""
        return [ray.put([w.numpy() for w in self.weights])]

    def broadcast(self, group: str) -> None:
        collective.broadcast(torch.cat(self.weights), 0, group)

    @ray.method(tensor_transport="gloo")  # type: ignore[untyped-decorator]
    def direct(self) -> Tensors:
        return self.weights


class Receiver(_Holder):
    def put(self, refs: list[Any]) -> None:
        self._take([torch.from_numpy(a) for a in ray.get(refs[0])])

    def broadcast(self, group: str) -> None:
        flat = torch.empty(SIZE * TENSORS)
        collective.broadcast(flat, 0, group)
        self._take(list(flat.split(SIZE)))

    def direct(self, tensors: Tensors) -> None:
        self._take(tensors)

    def _take(self, tensors: Tensors) -> None:
        for mine, theirs in zip(self.weights, tensors, strict=True):
            mine.copy_(theirs)


def put(learner: Any, receivers: list[Any], group: str) -> None:
    refs = learner.put.remote()
    ray.get([r.put.remote(refs) for r in receivers])


def broadcast(learner: Any, receivers: list[Any], group: str) -> None:
    ray.get([actor.broadcast.remote(group) for actor in (learner, *receivers)])


def direct(learner: Any, receivers: list[Any], group: str) -> None:
    tensors = learner.direct.remote()
    ray.get([r.direct.remote(tensors) for r in receivers])


WAYS: tuple[Callable[[Any, list[Any], str], None], ...] = (put, broadcast, direct)


def measure(count: int) -> dict[str, list[float]]:
    """Seconds of each way to `count` actors, in turns. A process can be in one gloo group in its life."""
    share = {"num_cpus": 0.5}
    learner = ray.remote(**share)(Learner).remote()
    kind = ray.remote(enable_tensor_transport=True, **share)(Receiver)
    receivers = [kind.remote() for _ in range(count)]
    group = create_collective_group([learner, *receivers], backend="gloo")
    seconds: dict[str, list[float]] = {way.__name__: [] for way in WAYS}
    for _ in range(1 + REPETITIONS):
        for way in WAYS:
            ray.get(learner.step.remote())
            start = time.perf_counter()
            way(learner, receivers, group.name)
            seconds[way.__name__].append(time.perf_counter() - start)
            sums = ray.get([actor.checksum.remote() for actor in (learner, *receivers)])
            if len(set(sums)) > 1:
                raise RuntimeError(f"{way.__name__}: the actors' weights are not the learner's: {sums}")
    destroy_collective_group(group)
    for actor in (learner, *receivers):
        ray.kill(actor)
    return {name: times[1:] for name, times in seconds.items()}


def main(argv: list[str]) -> int:
    check = arguments(__doc__).parse_args(argv).check
    ensure_ray(ResourcesConfig(rollout_actors=max(ACTORS)))
    megabytes = SIZE * TENSORS * 4 / 1e6
    figures = []
    print(f"{'MB/s to':<10}" + "".join(f"{way.__name__:>12}" for way in WAYS))
    for count in ACTORS:
        seconds = measure(count)
        rates = {name: count * megabytes / statistics.median(times) for name, times in seconds.items()}
        print(f"{count:>2} actors " + "".join(f"{rates[way.__name__]:>12.0f}" for way in WAYS))
        for other in ("broadcast", "direct"):
            figures.append(
                Figure(
                    f"weights to {count} actors, put against {other}",
                    f"{rates['put']:.0f} MB/s",
                    f"{rates[other]:.0f} MB/s",
                    speedup(seconds["put"], seconds[other]),
                    claim=1.0,
                    note=f"{megabytes:.0f} MB by gloo",
                )
            )
    return report(figures, check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
