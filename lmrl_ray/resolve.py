"""From what a person typed to a complete configuration, and from a name to a run's folder.

Later ones win: the schema's defaults, the tuned defaults of the task and algorithm
(`tune_configs/defaults/TASK/common.yaml` and `ALGO.yaml`; of a pre-trained model `pretrained.yaml`), a
`--config` file, `--set` and the options.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmrl_ray
from algos.models import PRESETS
from envs.registry import get_task
from lmrl_ray import checkpoint
from lmrl_ray.config import ConfigError, RunConfig, load_yaml, merge, parse, parse_settings
from lmrl_ray.plugins import load_plugins, loaded


def resolve_config(
    algo: str,
    task: str,
    *,
    file: Path | None = None,
    settings: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    out: Path = Path("runs"),
) -> RunConfig:
    """The configuration of a run; `out` is where a run that `init` names would be. Raises ConfigError and
    the errors of unknown names."""
    values: dict[str, Any] = {"algo": algo, "task": task}
    over = merge(load_yaml(file) if file else {}, parse_settings(settings))
    for key in ("algo", "task"):
        if over.get(key, values[key]) != values[key]:
            raise ConfigError(
                f"{file or '--set'}: {key}: is {over[key]!r}, but {values[key]!r} was asked for"
            )
    over = merge(over, options or {})
    load_plugins(over.get("plugins") or ())
    tuned = for_model(tuned_defaults(algo, task), _model_name(over, out))
    values = merge(merge(tuned, over), values)
    config = parse(values, str(file) if file else "config")
    check_env_arguments(config)
    return config


def tuned_defaults(algo: str, task: str) -> dict[str, Any]:
    """What suits the task with any algorithm (`common.yaml`), and on top of it what suits the pair."""
    folder = configs_folder() / "defaults" / task
    values: dict[str, Any] = {}
    for path in (folder / "common.yaml", folder / f"{algo}.yaml"):
        values = merge(values, load_yaml(path) if path.exists() else {})
    return values


def for_model(tuned: dict[str, Any], model: str | None) -> dict[str, Any]:
    """Tuned defaults as they suit a model: they were found with one that was trained from new weights.

    A pre-trained one has the optimiser of `pretrained.yaml`, and values that start from what it knows.
    """
    if model is None or model in PRESETS:
        return tuned
    kept = {section: entries for section, entries in tuned.items() if section != "optimizer"}
    if "algorithm" in kept:
        kept["algorithm"] = {k: v for k, v in kept["algorithm"].items() if k != "trunk_start"}
    return merge(kept, load_yaml(configs_folder() / "defaults" / "pretrained.yaml"))


def _model_name(over: Mapping[str, Any], out: Path) -> str | None:
    """The model that is asked for, or the one of the run that `init` names, where that can be told."""
    model, init = over.get("model"), over.get("init")
    if isinstance(model, Mapping) and isinstance(model.get("name"), str):
        return str(model["name"])
    if isinstance(init, str):
        with suppress(ConfigError):  # whoever starts from it will say what is wrong
            return trained_as(find_policy(init, out))[1]
    return None


def configs_folder() -> Path:
    """`tune_configs/`: beside the packages in a checkout, inside `lmrl_ray` when installed."""
    package = Path(lmrl_ray.__file__).parent
    return (
        package / "tune_configs" if (package / "tune_configs").is_dir() else package.parent / "tune_configs"
    )


def check_env_arguments(config: RunConfig) -> None:
    """ConfigError when the simulator does not take `env`."""
    check_simulator(config.task, config.env)


def check_simulator(task: str, env: Mapping[str, Any]) -> None:
    """ConfigError when the task's simulator does not take the arguments `env`."""
    try:
        get_task(task).make(**env)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"env: {task} does not accept {dict(env)!r}: {error}") from error


def env_settings(task: str, settings: Iterable[str]) -> dict[str, Any]:
    """`env.NAME=VALUE` assignments of a command that makes the task's simulator and nothing else."""
    values = parse_settings(settings)
    unknown = set(values) - {"env"}
    if unknown:
        raise ConfigError(f"--set {sorted(unknown)[0]}: unknown key; here it is env.NAME=VALUE")
    env = dict(values.get("env") or {})
    check_simulator(task, env)
    return env


def find_run(name: str, out: Path) -> Path:
    """A run's folder by path, or by name below `out`. ConfigError lists what there is."""
    for folder in (Path(name), out / name):
        if (folder / "config.yaml").is_file():
            return folder
    runs = sorted(p.parent.name for p in out.glob("*/config.yaml"))
    there = f"runs in {out}: {', '.join(runs)}" if runs else f"there are no runs in {out}"
    raise ConfigError(f"run {name!r} was not found ({there})")


def find_tracked(name: str, out: Path) -> Path:
    """The folder of a run, sweep or benchmark that MLflow is told of. ConfigError."""
    for folder in (Path(name), out / name):
        if (folder / "mlflow.json").is_file():
            return folder
    raise ConfigError(f"{name}: neither {Path(name)} nor {out / name} is a folder that MLflow is told of")


def find_policy(name: str, out: Path) -> Path:
    """The folder of a policy: a run (its last checkpoint), a checkpoint, a transformers folder, or a
    registered policy, models:/NAME/VERSION."""
    if name.startswith("models:"):
        from lmrl_ray.registry import fetch

        return fetch(name, out)
    folder = next((f for f in (Path(name), out / name) if f.is_dir()), None)
    if folder is None:
        run_folders = sorted(p.parent.name for p in out.glob("*/config.yaml"))
        raise ConfigError(
            f"{name}: neither a folder nor a run in {out} (runs: {', '.join(run_folders) or 'none'})"
        )
    if (folder / "checkpoints").is_dir():
        found = checkpoint.latest(folder / "checkpoints")
        if found is None:
            raise ConfigError(f"{folder}: the run has no whole checkpoint yet; train it first")
        return found
    if (folder / "policy").is_dir() or (folder / "config.json").is_file():
        return folder
    raise ConfigError(f"{folder}: holds no policy; expected a run, a checkpoint or a transformers folder")


def run_config_of(folder: Path) -> RunConfig | None:
    """The configuration that a policy's folder was trained with, where it says.

    Its plugins must be loaded: nothing of the folder is run. ConfigError otherwise.
    """
    values, source = _recorded(folder)
    if source is None:
        return None
    plugins = loaded(values.get("plugins") or (), source)
    return parse({**values, "plugins": plugins}, str(source))


def trained_as(folder: Path) -> tuple[str | None, str | None]:
    """Task and model.name of the run that left a policy's folder; None for what is unknown."""
    values, _ = _recorded(folder)
    return values.get("task"), (values.get("model") or {}).get("name")


def _recorded(folder: Path) -> tuple[dict[str, Any], Path | None]:
    """A run's configuration as its folder, or its checkpoint's, has it, and the file that does."""
    for candidate in (folder / "config.yaml", folder / "manifest.json"):
        if candidate.is_file():
            values = load_yaml(candidate)
            return values.get("config", values), candidate
    return {}, None
