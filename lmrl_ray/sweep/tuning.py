"""A sweep as Ray Tune takes it: searcher, scheduler, stop rules, and where a trial is placed.

A trial is a placement group of its process and the rollout actors that it starts. Without learner
workers that is all: it learns in its process. With `resources.workers`, Ray Train makes a placement group
of its own for them, and they start rollout actors outside of either; the trial's own actors play its final
evaluation. What keeps all of this placeable is the number of trials at a time.
"""

from __future__ import annotations

import os
import random
import sys
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lmrl_ray.cluster import Bundle, learner_bundle, outside_bundles, player_bundles, room_for
from lmrl_ray.config import ResourcesConfig, parse
from lmrl_ray.sweep.config import SweepConfig
from lmrl_ray.sweep.trial import Plan, run_trial

_DRIVER = {"CPU": 0.01}
"""Of a trial's process that only waits for its learner workers."""
_KEPT = 3
"""Checkpoints that Tune keeps of each member of a population: others may be about to copy them."""


def room_of(plan: Plan) -> int | None:
    """Connect to a cluster that holds a trial, and how many at a time; None: as many as Ray places.

    The plan's plugins must be loaded. Raises ConfigError.
    """
    sweep, resources = SweepConfig.model_validate(plan.sweep), parse(plan.base, "sweep").resources
    bundles = trial_bundles(resources) + outside_bundles(resources)
    return room_for({"a trial": (bundles, resources)}, plan.max_concurrent or sweep.max_concurrent)


def tune_plan(plan: Plan, folder: Path, out: Path, at_once: int | None) -> Any:
    """Run or go on with all trials; returns Tune's results. The plan's plugins must be loaded."""
    sweep, resources = SweepConfig.model_validate(plan.sweep), parse(plan.base, "sweep").resources
    # A trial that began after Tune last wrote its state is lost to a resume; by default that is 10 seconds.
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")
    # By default Tune takes Ctrl-C for the end of the sweep, and returns what there is.
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    from ray import tune

    trainable = tune.with_resources(
        tune.with_parameters(run_trial, plan=plan, out=str(out)),
        tune.PlacementGroupFactory(trial_bundles(resources)),
    )
    space = {key: drawn.domain() for key, drawn in sweep.space.items()}
    # Population-based training draws from both, and takes no seed.
    random.seed(plan.seed)
    np.random.seed(plan.seed % 2**32)
    if tune.Tuner.can_restore(str(folder)):
        tuner = tune.Tuner.restore(
            str(folder), trainable=trainable, param_space=space, resume_unfinished=True, restart_errored=True
        )
        return _fit(tuner)
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode=sweep.mode,
            num_samples=sweep.trials,
            max_concurrent_trials=at_once,
            scheduler=_scheduler(sweep, plan.base["training"]["steps"]),
            search_alg=_searcher(sweep, plan.seed, at_once),
            trial_dirname_creator=_by_id,
        ),
        run_config=tune.RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            verbose=0,
            stop=_stopper(sweep, plan.base["training"]["steps"]),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_KEPT),
            # A lost node ends its trials: they go on elsewhere from their checkpoints.
            failure_config=tune.FailureConfig(max_failures=resources.max_failures),
        ),
    )
    return _fit(tuner)


def trial_bundles(resources: ResourcesConfig) -> list[Bundle]:
    """What a trial reserves: its process first, then its rollout actors."""
    head = dict(_DRIVER) if resources.workers else learner_bundle(resources)
    return [head, *player_bundles(resources)]


def _searcher(sweep: SweepConfig, seed: int, at_once: int | None) -> Any:
    from ray.tune.search import BasicVariantGenerator

    if sweep.search == "random":
        return BasicVariantGenerator(random_state=seed, max_concurrent=at_once or 0)
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=sweep.optuna.random_trials, multivariate=sweep.optuna.multivariate, seed=seed % 2**32
    )
    return OptunaSearch(sampler=sampler)


def _scheduler(sweep: SweepConfig, steps: int) -> Any:
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining

    if sweep.scheduler == "none":
        return FIFOScheduler()
    if sweep.scheduler == "asha":
        return ASHAScheduler(
            time_attr="step",
            max_t=steps,
            grace_period=min(sweep.asha.grace_steps, steps),
            reduction_factor=sweep.asha.reduction_factor,
        )
    ends = {k: (min(d.examples()), max(d.examples())) for k, d in sweep.space.items()}
    return PopulationBasedTraining(
        time_attr="step",
        perturbation_interval=sweep.pbt.interval_steps,
        # A list is a choice among neighbours; `tune.choice` would be multiplied like a range.
        hyperparam_mutations={k: d.choice or d.domain() for k, d in sweep.space.items()},
        quantile_fraction=sweep.pbt.quantile,
        resample_probability=sweep.pbt.resample,
        perturbation_factors=sweep.pbt.factors,
        custom_explore_fn=partial(_within, ends),
    )


def _within(ends: dict[str, tuple[float, float]], parameters: dict[str, Any]) -> dict[str, Any]:
    """A perturbed value that left its range is put at the range's end."""
    return {k: min(max(v, ends[k][0]), ends[k][1]) if k in ends else v for k, v in parameters.items()}


def _stopper(sweep: SweepConfig, steps: int) -> Any:
    from ray.tune.stopper import CombinedStopper, FunctionStopper, TrialPlateauStopper

    rules = [FunctionStopper(partial(_is_over, sweep.metric, sweep.sign, sweep.stop.target, steps))]
    if sweep.stop.plateau is not None:
        plateau = sweep.stop.plateau
        rules.append(
            TrialPlateauStopper(
                sweep.metric, std=plateau.std, num_results=plateau.reports, grace_period=plateau.reports
            )
        )
    return CombinedStopper(*rules)


def _is_over(
    metric: str, sign: int, target: float | None, steps: int, trial_id: str, result: dict[str, Any]
) -> bool:
    """Whether a trial has reached its last step (which no scheduler should look at) or the target."""
    if target is not None and sign * result[metric] >= sign * target:
        return True
    return bool(result["step"] >= steps)


def _by_id(trial: Any) -> str:
    """Tune's folder of a trial."""
    return str(trial.trial_id)


def _fit(tuner: Any) -> Any:
    """What Ray prints is not the command's result."""
    with redirect_stdout(sys.stderr):
        return tuner.fit()
