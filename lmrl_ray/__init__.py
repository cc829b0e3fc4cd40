"""Where it runs: data files, rollout actors, learner workers, checkpoints, tracking, sweeps, command line."""
