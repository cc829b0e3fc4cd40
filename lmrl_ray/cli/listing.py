"""What `lmrl tasks` and `lmrl algorithms` list."""

from __future__ import annotations

from typing import Any

from envs.registry import get_task, task_ids

UNTRAINED: dict[str, dict[str, Any]] = {
    "api:MODEL": {
        "name": "prompted language model: lmrl eval api:MODEL TASK",
        "kind": "prompted",
        "source": "LMRL-Gym section 5 (prompted GPT-4)",
    },
    "chai": {
        "name": "CHAI: lmrl eval RUN TASK --decoding propose, of a run of mc, ilql or cql",
        "kind": "decoding",
        "source": "Verma et al. 2022 (CHAI)",
    },
}
"""What plays without a training of its own."""


def task_rows() -> list[dict[str, Any]]:
    rows = []
    for name in task_ids():
        spec = get_task(name)
        best = max(((r.raw, a) for a, r in spec.paper.items() if r.raw is not None), default=(None, ""))
        rows.append(
            {
                "id": spec.id,
                "family": spec.family,
                "observation": spec.observation,
                "horizon": spec.horizon,
                "score_range": [spec.scale.minimum, spec.scale.maximum],
                "simulator": spec.simulator,
                "published_best": None if best[0] is None else f"{best[0]:g} ({best[1]})",
            }
        )
    return rows


def algorithm_rows() -> list[dict[str, Any]]:
    """Those that are trained, and the two ways to play that are not (`UNTRAINED`)."""
    from algos.base import algorithm_ids, get_algorithm
    from lmrl_ray.symbolic.config import ALGORITHMS as SYMBOLIC

    rows = []
    for name in algorithm_ids():
        algorithm = get_algorithm(name)
        kind = "online" if algorithm.online else "offline"
        rows.append({"id": name, "name": algorithm.title, "kind": kind, "source": algorithm.source})
    for name, symbolic in SYMBOLIC.items():
        kind = "online" if symbolic.online else "offline"
        rows.append({"id": name, "name": symbolic.title, "kind": kind, "source": symbolic.source})
    return rows + [{"id": name, **row} for name, row in UNTRAINED.items()]
