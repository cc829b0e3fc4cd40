"""A run with elastic workers on a cluster that begins with room for one and then gets a node more.

Arguments: the configuration as YAML, the folder of runs, the file where the algorithm notes its steps.
"""

import os
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import ray
import yaml
from ray.cluster_utils import Cluster

from envs import registry
from lmrl_ray.config import parse
from lmrl_ray.plugins import load_plugins
from lmrl_ray.report.progress import Display
from lmrl_ray.train import Hooks, train

config_file, out, steps = (Path(p) for p in sys.argv[1:])
values = yaml.safe_load(config_file.read_text())
load_plugins(values["plugins"])
config = parse(values)
registry._TASKS[config.task] = replace(registry.get_task(config.task), quick_episodes=2)

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free.getsockname()[1]}
cluster = Cluster(initialize_head=True, head_node_args=head)
cluster.add_node(num_cpus=1, resources={"learner": 1})
os.environ["RAY_ADDRESS"] = cluster.address
errors = []


def work() -> None:
    try:
        train(config, out, Hooks(Display(quiet=True)), name="elastic")
    except BaseException as error:
        errors.append(error)
        raise


run = threading.Thread(target=work)
run.start()
while run.is_alive() and not steps.exists():
    time.sleep(0.2)
# In this thread: a node is started with signal handlers.
cluster.add_node(num_cpus=1, resources={"learner": 1})
run.join()
ray.shutdown()
cluster.shutdown()
sys.exit(bool(errors))
