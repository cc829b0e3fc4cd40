"""Fixtures that the tests share; its being here puts `tests/` on the path, for `support`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# What a person has set up for real runs is not for the tests.
for _name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
    os.environ.pop(_name, None)
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers are 15 nicer than their driver by default: on a busy machine they would hardly start.
os.environ.setdefault("RAY_worker_niceness", "0")

# The machines are shared and slow: an example that takes long is no failure, and a run is repeatable.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("lmrl", deadline=None, derandomize=True, suppress_health_check=_SLOW)
settings.load_profile("lmrl")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """The one Ray cluster of the session, with 4 logical CPUs; its users close what they start.

    With a dashboard, as a person's run has it: its state API ends the placement groups of a stopped trainer.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a process of each training
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        logging_level="ERROR",
        log_to_driver=False,
    )
    yield ray
    ray.shutdown()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of docs/reliability.md: what tests have recorded (`record_property`) as `reliability`."""
    passed = terminalreporter.getreports("passed")
    figures = [
        (report.nodeid.split("::")[-1], value)
        for report in passed
        if report.when == "call"
        for name, value in report.user_properties
        if name == "reliability"
    ]
    if figures:
        terminalreporter.section("Reliability figures")
        for test, value in figures:
            terminalreporter.line(f"{test}:\n    {value}")


@pytest.fixture(scope="session")
def fresh_mlflow_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, to be copied: making one runs seconds of migrations."""
    from lmrl_ray.mlflow_store import import_mlflow

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    import_mlflow().MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
