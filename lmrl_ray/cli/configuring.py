"""What `lmrl config` prints: a run's configuration, with what each key means beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from algos.settings import Settings


def described(settings: Settings, indent: str = "") -> Iterator[str]:
    """Lines of YAML that `--config` takes, each key with its choices and description as a comment."""
    lengths = [len(f"{indent}{n}: {_scalar(v)}") for n, v in settings if not _section(v)]
    for name, value in settings:
        comment = _comment(type(settings).model_fields[name])
        if _section(value):
            yield f"{indent}{name}:{comment}"
            yield from described(value, f"{indent}  ")
        else:
            yield f"{indent}{name}: {_scalar(value)}".ljust(min(max(lengths), 40) if comment else 0) + comment


def _section(value: Any) -> bool:
    return isinstance(value, Settings) and bool(type(value).model_fields)


def _scalar(value: Any) -> str:
    return "{}" if isinstance(value, Settings) else json.dumps(value)


def _comment(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    parts = [" | ".join(map(str, choices)), (field.description or "").replace("None", "null")]
    text = "; ".join(p for p in parts if p)
    return f"  # {text}" if text else ""
