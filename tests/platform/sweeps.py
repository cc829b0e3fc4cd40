"""What the tests of sweeps share."""

from __future__ import annotations

from typing import Any

STEPS = 4


def runs_of(client: Any) -> dict[str, Any]:
    """MLflow's runs by name."""
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len({r.info.run_name for r in found}) == len(found)
    return {r.info.run_name: r for r in found}
