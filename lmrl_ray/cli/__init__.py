"""The `lmrl` command. Each sub-command imports what it needs when it runs: `--help` stays instant."""

from __future__ import annotations

import os
import sys
import traceback

_OWN_PACKAGES = ("envs", "algos", "lmrl_ray")
_INTERRUPTED = 130
"""How typer ends after a KeyboardInterrupt."""
_GOES_ON = {"sweep": "continue with --resume", "benchmark": "the same command goes on"}


def main() -> None:
    """Entry point: run the command; an error of ours is one clear line, any other a traceback."""
    # Read when torch is loaded: threads that spin while they wait for one another slow a busy machine
    # down many times over, and are hardly faster on an idle one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from lmrl_ray.cli.app import app

        app(standalone_mode=True)
    except KeyboardInterrupt:  # before typer is there to take it
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except SystemExit as stopped:
        if stopped.code == _INTERRUPTED:
            goes_on = _note(stopped) or _GOES_ON.get(next(iter(sys.argv[1:]), ""))
            print(f"interrupted; {goes_on}" if goes_on else "interrupted", file=sys.stderr)
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] not in _OWN_PACKAGES:
            traceback.print_exc()
        else:
            print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _note(stopped: BaseException) -> str | None:
    """What the interrupt that led here was told on its way: how the run is gone on with."""
    cause: BaseException | None = stopped
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            # The last: a run whose clone was being trained goes on with it.
            return next(reversed(getattr(cause, "__notes__", ())), None)
        cause = cause.__cause__ or cause.__context__
    return None
