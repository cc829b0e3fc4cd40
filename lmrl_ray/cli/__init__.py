"""The `lmrl` command. Each sub-command imports what it needs when it runs: `--help` stays instant."""

from __future__ import annotations

import os
import sys
import traceback

_OWN_PACKAGES = ("envs", "algos", "lmrl_ray")
_INTERRUPTED = 130
"""How typer ends after a KeyboardInterrupt."""
_GOES_ON = {
    "train": "; continue with --resume",
    "sweep": "; continue with --resume",
    "benchmark": "; the same command goes on",
}


def main() -> None:
    """Entry point: run the command; an error of ours is one clear line, any other a traceback."""
    # Read when torch is loaded: threads that spin while they wait for one another slow a busy machine
    # down many times over, and are hardly faster on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from lmrl_ray.cli.app import app

    try:
        app(standalone_mode=True)
    except SystemExit as stopped:
        if stopped.code == _INTERRUPTED:
            command = next(iter(sys.argv[1:]), "")
            print(f"interrupted{_GOES_ON.get(command, '')}", file=sys.stderr)
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] not in _OWN_PACKAGES:
            traceback.print_exc()
        else:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
