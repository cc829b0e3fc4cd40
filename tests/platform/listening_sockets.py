"""Start Ray as a command of ours does by default, with an actor in it, and print who listens where.

One line of JSON: [program, address, port] of each listening socket of this process and all below it.
"""

import json
import os

import psutil

from lmrl_ray.cluster import ensure_ray
from lmrl_ray.config import ResourcesConfig


class Actor:
    def answer(self) -> int:
        return os.getpid()


def main() -> None:
    ray = ensure_ray(ResourcesConfig(rollout_actors=1))
    actor = ray.remote(Actor).remote()
    ray.get(actor.answer.remote())
    own = psutil.Process()
    found = [
        (process.name(), connection.laddr.ip, connection.laddr.port)
        for process in [own, *own.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    print(json.dumps(found))
    ray.shutdown()


if __name__ == "__main__":
    main()
