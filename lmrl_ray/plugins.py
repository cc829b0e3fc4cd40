"""Plugins: Python files (or modules) that register a task or an algorithm when they are imported."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lmrl_ray.config import ConfigError


def load_plugins(plugins: Iterable[str]) -> None:
    """Import each plugin once: a path to a .py file, or a module's name. ConfigError when it cannot be."""
    for plugin in _listed(plugins):
        if not plugin.endswith(".py"):
            _import(plugin)
            continue
        path = Path(plugin).resolve()
        name = f"lmrl_plugin_{path.stem}"
        if name in sys.modules:
            if sys.modules[name].__file__ != str(path):
                raise ConfigError(f"plugins: {plugin}: another plugin file has the same name; rename one")
            continue
        if not path.is_file():
            raise ConfigError(f"plugins: {plugin}: there is no such file")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        # Known by name before it runs, so that what it defines can be pickled.
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, Exception):
                raise _unusable(plugin, error) from error
            raise


def loaded(plugins: Iterable[str], where: Path) -> tuple[str, ...]:
    """The plugins that a policy's or a run's file names, as they were loaded here from wherever.

    ConfigError for one that was not loaded: the folder may be a stranger's, and that it names code is no
    reason to run it.
    """
    found = []
    for plugin in plugins:
        is_file = plugin.endswith(".py")
        module = sys.modules.get(f"lmrl_plugin_{Path(plugin).stem}" if is_file else plugin)
        if module is None:
            raise ConfigError(
                f"{where}: plugins: names {plugin}, whose code is run only if you say so: look at it and add "
                f"--plugin {plugin}"
            )
        found.append(str(module.__file__) if is_file else plugin)
    return tuple(found)


def absolute(plugins: Iterable[str]) -> tuple[str, ...]:
    """The same plugins, for a process that has another working directory."""
    return tuple(str(Path(p).resolve()) if p.endswith(".py") else p for p in plugins)


def code_of(plugins: Iterable[str]) -> dict[str, str]:
    """sha256 of each plugin file, by its name without the folder."""
    files = [Path(p) for p in plugins if p.endswith(".py")]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def changed(plugins: Iterable[str], code: Mapping[str, str]) -> list[str]:
    """The plugin files that `code_of` would not say the same of now; not one that it did not know."""
    return [name for name, found in code_of(plugins).items() if code.get(name, found) != found]


def _listed(plugins: Any) -> Iterable[str]:
    """As a file or `--set` has them before they are validated, where one need not stand in a list."""
    found = [plugins] if isinstance(plugins, str) else plugins
    if not isinstance(found, list | tuple) or not all(isinstance(p, str) for p in found):
        raise ConfigError(f"plugins: found {plugins!r}, but it should be a list of paths")
    return found


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception as error:
        # Rather than one that the plugin itself imports.
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"plugins: {name}: cannot be imported ({error})") from error
        raise _unusable(name, error) from error


def _unusable(plugin: str, error: Exception) -> ConfigError:
    """What is wrong with a plugin's code and in which line: its author is not looking for our frames."""
    machinery = (__file__, importlib.__file__, "<frozen importlib._bootstrap")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(machinery)]
    place = [(f.filename, f.lineno) for f in frames if f.filename == frames[0].filename][-1:]
    if isinstance(error, SyntaxError):
        place = [(error.filename or plugin, error.lineno)]
    where = "".join(f"{Path(file).name}, line {line}: " for file, line in place)
    # An error of pydantic's, for one, has several lines.
    said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    return ConfigError(f"plugins: {plugin}: {where}{type(error).__name__}: {said}")
