"""The cluster of the tests: on hosts made of namespaces, or, said loudly, on this machine alone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hosts import why_forbidden
from launched import LaunchedCluster
from one_machine import OneMachineCluster
from under_test import ClusterUnderTest

FORCED = "LMRL_TEST_NO_NAMESPACES"
ON_HOSTS, ON_ONE_MACHINE = "on-hosts", "NOT-ON-HOSTS-no-namespaces-here"
_FORBIDDEN = f"{FORCED}=1" if os.environ.get(FORCED) == "1" else why_forbidden()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cluster" in metafunc.fixturenames:
        place = ON_HOSTS if _FORBIDDEN is None else ON_ONE_MACHINE
        metafunc.parametrize("cluster", [place], indirect=True, scope="module")


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[ClusterUnderTest]:
    kind = LaunchedCluster if request.param == ON_HOSTS else OneMachineCluster
    with kind(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _FORBIDDEN is not None:
        terminalreporter.section("WARNING: not proved on hosts", red=True, bold=True)
        terminalreporter.line(
            f"This machine forbids namespaces ({_FORBIDDEN}), so the jobs ran on ray.cluster_utils.Cluster: "
            f"`ray up`, `ray down`, SSH and cluster.local.yaml were NOT tested."
        )
