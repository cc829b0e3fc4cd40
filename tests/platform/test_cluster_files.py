"""The cluster files: Ray's own validator takes them, and they keep their promises of safety.

No cloud and no Kubernetes is asked. The schema of the KubeRay manifest is written here by hand after the
field reference of KubeRay 1.6: it is not the official one.
"""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCHER = ("cluster.yaml", "cluster.local.yaml")
MANIFEST = "deploy/kuberay.yaml"
SECRET = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|(?i:secret_access_key|password)\s*[:=]")


@pytest.fixture(scope="module", params=LAUNCHER)
def launched(request):
    """A launcher file as `ray up` completes it."""
    return prepared(request.param)


def prepared(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load((ROOT / name).read_text()))
    validate_config(config)
    return config


def starts(config):
    """The `ray start` of the head, and of the others."""
    head, worker = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    return [next(c for c in commands if "ray start" in c) for commands in (head, worker)]


def test_rays_validator_refuses_a_launcher_file_with_a_field_too_many():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(config | {"max_worker": 3}))


def test_every_node_starts_with_the_token_that_the_launcher_brings(launched):
    assert launched["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in c for c in launched["worker_setup_commands"])
    for command in starts(launched):
        assert "RAY_AUTH_MODE=token" in command.split("ray start")[0]


def test_hosts_of_ones_own_are_started_by_the_autoscaler_that_starts_all_of_them():
    """Ray's second one leaves out the last; `make test-cluster` shows the first at work."""
    head, _ = starts(prepared("cluster.local.yaml"))
    assert "RAY_enable_autoscaler_v2=0" in head.split("ray start")[0]


def test_the_dashboard_listens_on_loopback(launched):
    head, _ = starts(launched)
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in yaml.safe_dump(launched)


def test_every_node_writes_runs_to_the_same_shared_folder(launched):
    folders = {re.search(r"LMRL_OUT=(\S+?);", c).group(1) for c in starts(launched)}
    assert len(folders) == 1


def test_the_files_that_the_launcher_copies_are_in_the_checkout(launched):
    local = [path for path in launched["file_mounts"].values() if not path.startswith("~")]
    assert local
    assert all((ROOT / path).is_file() for path in local)


def test_simulators_and_learners_have_nodes_of_their_own_on_aws():
    types = prepared("cluster.yaml")["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["head"]["max_workers"] == 0
    assert types["learner"]["resources"]["GPU"] >= 1
    assert "GPU" not in types["simulator"]["resources"]
    assert "learner" not in types["simulator"]["resources"]
    assert "simulator" not in types["learner"]["resources"]
    for name in ("learner", "simulator"):
        assert types[name]["resources"][name] == 1
        assert types[name]["min_workers"] == 0 < types[name]["max_workers"]


def test_only_the_head_is_on_demand_and_only_it_has_rights_on_aws():
    types = prepared("cluster.yaml")["available_node_types"]
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["head"]["node_config"]["IamInstanceProfile"] == {"Name": "lmrl-ray-head"}
    for name in ("learner", "simulator"):
        assert types[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert "IamInstanceProfile" not in types[name]["node_config"]
    for node in types.values():
        # Without groups of one's own Ray makes one that opens SSH to the world.
        assert node["node_config"]["SecurityGroupIds"]
        assert node["node_config"]["SubnetIds"]
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
        assert all(d["Ebs"]["Encrypted"] for d in node["node_config"]["BlockDeviceMappings"])


def test_hosts_one_has_are_all_kept_up_and_say_what_they_are():
    config = prepared("cluster.local.yaml")
    (node,) = config["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == len(config["provider"]["worker_ips"])
    head, worker = starts(config)
    assert config["provider"]["head_ip"] in head
    assert '--resources="{\\"$KIND\\":1}"' in worker


@pytest.mark.parametrize("name", [*LAUNCHER, MANIFEST])
def test_no_credentials_are_in_the_files(name):
    assert not SECRET.search((ROOT / name).read_text())


def closed(required, **properties):
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = closed(
    ["name", "image", "resources", "securityContext"],
    name=TEXT,
    image=TEXT,
    env={"type": "array", "items": closed(["name", "value"], name=TEXT, value=TEXT)},
    resources=closed(["requests", "limits"], requests=TEXTS, limits=TEXTS),
    securityContext=closed(
        ["allowPrivilegeEscalation", "capabilities"],
        allowPrivilegeEscalation={"const": False},
        capabilities={"const": {"drop": ["ALL"]}},
    ),
    volumeMounts={"type": "array", "items": closed(["name", "mountPath"], name=TEXT, mountPath=TEXT)},
)
POD = closed(
    ["containers", "restartPolicy", "securityContext"],
    restartPolicy={"const": "Never"},
    automountServiceAccountToken=FLAG,
    securityContext={"type": "object", "properties": {"runAsNonRoot": {"const": True}}},
    containers={"type": "array", "items": CONTAINER, "minItems": 1, "maxItems": 1},
    volumes={"type": "array", "items": {"type": "object", "required": ["name"]}},
    tolerations={"type": "array", "items": {"type": "object", "required": ["key", "operator", "effect"]}},
)
TEMPLATE = closed(["spec"], spec=POD)
RAY_CLUSTER = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=closed(["name"], name=TEXT),
    spec=closed(
        ["rayVersion", "headGroupSpec", "workerGroupSpecs", "authOptions"],
        rayVersion=TEXT,
        authOptions=closed(["mode", "secretName"], mode={"const": "token"}, secretName=TEXT),
        enableInTreeAutoscaling=FLAG,
        autoscalerOptions=closed(
            [],
            version={"enum": ["v1", "v2"]},
            idleTimeoutSeconds=COUNT,
            upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        ),
        headGroupSpec=closed(
            ["rayStartParams", "template"],
            serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            rayStartParams=TEXTS,
            template=TEMPLATE,
        ),
        workerGroupSpecs={
            "type": "array",
            "items": closed(
                ["groupName", "rayStartParams", "template", "minReplicas", "maxReplicas"],
                groupName=TEXT,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=TEXTS,
                template=TEMPLATE,
            ),
        },
    ),
)


@pytest.fixture
def manifest():
    return yaml.safe_load((ROOT / MANIFEST).read_text())


def test_the_kuberay_manifest_has_the_shape_of_a_ray_cluster(manifest):
    jsonschema.validate(manifest, RAY_CLUSTER)
    manifest["spec"]["workerGroupSpec"] = []
    with pytest.raises(jsonschema.ValidationError, match="workerGroupSpec"):
        jsonschema.validate(manifest, RAY_CLUSTER)


def test_the_pods_are_the_nodes_of_the_aws_file(manifest):
    import json

    spec = manifest["spec"]
    groups = {g["groupName"]: g for g in spec["workerGroupSpecs"]}
    assert groups.keys() == {"learner", "simulator"}
    for name, group in groups.items():
        # KubeRay hands the value to a shell, so it is JSON in quotes of its own.
        assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {name: 1}
        (container,) = group["template"]["spec"]["containers"]
        assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "learner")
        assert group["template"]["spec"]["automountServiceAccountToken"] is False
        assert {m["name"] for m in container["volumeMounts"]} == {
            v["name"] for v in group["template"]["spec"]["volumes"]
        }
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "dashboard-host": "127.0.0.1"}


def test_the_ray_of_the_pods_is_the_pinned_one(manifest):
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE).group(1)
    assert manifest["spec"]["rayVersion"] == pinned
