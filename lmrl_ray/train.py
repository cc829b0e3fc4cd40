"""The driver of a training run: data, start, workers, tracking, final evaluation.

runs/NAME/config.yaml      the whole configuration
runs/NAME/run.json         what a resume needs: start, data
runs/NAME/mlflow.json      its MLflow run
runs/NAME/metrics.jsonl    the journal
runs/NAME/checkpoints/     the last few, each whole
runs/NAME/returns.json     of the episodes of the final evaluation
runs/NAME/evaluation.json  the final score
"""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from algos import models
from algos.base import get_algorithm
from algos.tokens import check_episode
from envs.registry import get_task
from lmrl_ray import checkpoint, data, durable, mlflow_store, scaling
from lmrl_ray.config import ConfigError, ModelConfig, RunConfig, load_yaml, merge, parse
from lmrl_ray.data import EpisodeDataset
from lmrl_ray.data.schema import ROW_GROUP_SIZE, DataError
from lmrl_ray.evaluate import Evaluation, evaluate, setting_of
from lmrl_ray.journal import Entry, JournalReader
from lmrl_ray.learner import LearnerJob, LocalContext, learn
from lmrl_ray.plugins import absolute, changed, code_of, load_plugins
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import find_policy, find_run, resolve_config, run_config_of, trained_as
from lmrl_ray.rollout import make_rollouts
from lmrl_ray.symbolic.config import is_symbolic
from lmrl_ray.tracking import Tracker
from lmrl_ray.trust import check_endpoint

_TOKENIZER_EPISODES = 20_000
"""Episodes whose text a preset's tokenizer is trained on."""


@dataclass(frozen=True)
class RunFiles:
    """`run.json`: where the run's parts are."""

    data: str
    start: str
    fingerprint: str = ""
    """Of the data; empty in runs that began before it was kept."""
    code: dict[str, str] = field(default_factory=dict)
    """Of the plugins (`plugins.code_of`)."""


@dataclass(frozen=True)
class TrainedRun:
    folder: Path
    config: RunConfig
    mlflow_run: str
    """Empty while the tracking server has not heard of the run."""
    evaluation: Evaluation


@dataclass(frozen=True)
class Hooks:
    """What a caller may want of a run in progress."""

    display: Display
    on_metrics: Callable[[int, dict[str, float]], None] | None = None
    parent_run: str | None = None


def train(config: RunConfig, out: Path, hooks: Hooks, name: str | None = None) -> TrainedRun:
    """Start a run and see it through. A run that fails is marked so, and can be resumed."""
    scaling.check_machine(config)
    config, given = _with_start(config, out)
    folder = new_folder(out, name or f"{config.task}-{config.algo}-s{config.seed}")
    with alone(folder), _resumable(folder):
        try:
            files, tracker = _set_up(config, given, folder, out, hooks)
        except BaseException as error:
            # A run that could not begin leaves nothing behind; one that was interrupted can be resumed.
            if isinstance(error, Exception) or not (folder / "config.yaml").is_file():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        hooks.display.say(f"run {folder.name}, in {folder.parent}")
        return _see_through(config, folder, files, tracker, hooks)


def _set_up(
    config: RunConfig, given: Path | None, folder: Path, out: Path, hooks: Hooks
) -> tuple[RunFiles, Tracker]:
    mlflow_store.check(out)
    write_whole(folder / "config.yaml", yaml.safe_dump(config.dump(), sort_keys=False))
    dataset = task_dataset(config, out, hooks.display)
    start = str(given) if given is not None else _start(config, folder, out, dataset, hooks)
    scaling.check_model(start, config.model)
    tracker = Tracker(out, folder, parent_id=hooks.parent_run)
    tracker.log_config(config.dump(), {"data.fingerprint": dataset.fingerprint, "start": start})
    tracker.set_tags({"task": config.task, "algo": config.algo, "run_folder": str(folder)})
    files = RunFiles(str(dataset.path.resolve()), start, dataset.fingerprint, code_of(config.plugins))
    write_whole(folder / "run.json", json.dumps(asdict(files)))
    return files, tracker


def resume(run: str, out: Path, hooks: Hooks, overrides: dict[str, Any] | None = None) -> TrainedRun:
    """Go on with a run where its last whole checkpoint is, in the same MLflow run.

    One that was stopped before its training began, perhaps while its clone was trained, is set up again.
    """
    folder = find_run(run, out)
    if is_symbolic(*(load_yaml(folder / "config.yaml").get(key, "") for key in ("algo", "task"))):
        raise ConfigError(f"{folder}: cannot be gone on with, it is short: train it again")
    load_plugins((overrides or {}).get("plugins") or ())
    config = read_config(folder)
    if overrides:
        config = parse(merge(config.dump(), overrides), str(folder / "config.yaml"))
    check_endpoint(config.env, folder)
    scaling.check_machine(config)
    with alone(folder), _resumable(folder):
        checkpoints = folder / "checkpoints"
        found = checkpoint.latest(checkpoints)
        if found is None and checkpoint.all_checkpoints(checkpoints):
            raise ConfigError(
                f"{folder}: none of its checkpoints is whole; bring one back, or remove {checkpoints} to "
                f"train from the start"
            )
        files = run_files(folder)
        if files is None:
            config, given = _with_start(config, out)
            files, tracker = _set_up(config, given, folder, out, hooks)
        else:
            check_same_data(folder, files)
            for name in changed(config.plugins, files.code):
                hooks.display.say(f"{folder.name}: {name} has changed since it began; the new one holds")
            tracker = Tracker(out, folder)
        steps = config.training.steps
        if found is not None and checkpoint.read_manifest(found).step >= steps:
            hooks.display.say(
                f"{folder.name}: all {steps} steps are done; it is evaluated again, not trained"
            )
        return _see_through(config, folder, files, tracker, hooks)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Whoever interrupts it is told its name (`lmrl_ray.cli`)."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if (folder / "config.yaml").is_file():
            stopped.add_note(f"continue with --resume {folder.name}")
        raise


def remove_unbegun(folder: Path) -> None:
    """Remove what a run that was killed in its set-up left. ConfigError while another process is at that."""
    if folder.is_dir() and run_files(folder) is None:
        with alone(folder):
            shutil.rmtree(folder)


def run_files(folder: Path) -> RunFiles | None:
    """What the run's set-up wrote last; None where it did not come to that."""
    file = folder / "run.json"
    return RunFiles(**json.loads(file.read_text())) if file.is_file() else None


def check_same_data(folder: Path, files: RunFiles) -> None:
    """ConfigError when the run's data file holds other episodes than it began with."""
    found = EpisodeDataset(files.data).fingerprint
    if files.fingerprint not in ("", found):
        raise ConfigError(
            f"{folder}: its data file {files.data} has been replaced (fingerprint {found}, not "
            f"{files.fingerprint}); put the old one back, or start a new run"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """ConfigError while another process is at the run, sweep or benchmark in `folder`: two would write the
    same files."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"{folder}: another process is at this run; wait for it") from None
        yield


def prepare(config: RunConfig, out: Path, hooks: Hooks, name: str) -> RunConfig:
    """The same configuration for several runs to share: data built, clone trained, both by absolute path; the
    model is that of `init`."""
    config, given = _with_start(config, out)
    dataset = task_dataset(config, out, hooks.display)
    init = None if given is None else str(given)
    if init is None and get_algorithm(config.algo).starts_from_clone:
        init = _clone(config, f"{name}-bc", out, dataset, hooks)
    return config.model_copy(update={"data": str(dataset.path.resolve()), "init": init})


def read_config(folder: Path) -> RunConfig:
    """The configuration of the run in `folder`, whose plugins must be loaded."""
    config = run_config_of(folder)
    if config is None:
        raise ConfigError(f"{folder}: has no config.yaml")
    return config


def _see_through(
    config: RunConfig, folder: Path, files: RunFiles, tracker: Tracker, hooks: Hooks
) -> TrainedRun:
    job = LearnerJob(config.dump(), str(folder.resolve()), files.data, files.start)
    with following_status(tracker):
        with _following(job, config, tracker, hooks):
            _learn(job, config, hooks)
        evaluation = _final_evaluation(config, folder, hooks)
        _record(folder, tracker, evaluation)
    return TrainedRun(folder, config, tracker.run_id, evaluation)


def _learn(job: LearnerJob, config: RunConfig, hooks: Hooks) -> None:
    if config.resources.workers:
        from lmrl_ray.workers import learn_on_workers

        learn_on_workers(job, config)
    else:
        learn(job, LocalContext(job.checkpoints, config.training.keep_checkpoints, hooks.on_metrics))


def _final_evaluation(config: RunConfig, folder: Path, hooks: Hooks) -> Evaluation:
    spec = get_task(config.task)
    rollouts = make_rollouts(config.resources)
    try:
        rollouts.set_policy(find_policy(str(folder), folder.parent))
        with hooks.display.bar(f"evaluating {config.algo}", spec.quick_episodes) as bar:
            return evaluate(
                rollouts,
                setting_of(config),
                episodes=spec.quick_episodes,
                seed=config.seed,
                on_progress=bar.advance,
            )
    finally:
        rollouts.close()


def _record(folder: Path, tracker: Tracker, evaluation: Evaluation) -> None:
    row = evaluation.score.row()
    tracker.log_scores({f"final/{k}": v for k, v in evaluation.score.metrics().items()})
    tracker.log_table([row], "evaluation.json")
    samples = "\n---\n".join(e.text for e in evaluation.episodes[:5])
    tracker.log_text(samples, "sample_episodes.txt")
    last = find_policy(str(folder), folder.parent)
    tracker.log_folder(last / "policy", "policy")
    returns = [e.total_return for e in evaluation.episodes if e.error is None]
    write_whole(folder / "returns.json", json.dumps(returns))
    # Last: where it is, all that a run leaves is there.
    write_whole(folder / "evaluation.json", json.dumps(row, indent=1))


@contextmanager
def following_status(tracker: Tracker) -> Iterator[None]:
    """End the MLflow run as what happened: FINISHED, KILLED (interrupted) or FAILED."""
    try:
        yield
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise
    except SystemExit as stopped:
        # So Ray Tune ends a trial that its scheduler has seen enough of.
        tracker.finish("FAILED" if stopped.code else "FINISHED")
        raise
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")


@contextmanager
def leading(tracker: Tracker) -> Iterator[None]:
    """The same of a run whose children end with it, whatever ends it."""
    with following_status(tracker):
        try:
            yield
        except BaseException:
            tracker.close_children("KILLED")
            raise


@contextmanager
def _following(job: LearnerJob, config: RunConfig, tracker: Tracker, hooks: Hooks) -> Iterator[None]:
    """While inside, threads read the journal: the bar moves, and MLflow is written at its own pace."""
    with hooks.display.bar(f"training {config.algo}", config.training.steps) as bar:

        def show(entries: list[Entry]) -> None:
            if entries:
                bar.at(entries[-1].step, entries[-1].metrics)
            if config.resources.workers and hooks.on_metrics:
                # They are elsewhere; a learner in this process tells it itself.
                for entry in entries:
                    hooks.on_metrics(entry.step, entry.metrics)

        with _each_new(job.journal, tracker.log), _each_new(job.journal, show):
            yield


@contextmanager
def _each_new(path: Path, tell: Callable[[list[Entry]], None]) -> Iterator[None]:
    """While inside, a thread tells what is new in the journal twice a second; the rest at the end."""
    reader, stop = JournalReader(path), threading.Event()

    def loop() -> None:
        while not stop.wait(0.5):
            tell(reader.new())

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        tell(reader.new())
        reader.close()


def task_dataset(config: RunConfig, out: Path, display: Display) -> EpisodeDataset:
    """The data file that is named, or the task's own, built once for each size and seed."""
    if config.data is not None:
        dataset = EpisodeDataset(config.data, require_nonempty=True)
        if dataset.task != config.task:
            raise ConfigError(f"data: {config.data} holds episodes of {dataset.task}, not of {config.task}")
        _check_first(dataset)
        return dataset
    spec = get_task(config.task)
    episodes = config.data_episodes or spec.data_episodes
    path = data.own_path(out, config.task, episodes, config.seed, config.env)
    if path.exists():
        dataset = EpisodeDataset(path, require_nonempty=True)
        data.check_own(dataset, config.task, episodes, config.seed, config.env)
        return dataset
    with display.bar(f"building data of {config.task}", episodes) as bar:
        return data.build(
            config.task, episodes, config.seed, path, env_kwargs=dict(config.env), progress=bar.reach
        )


def _check_first(dataset: EpisodeDataset) -> None:
    """What somebody else wrote is looked at before a run is made of it; the rest is when its turn comes."""
    for number, episode in enumerate(islice(dataset, ROW_GROUP_SIZE)):
        try:
            if episode.error is None:
                check_episode(episode)
        except ValueError as error:
            raise DataError(f"{dataset.path}: episode {number}: {error}") from error


def _with_start(config: RunConfig, out: Path) -> tuple[RunConfig, Path | None]:
    """The policy that `init` names, if any, and the configuration with its model."""
    if config.init is None:
        return config, None
    given = find_policy(config.init, out).resolve()
    _check_stays(config.init, given)
    return _as_start_is(config, given), given


def _check_stays(init: str, given: Path) -> None:
    """ConfigError where `init` is a run that would still remove the checkpoint that is its last one now."""
    run = given.parent.parent
    by_run = given.parent.name == "checkpoints" and Path(init).resolve() != given
    if by_run and not (run / "evaluation.json").is_file():
        raise ConfigError(
            f"init: {init} is not trained to its end; go on with it first (--resume {run.name}), or start "
            f"from a copy of {given}, which it will remove"
        )


def _as_start_is(config: RunConfig, given: Path) -> RunConfig:
    """With the model of the policy that `init` gives. ConfigError when another was asked for, or it is of no
    use."""
    task, model = trained_as(given)
    if task not in (None, config.task) and get_algorithm(config.algo).starts_from_clone:
        raise ConfigError(
            f"init: {config.init} was trained on {task}, but {config.algo} needs a policy that knows the "
            f"actions of {config.task}; train bc on it first"
        )
    if model is None:
        return config
    if config.model.name not in (ModelConfig().name, model):
        raise ConfigError(
            f"model.name: found {config.model.name!r}, but the run starts from {config.init}, whose model "
            f"is {model!r}; leave one of them out"
        )
    return config.model_copy(update={"model": config.model.model_copy(update={"name": model})})


def _start(config: RunConfig, folder: Path, out: Path, dataset: EpisodeDataset, hooks: Hooks) -> str:
    """The folder (or Hugging Face name) of the language model that a run without `init` starts from."""
    if get_algorithm(config.algo).starts_from_clone:
        return _clone(config, f"{folder.name}-bc", out, dataset, hooks)
    name = config.model.name
    if name not in models.PRESETS:
        return str(Path(name).resolve()) if Path(name).is_dir() else name  # resumed from anywhere
    texts = (s.text for e in islice(dataset, _TOKENIZER_EPISODES) for s in e.segments)
    target = folder / "start"
    models.create(name, texts, config.seed).save(target / "policy")
    return str(target.resolve())


def _clone(config: RunConfig, name: str, out: Path, dataset: EpisodeDataset, hooks: Hooks) -> str:
    """Clone the data first: the behaviour policy of an algorithm that needs one and was given none.

    A clone of that name, by an earlier start of the same that was interrupted, is gone on with.
    """
    bc = resolve_config(
        "bc",
        config.task,
        options={
            "seed": config.seed,
            "data": str(dataset.path),
            "env": dict(config.env),
            "model": config.model.model_dump(),
            "resources": config.resources.model_dump(),
            "plugins": absolute(config.plugins),
        },
    )
    hooks, folder = replace(hooks, on_metrics=None), out / name
    if not _is_run_of(bc, dataset, folder):
        hooks.display.say(
            f"{config.algo} starts from a clone of its data; no --init was given: training bc first"
        )
        folder = train(bc, out, hooks, name=name).folder
    elif not (folder / "evaluation.json").is_file():
        hooks.display.say(f"{config.algo} starts from a clone of its data: going on with {name}")
        resume(str(folder), out, hooks, {"resources": bc.resources.model_dump()})
    return str(find_policy(str(folder), out).resolve())


def _is_run_of(config: RunConfig, dataset: EpisodeDataset, folder: Path) -> bool:
    """Whether the run in `folder`, if there is one, has these data and, but for its resources, this
    configuration."""
    try:
        found = read_config(folder).model_copy(update={"resources": config.resources})
        files = run_files(folder)
    except (OSError, ValueError):
        return False
    return found == config and (files is None or files.fingerprint == dataset.fingerprint)


def check_plain(name: str) -> None:
    """ConfigError for a --name that would lead out of --out, or be hidden there."""
    if not name or name.startswith(".") or Path(name).name != name:
        raise ConfigError(f"--name {name!r}: should be a folder's name, without / and no dot in front")


def new_folder(out: Path, name: str) -> Path:
    """A folder of that name below `out` that nobody has, with the time in it where one has."""
    stamped = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = (name, stamped, *(f"{stamped}-{i}" for i in range(2, 100)))
    folder = next((out / c for c in candidates if claim(out / c)), None)
    if folder is None:
        raise ConfigError(f"--out {out}: has a hundred folders named {stamped}; give another --name")
    return folder


def claim(folder: Path) -> bool:
    """Make the folder; False where there is one already. ConfigError when it cannot be made."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"--out {folder.parent}: {folder} cannot be made: {error}") from error
    return True


def write_whole(path: Path, text: str) -> None:
    """`durable.write_whole`; CheckpointError on a full disk."""
    with checkpoint.full_disk_explained(path.parent):
        durable.write_whole(path, text)
