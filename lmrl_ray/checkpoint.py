"""Checkpoints: folders that are whole or not there, and hold nothing that is executed when read.

    checkpoints/step-000200/
        policy/               a plain transformers folder: `from_pretrained` reads it
        heads.safetensors     value trunk and heads, for value-based algorithms (with heads.json)
        state/                what a resume needs beside the start: model, optimiser, trainer.json
        manifest.json         what this is, and the size and SHA-256 of every file

A checkpoint is written beside and renamed; one whose files do not match its manifest is passed over.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from algos.base import Algorithm
from lmrl_ray.durable import sync_folder, sync_tree
from lmrl_ray.engine import Engine, OptimizerState

UNFINISHED = ".step-"
"""How the names of checkpoints that are being written begin."""


class CheckpointError(ValueError):
    """A checkpoint cannot be written or read."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint is of."""

    step: int
    algo: str
    task: str
    config: dict[str, Any]
    files: dict[str, tuple[int, str]]
    """By relative path: size in bytes and SHA-256."""


def save(folder: Path, engine: Engine, step: int, config: Mapping[str, Any]) -> None:
    """Write the checkpoint of `step` into `folder`, on rank 0; all workers call it together."""
    optimizer = engine.optimizer_state()
    with engine.gathered():
        if engine.rank == 0:
            write(folder, engine.algorithm, optimizer, step, config)


def write(
    folder: Path, algorithm: Algorithm, optimizer: OptimizerState, step: int, config: Mapping[str, Any]
) -> None:
    """Write one checkpoint; the algorithm holds its whole weights. CheckpointError on a full disk."""
    state = folder / "state"
    with disk_errors(folder):
        state.mkdir(parents=True)
        algorithm.policy().save(folder)
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in algorithm.learnt_state().items()}
        save_file(tensors, state / "model.safetensors")
        save_file(dict(optimizer), state / "optimizer.safetensors")
        (state / "trainer.json").write_text(json.dumps({"step": step}))
        manifest = Manifest(step, config["algo"], config["task"], dict(config), _files(folder))
        (folder / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1))


def publish(finished: Path, target: Path, keep: int) -> None:
    """Rename a finished checkpoint to its place, and drop all but the last `keep` beside it.

    It is on the disk before an older one goes: a power cut leaves at least one whole.
    What a killed process left half-written there goes as well, and so do later ones, which were damaged:
    training has gone back behind them.
    """
    with disk_errors(finished):
        sync_tree(finished)
    if target.exists():
        shutil.rmtree(target)
    os.replace(finished, target)
    sync_folder(target.parent)
    drop_later(target.parent, target)
    for unfinished in target.parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(unfinished)
    for old in all_checkpoints(target.parent)[:-keep]:
        shutil.rmtree(old)


def drop_later(folder: Path, last: Path | None) -> None:
    """Remove the checkpoints in `folder` of later steps than `last`, all of them where that is None."""
    found = all_checkpoints(folder)
    for later in found[found.index(last) + 1 if last else 0 :]:
        shutil.rmtree(later)


def all_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders in the order of their steps, whole or not."""
    found = folder.glob("step-[0-9]*") if folder.is_dir() else []
    return sorted((p for p in found if _step_of(p).isdigit()), key=lambda p: int(_step_of(p)))


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint below `folder`; None when there is none. Damaged ones are named."""
    found = all_checkpoints(folder)
    for candidate in reversed(found):
        problem = damage(candidate)
        if problem is None:
            return candidate
        instead = "there is no earlier checkpoint" if candidate == found[0] else "using an earlier checkpoint"
        print(f"warning: {candidate}: {problem}; {instead}", file=sys.stderr, flush=True)
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None: every file is compared with the manifest."""
    try:
        manifest = read_manifest(folder)
    except CheckpointError as error:
        return str(error)
    for name, (size, digest) in manifest.files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _sha256(path) != digest:
            return f"{name} is not what was written"
    return None


def read_manifest(folder: Path) -> Manifest:
    """CheckpointError when it is missing or not ours."""
    try:
        values = json.loads((folder / "manifest.json").read_text())
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in values["files"].items()}
        return Manifest(**{**values, "files": files})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{folder}: no readable manifest.json ({error})") from error


def load_model(folder: Path, algorithm: Algorithm) -> int:
    """Load the weights, before an engine takes them over. Returns the step. CheckpointError."""
    try:
        algorithm.load_learnt_state(load_file(folder / "state" / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: its model does not fit the configuration ({error})") from error
    return int(json.loads((folder / "state" / "trainer.json").read_text())["step"])


def load_optimizer(folder: Path) -> dict[str, torch.Tensor]:
    """The optimiser's tensors. CheckpointError when they cannot be read."""
    try:
        tensors: dict[str, torch.Tensor] = load_file(folder / "state" / "optimizer.safetensors")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: its optimizer.safetensors cannot be read ({error})") from error
    return tensors


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What cannot be written to `path` to the end is removed; a full disk is a CheckpointError."""
    try:
        with full_disk_explained(path.parent):
            yield
    except BaseException:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        raise


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk into a CheckpointError that names the folder."""
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        raise CheckpointError(
            f"{folder}: the disk is full; nothing was left half-written and earlier checkpoints are whole. "
            f"Free some space or give --out another disk, then continue with --resume"
        ) from error


def _step_of(folder: Path) -> str:
    return folder.name.removeprefix("step-")


def _is_full(error: BaseException) -> bool:
    """Rust's writers (safetensors, tokenizers) raise errors of their own, with the number in their text."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError):
        return error.errno in full
    return any(f"(os error {number})" in str(error) for number in full)


def _files(folder: Path) -> dict[str, tuple[int, str]]:
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_size, _sha256(p)) for p in paths}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
