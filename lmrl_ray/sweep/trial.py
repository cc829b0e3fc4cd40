"""One trial: a run of its own that tells Ray Tune its scores and goes on where it was when started again.

The last score is told when the run is over, its final evaluation included: Tune ends a trial that has
reached the last step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmrl_ray.config import RunConfig
from lmrl_ray.journal import Entry
from lmrl_ray.journal import read as read_journal
from lmrl_ray.learner import checkpoint_name
from lmrl_ray.plugins import load_plugins
from lmrl_ray.report.progress import Display
from lmrl_ray.sweep.config import trial_config
from lmrl_ray.sweep.exploit import Exploit, adopt, note
from lmrl_ray.train import Hooks, remove_unbegun, resume, train


@dataclass(frozen=True)
class Plan:
    """What a sweep decided before its first trial, kept for a resume."""

    name: str
    seed: int
    sweep: dict[str, Any]
    base: dict[str, Any]
    """The configuration that all trials share."""
    max_concurrent: int | None = None
    parent_run: str = ""
    """In MLflow; empty until the trials' data and clone are there."""

    @property
    def metric(self) -> str:
        return str(self.sweep["metric"])

    @property
    def is_population(self) -> bool:
        return bool(self.sweep["scheduler"] == "pbt")

    def run_name(self, trial_id: str) -> str:
        """The trial's run: its folder, and its name in MLflow."""
        return f"{self.name}-{trial_id}"


def run_trial(parameters: dict[str, Any], plan: Plan, out: str) -> None:
    """What Ray Tune calls, with the values that it drew."""
    from ray import tune

    load_plugins(plan.base["plugins"])
    name = plan.run_name(tune.get_context().get_trial_id())
    folder = Path(out) / name
    reporter = _Reporter(plan, folder)
    hooks = Hooks(Display(quiet=True), on_metrics=reporter.hear, parent_run=plan.parent_run)
    config = trial_config(plan.base, parameters, "trial")
    remove_unbegun(folder)
    if not folder.is_dir():
        train(config, Path(out), hooks, name)
    elif plan.is_population:
        _take_over(plan, folder, config, parameters)
        resume(name, Path(out), hooks)
    elif not (folder / "evaluation.json").is_file():
        reporter.repeat()
        resume(name, Path(out), hooks)
    reporter.finish()


def _take_over(plan: Plan, folder: Path, config: RunConfig, parameters: dict[str, Any]) -> None:
    """Go on from what Tune holds of this trial: its own last checkpoint, or another trial's."""
    from ray import tune

    given = tune.get_checkpoint()
    step = adopt(Path(given.path) if given else None, folder, config)
    # Tune's folder of a trial, in which its checkpoints lie, is named by its id.
    donor = plan.run_name(Path(given.path).parent.name) if given else folder.name
    if donor != folder.name:
        note(Exploit(folder.name, step, donor, parameters), folder)


@dataclass
class _Reporter:
    """Tells Tune each score once, in the order of the steps."""

    plan: Plan
    folder: Path
    told: int = field(default=0)

    def hear(self, step: int, metrics: dict[str, float]) -> None:
        if self.plan.metric in metrics and self.told < step < self.plan.base["training"]["steps"]:
            self._tell(step, metrics)

    def repeat(self) -> None:
        """Tell the last score of an earlier start, which Tune may not have seen before its driver died."""
        for entry in self._scores()[-1:]:
            self.hear(entry.step, entry.metrics)

    def finish(self) -> None:
        for entry in self._scores()[-1:]:
            if entry.step > self.told:
                self._tell(entry.step, entry.metrics)

    def _scores(self) -> list[Entry]:
        return [e for e in read_journal(self.folder / "metrics.jsonl") if self.plan.metric in e.metrics]

    def _tell(self, step: int, metrics: dict[str, float]) -> None:
        from ray import tune

        self.told = step
        given = None
        if self.plan.is_population:
            # Others may go on from it long after this run has dropped its own.
            given = tune.Checkpoint.from_directory(str(self.folder / "checkpoints" / checkpoint_name(step)))
        tune.report({**metrics, "step": step}, checkpoint=given)
