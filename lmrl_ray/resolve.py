"""From what a person typed to a complete configuration, and from a name to a run's folder.

Later ones win: the schema's defaults, the tuned defaults of the task and algorithm
(`tune_configs/defaults/TASK/common.yaml` and `ALGO.yaml`; of a pre-trained model `pretrained.yaml`), a
`--config` file, `--set` and the options.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import lmrl_ray
from algos.models import PRESETS
from envs.registry import ANSWERS, get_task
from lmrl_ray import checkpoint
from lmrl_ray.config import ConfigError, RunConfig, load_yaml, merge, parse, parse_settings
from lmrl_ray.plugins import load_plugins, loaded

ConfigT = TypeVar("ConfigT")
Layer = tuple[str, Mapping[str, Any]]
"""Values, and the name of the place where they stand."""


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
    return resolve_layers(algo, task, typed_layers(algo, task, file, settings, options), out)


def typed_layers(
    algo: str,
    task: str,
    file: Path | None,
    settings: Iterable[str],
    options: Mapping[str, Any] | None,
) -> list[Layer]:
    """What a person typed; later ones win. ConfigError where a place is for another algorithm or task."""
    given = [("--set", parse_settings(settings))]
    if file is not None:
        given.insert(0, (str(file), load_yaml(file)))
    for where, values in given:
        for key, asked in (("algo", algo), ("task", task)):
            if values.get(key, asked) != asked:
                raise ConfigError(f"{where}: {key}: is {values[key]!r}, but {asked!r} was asked for")
    return [*given, ("config", options or {})]


def resolve_layers(algo: str, task: str, layers: Sequence[Layer], out: Path = Path("runs")) -> RunConfig:
    """The same of values that stand in several places; later ones win."""
    own = {"algo": algo, "task": task}
    over: dict[str, Any] = reduce(merge, (values for _, values in layers), {})
    load_plugins(over.get("plugins") or ())
    values = for_model(tuned_defaults(algo, task), _model_name(over, out))
    return checked(values, layers, lambda values, where: _usable({**values, **own}, where))


def checked(
    start: Mapping[str, Any], layers: Sequence[Layer], check: Callable[[Mapping[str, Any], str], ConfigT]
) -> ConfigT:
    """`check` of the layers on top of `start`. The place that its error names is the one to blame."""
    try:
        return check(reduce(merge, (values for _, values in layers), dict(start)), "config")
    except ConfigError:
        # One after the other only now: what is wrong in one place may be mended in the next.
        values = dict(start)
        for where, layer in layers:
            values = merge(values, layer)
            if layer:
                check(values, where)
        raise


def _usable(values: Mapping[str, Any], where: str) -> RunConfig:
    config = parse(values, where)
    check_simulator(config.task, config.env, f"{where}: env")
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
            folder = find_policy(init, out)
            return trained_as(folder)[1] or str(folder)  # nobody here has trained it
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


def check_simulator(task: str, env: Mapping[str, Any], where: str = "env") -> None:
    """ConfigError when the task's simulator does not take the arguments `env`."""
    try:
        get_task(task).make(**env)
    except (ImportError, TypeError, ValueError) as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        why = _nearest_argument(task, unknown[1]) if unknown else error
        raise ConfigError(f"{where}: {task} does not accept {dict(env)!r}: {why}") from error


def _nearest_argument(task: str, name: str) -> str:
    spec = get_task(task.removesuffix(ANSWERS))
    known = _arguments(pkgutil.resolve_name(spec.entry)) + ["simulator", "base_url"] * bool(spec.other_side)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean env.{near[0]}?" if near else ""
    return f"it has no {name}.{hint} Known: {', '.join(known)}"


def _arguments(env: type) -> list[str]:
    """What an environment is made with, and its base class where it hands on what it does not know."""
    found: list[str] = []
    for cls in env.__mro__:
        parameters = inspect.signature(cls).parameters.values()
        found += [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return found


def env_settings(task: str, settings: Iterable[str]) -> dict[str, Any]:
    """`env.NAME=VALUE` assignments of a command that makes the task's simulator and nothing else."""
    env = section_settings(settings, "env")["env"]
    check_simulator(task, env)
    return env


def section_settings(settings: Iterable[str], *sections: str) -> dict[str, dict[str, Any]]:
    """`SECTION.NAME=VALUE` assignments of a command that takes these sections and nothing else."""
    values = parse_settings(settings)
    here = f"here it is {' or '.join(f'{s}.NAME=VALUE' for s in sections)}"
    for key, found in values.items():
        if key not in sections:
            raise ConfigError(f"--set {key}: unknown key; {here}")
        if not isinstance(found, dict):
            raise ConfigError(f"--set {key}={found}: assigns to the whole section; {here}")
    return {section: values.get(section, {}) for section in sections}


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
    whole = folder.parent if folder.name == "policy" else folder  # of a checkpoint
    for candidate in (folder / "config.yaml", whole / "manifest.json"):
        if candidate.is_file():
            values = load_yaml(candidate)
            return values.get("config", values), candidate
    return {}, None
