"""MLflow's model registry: a policy with its evaluation as a version of a name, and back to a folder.

    models:/NAME/VERSION     one version
    models:/NAME@ALIAS       the version that the alias points at (set in MLflow's pages)

A version's source is a folder of artifacts: `policy/` (transformers), `heads.*` of a value policy, and
`config.yaml`, which says how it is played. Nothing in it is a pickle, and nothing of it is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from lmrl_ray.config import ConfigError, RunConfig
from lmrl_ray.evaluate import Score
from lmrl_ray.mlflow_store import (
    client_of,
    experiment_of,
    explained,
    import_mlflow,
    tracking_uri,
)

PREFIX = "models:/"
_FOLDER = "model"
"""Of the artifacts that a version's policy is in."""
_REFERENCE = re.compile(r"models:/(?P<name>[^/:@]+)(?:/(?P<version>[1-9][0-9]*)|@(?P<alias>[\w.-]+))")


def fetch(reference: str, out: Path) -> Path:
    """The folder of a registered policy: where it lies, or a copy below `out` when it is far away.

    Raises ConfigError for an unknown name or version, TrackingError when MLflow cannot be asked.
    """
    uri = tracking_uri(out)
    with _errors(uri):
        client = client_of(uri, out)
        version = _version(client, reference)
        near = _near(client, version)
        if near is not None:
            return near
        # A version never changes, but another server may have one of the same name.
        digest = hashlib.sha256(f"{uri} {version.source}".encode()).hexdigest()[:8]
        folder = out / "registered" / f"{version.name}-{version.version}-{digest}"
        if not folder.is_dir():
            _download(version.source, uri, folder)
        return folder


def check(name: str, out: Path) -> None:
    """Before hours of evaluation: ConfigError for a name that is none, TrackingError when MLflow is away."""
    if not re.fullmatch(r"[^/:@]+", name):
        raise ConfigError(f"--register {name!r}: a name has no '/', ':' or '@'")
    uri = tracking_uri(out)
    with _errors(uri):
        client_of(uri, out).search_registered_models(max_results=1)


def register(name: str, policy: Path, config: RunConfig, score: Score, out: Path) -> str:
    """A new version of `name` from a policy's folder; the version as models:/NAME/VERSION.

    Its evaluation is a run of its own, whose artifacts are the version's source: a later training
    that goes on where this policy is changes neither.
    """
    uri = tracking_uri(out)
    tags = _tags(policy, config, score)
    with _errors(uri):
        client = client_of(uri, out)
        experiment = experiment_of(client, uri, out)
        run_tags = {"mlflow.runName": f"eval-{name}", "kind": "evaluation", **tags}
        run = client.create_run(experiment, tags=run_tags).info.run_id
        try:
            _upload(client, run, policy, config, score)
            _make_name(client, name)
            made = client.create_model_version(name, f"runs:/{run}/{_FOLDER}", run_id=run, tags=tags)
        except BaseException:
            client.set_terminated(run, "FAILED")
            raise
        client.set_terminated(run, "FINISHED")
    return f"{PREFIX}{name}/{made.version}"


def _tags(policy: Path, config: RunConfig, score: Score) -> dict[str, str]:
    """What a reader of the registry wants to know of a version."""
    figures = {k: "" if v is None else v for k, v in score.row().items() if k != "policy"}
    about = {
        "task": config.task,
        "algo": config.algo,
        "seed": config.seed,
        "env": dict(config.env),
        "decoding": config.decoding.model_dump(),
        "evaluated_folder": str(policy),
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in {**about, **figures}.items()}


def _upload(client: Any, run: str, policy: Path, config: RunConfig, score: Score) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run, metrics=[Metric(f"final/{k}", v, now, 0) for k, v in score.metrics().items()])
    client.log_dict(run, {"rows": [score.row()]}, "evaluation.json")
    bare = not (policy / "policy").is_dir()
    client.log_artifacts(run, str(policy if bare else policy / "policy"), f"{_FOLDER}/policy")
    for name in ("heads.json", "heads.safetensors"):
        if (policy / name).is_file():
            client.log_artifact(run, str(policy / name), _FOLDER)
    client.log_text(run, yaml.safe_dump(config.dump(), sort_keys=False), f"{_FOLDER}/config.yaml")


def _make_name(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except import_mlflow().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(client: Any, reference: str) -> Any:
    """MLflow's `ModelVersion`. ConfigError that lists what there is."""
    parts = _REFERENCE.fullmatch(reference)
    if parts is None:
        raise ConfigError(f"{reference}: expected models:/NAME/VERSION or models:/NAME@ALIAS")
    name, number, alias = parts["name"], parts["version"], parts["alias"]
    try:
        if number is not None:
            return client.get_model_version(name, number)
        return client.get_model_version_by_alias(name, alias)
    except import_mlflow().exceptions.MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise ConfigError(f"{reference}: is not in the model registry ({_there(client, name)})") from error


def _there(client: Any, name: str) -> str:
    versions = (
        [v.version for v in client.search_model_versions(f"name = '{name}'")] if "'" not in name else []
    )
    if versions:
        return f"versions of {name}: {', '.join(sorted(map(str, versions), key=int))}"
    names = sorted(m.name for m in client.search_registered_models(max_results=20))
    return f"names: {', '.join(names) or 'none'}"


def _near(client: Any, version: Any) -> Path | None:
    """The version's folder where its run's artifacts are on a disk that this machine sees."""
    start = f"runs:/{version.run_id}/"
    if not version.run_id or not version.source.startswith(start):
        return None
    root = urlsplit(client.get_run(version.run_id).info.artifact_uri)
    folder = Path(unquote(root.path)) / version.source.removeprefix(start)
    return folder if root.scheme == "file" and folder.is_dir() else None


def _download(source: str, uri: str, folder: Path) -> None:
    """Into a folder that is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as beside:
        artifacts = import_mlflow().artifacts
        found = artifacts.download_artifacts(artifact_uri=source, dst_path=beside, tracking_uri=uri)
        os.replace(found, folder)


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """MLflow's errors as ours."""
    try:
        yield
    except (import_mlflow().exceptions.MlflowException, OSError) as error:
        raise explained(error, uri) from error
