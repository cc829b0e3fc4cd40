"""Policies in MLflow's registry: with their evaluation, and playable by name."""

import json

import pytest

from lmrl_ray.config import ConfigError
from lmrl_ray.mlflow_store import import_mlflow, tracking_uri
from lmrl_ray.registry import fetch
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config
from lmrl_ray.train import Hooks, train


@pytest.fixture
def client(out):
    return import_mlflow().MlflowClient(tracking_uri(out))


@pytest.fixture
def config(toy, toy_policy, toy_data):
    def make(algo="ilql", init=toy_policy):
        options = {
            "plugins": [toy],
            "init": str(init),
            "data": str(toy_data),
            "optimizer": {"engine": "torch"},
            "training": {"steps": 2, "batch_episodes": 4, "save_every": 2, "log_every": 1},
            "resources": {"slots": 5},
        }
        return resolve_config(algo, "toy", options=options)

    return make


def test_a_version_has_its_evaluation_and_plays_as_the_run_did(lmrl, config, toy, out, client):
    train(config(), out, Hooks(Display(quiet=True)), "run")
    given = ("toy", "--episodes", 10, "--plugin", toy, "--json", "--out", out)
    how = ("--decoding", "rerank", "--seed", 5, "--set", "decoding.rerank_logit_weight=0.5")
    answer = lmrl("eval", "run", *given, *how, "--register", "player")
    assert answer.code == 0, answer.stderr
    assert answer.stderr.splitlines()[-1] == "registered: models:/player/1"
    score = answer.json[-1]

    version = client.get_model_version("player", "1")
    tags = {k: version.tags[k] for k in ("task", "algo", "simulator", "seed", "episodes")}
    assert tags == {"task": "toy", "algo": "ilql", "simulator": "rule", "seed": "5", "episodes": "10"}
    assert json.loads(version.tags["raw_return"]) == score["raw_return"]
    assert json.loads(version.tags["ci95"]) == score["ci95"]
    assert json.loads(version.tags["decoding"])["rerank_logit_weight"] == 0.5
    evaluation = client.get_run(version.run_id)
    assert evaluation.info.status == "FINISHED"
    assert evaluation.data.metrics["final/return"] == score["raw_return"]

    # No option says how: the version does. ILQL's heads are part of it.
    again = lmrl("eval", "models:/player/1", *given, "--seed", 5)
    assert again.json[-1] == score
    client.set_registered_model_alias("player", "best", "1")
    assert fetch("models:/player@best", out) == fetch("models:/player/1", out)
    assert {p.name for p in fetch("models:/player/1", out).iterdir()} == {
        "policy", "heads.json", "heads.safetensors", "config.yaml",
    }  # fmt: skip


def test_training_starts_from_a_registered_policy_and_versions_count_up(lmrl, config, toy, toy_policy, out):
    given = ("toy", "--episodes", 5, "--plugin", toy, "--json", "--out", out, "--register", "start")
    assert "models:/start/1" in lmrl("eval", toy_policy, *given).stderr
    assert "models:/start/2" in lmrl("eval", "models:/start/1", *given).stderr
    run = train(config("bc", "models:/start/2"), out, Hooks(Display(quiet=True)), "run")
    assert json.loads((run.folder / "run.json").read_text())["start"] == str(fetch("models:/start/2", out))


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        ("models:/nobody/1", r"models:/nobody/1: is not in the model registry \(names: player\)"),
        ("models:/player/7", r"not in the model registry \(versions of player: 1, 2\)"),
        ("models:/player@best", r"not in the model registry \(versions of player: 1, 2\)"),
        ("models:/player", "expected models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/player/latest", "expected models:/NAME/VERSION"),
        ("models:/../1/1", "expected models:/NAME/VERSION"),
    ],
)
def test_a_reference_to_nothing_is_an_error_that_names_what_there_is(client, out, reference, error):
    client.create_registered_model("player")
    for _ in range(2):
        client.create_model_version("player", "s3://bucket/policy")
    with pytest.raises(ConfigError, match=error):
        fetch(reference, out)


def test_a_name_that_the_registry_would_refuse_is_an_error_before_anything_is_played(
    lmrl, toy, toy_policy, out, tmp_path
):
    log = tmp_path / "log"
    given = ("toy", "--plugin", toy, "--out", out, "--set", f"env.log={log}", "--register", "a/b")
    answer = lmrl("eval", toy_policy, *given)
    assert answer.code == 1
    assert "a name has no '/'" in answer.stderr
    assert not log.exists()
