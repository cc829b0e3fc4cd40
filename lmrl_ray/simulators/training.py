"""Fine-tune a simulator: clone the answers of recorded dialogues, with the learner of every other run.

The dialogues are written again from the other side (`envs.answers`), and `bc` is trained on them. The
final evaluation of the run is the simulator's agreement with the built-in one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from algos import models
from envs.answers import relabelled
from envs.registry import ANSWERS, get_task, task_ids
from lmrl_ray.config import ConfigError
from lmrl_ray.data import EpisodeDataset, EpisodeWriter
from lmrl_ray.resolve import resolve_config
from lmrl_ray.train import Hooks, TrainedRun, train


@dataclass(frozen=True)
class TrainedSimulator:
    run: TrainedRun
    dialogues: int
    skipped: int
    """Dialogues that do not say what their secret was (published ones about things that are none of ours)."""


def train_simulator(
    task: str,
    data: Path,
    out: Path,
    hooks: Hooks,
    *,
    model: str | None,
    steps: int | None,
    seed: int,
    settings: list[str],
) -> TrainedSimulator:
    """Train a simulator of `task` on the answers in a data file. ConfigError says what cannot be used."""
    if get_task(task).other_side is None:
        known = [t for t in task_ids() if get_task(t).other_side]
        raise ConfigError(
            f"{task}: nobody answers here whom a language model could replace; choose {', '.join(known)}"
        )
    side = get_task(task).side()
    if model is not None and model not in models.PRESETS and models.is_encoder_decoder(model):
        raise ConfigError(
            f"--model {model}: is an encoder-decoder; such a model can be a simulator as it is "
            f"(env.simulator=lm:{model}), but only causal models are trained here"
        )
    which = EpisodeDataset(data, require_nonempty=True).fingerprint[
        :8
    ]  # others are called train.parquet, too
    path = out / "data" / f"{data.stem}-{which}{ANSWERS}.parquet"
    dialogues, skipped = write_answers(task, data, path)
    options = {
        "data": str(path),
        "seed": seed,
        "decoding": {"mode": "greedy" if side.greedy else "sample"},
        "model": None if model is None else {"name": model},
        "training": None if steps is None else {"steps": steps},
    }
    given = {key: value for key, value in options.items() if value is not None}
    config = resolve_config("bc", f"{task}{ANSWERS}", settings=settings, options=given)
    run = train(config, out, hooks, name=f"{task}-simulator-s{seed}")
    return TrainedSimulator(run, dialogues, skipped)


def write_answers(task: str, data: Path, path: Path) -> tuple[int, int]:
    """The dialogues of a data file from the other side. Returns how many, and how many had to be left out."""
    dataset = EpisodeDataset(data, require_nonempty=True)
    if dataset.task != task:
        raise ConfigError(f"--data {data}: holds episodes of {dataset.task}, not of {task}")
    skipped = 0
    with EpisodeWriter(path, f"{task}{ANSWERS}", build={"answers_of": dataset.fingerprint}) as writer:
        for episode in dataset:
            answers = relabelled(episode)
            if answers is None:
                skipped += 1
            else:
                writer.write(answers)
        if not writer.episodes:
            raise ConfigError(
                f"--data {data}: none of its {skipped} dialogues says what the secret was (published ones "
                f"may be about others than ours); build one with `lmrl data build {task}`"
            )
        return writer.episodes, skipped
