"""A head without CPUs, a learner node, and a simulator node that comes late; where actors land, as JSON."""

import json
import os
import threading
import time

import ray
from ray.cluster_utils import Cluster

from lmrl_ray.actors import ManagedActor, ManagedActors
from lmrl_ray.cluster import ensure_ray, learner_bundle, share_of
from lmrl_ray.config import ConfigError, ResourcesConfig

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=3, resources={"learner": 1})
os.environ["RAY_ADDRESS"] = cluster.address

asked = ResourcesConfig(workers=1, rollout_actors=2, learner_resource="learner", actor_resource="simulator")
found = {}
try:
    ensure_ray(asked)
except ConfigError as error:
    found["refused"] = str(error)

waiting = threading.Thread(
    target=lambda: found.update(waited=ensure_ray(asked.model_copy(update={"wait_for_nodes_s": 60})) is ray)
)
waiting.start()
time.sleep(2)
found["waits"] = waiting.is_alive()
cluster.add_node(num_cpus=3, resources={"simulator": 1})
waiting.join()


class Where(ManagedActor):
    def play(self):
        return ray.get_runtime_context().get_node_id()


kinds = {
    n["NodeID"]: next((k for k in ("learner", "simulator") if k in n["Resources"]), "head")
    for n in ray.nodes()
}
actors = ManagedActors(ray, Where, 2, title="actor", timeout_s=60, custom=share_of(asked.actor_resource))
found["actors"] = [kinds[node] for _, node in actors.play([{}] * 6)]
bundle = learner_bundle(asked)
task = ray.remote(lambda: ray.get_runtime_context().get_node_id())
learner = task.options(num_cpus=bundle.pop("CPU"), resources=bundle).remote()
found["learner"] = kinds[ray.get(learner, timeout=60)]
actors.close()
print(json.dumps(found))
ray.shutdown()
cluster.shutdown()
