"""Sweeps: Ray Tune over the configuration of a training run.

A trial is one run of `lmrl train`, so what wins here is a file that `lmrl train --config` takes. Each
trial is a child run in MLflow, and continues from its own checkpoint when the sweep is resumed.

    config.py    the file: what may be searched, with which searcher and scheduler
    run.py       from a file to a finished sweep; resume
    tuning.py    the file as Ray Tune takes it: searcher, scheduler, stop rules, placement
    trial.py     one trial: a run that reports to Tune
    exploit.py   population-based training: go on from another trial's checkpoint
    results.py   the trials best first, the winner's configuration as a file
"""

from lmrl_ray.sweep.config import SweepConfig, read_sweep, trial_config
from lmrl_ray.sweep.results import SweepResult, Trial
from lmrl_ray.sweep.run import run_sweep

__all__ = ["SweepConfig", "SweepResult", "Trial", "read_sweep", "run_sweep", "trial_config"]
