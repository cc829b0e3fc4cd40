"""Which network interface gloo listens on: the one of Ray's address of the node.

Left to itself it takes the address that the host's name resolves to, and Debian resolves a host's own name to
127.0.1.1: no other host gets through to that.
"""

from __future__ import annotations

import os
from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

_VARIABLE = "GLOO_SOCKET_IFNAME"


class OwnInterface(_TorchBackend):  # type: ignore[misc]
    """Ray Train's backend, after each worker has named its interface."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_name_interface)
        super().on_start(worker_group, backend_config)


class OwnInterfaceConfig(TorchConfig):  # type: ignore[misc]
    """`TorchConfig` for nodes whose names do not resolve, or to loopback."""

    @property
    def backend_cls(self) -> type[OwnInterface]:
        return OwnInterface


def interface_of(address: str) -> str | None:
    """The name of this machine's interface that has the address."""
    import psutil

    interfaces = psutil.net_if_addrs().items()
    return next((name for name, found in interfaces if any(a.address == address for a in found)), None)


def _name_interface() -> None:
    import ray

    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault(_VARIABLE, name)
