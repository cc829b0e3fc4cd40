"""Two rollout actors against one: `python benchmarks/rollout_actors.py`.

Ray actors as an evaluation has them (one thread each, groups of 8 episodes), playing the 20-turn
dialogue with a random `tiny` policy. Both pools exist all the time and take turns; the first round
warms up (processes start, load the policy) and does not count.

The note tells what two actors would do on cores of their own: twice, times the CPU seconds that an
episode costs one of two actors over those that it costs a lone one. On a machine that others use it
is the better figure, since it leaves their share out.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import benchmarks.common
from algos.play import EpisodeRequest
from algos.policy import Decoding, LanguagePolicy
from benchmarks.common import SPEC, Figure, arguments, language_model, report, speedup
from lmrl_ray.cluster import ensure_ray
from lmrl_ray.config import ResourcesConfig
from lmrl_ray.rollout import ActorRollouts, Setting

SLOTS = 8
GROUPS = 12
REPETITIONS = 3


class Pool:
    """Some actors, and what their rounds took."""

    def __init__(self, actors: int, policy: Path) -> None:
        self._rollouts = ActorRollouts(ResourcesConfig(rollout_actors=actors, slots=SLOTS))
        self._rollouts.set_policy(policy)
        self._processes = self._rollouts.process_ids()
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def play(self, groups: int) -> None:
        plugins = (str(Path(benchmarks.common.__file__).resolve()),)
        setting = Setting(SPEC.id, {}, plugins, Decoding(mode="sample"), "bench")
        requests = [EpisodeRequest(i, seed=i) for i in range(groups * SLOTS)]
        cpu, start = self._cpu_seconds(), time.perf_counter()
        played = self._rollouts.play(setting, requests)
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(self._cpu_seconds() - cpu)
        assert all(p.tokens is not None for p in played)

    def close(self) -> None:
        self._rollouts.close()

    def _cpu_seconds(self) -> float:
        """User and system time of the actors so far (Linux)."""
        fields = [Path(f"/proc/{i}/stat").read_text().rpartition(")")[2].split() for i in self._processes]
        return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def main(argv: list[str]) -> int:
    check = arguments(__doc__).parse_args(argv).check
    ensure_ray(ResourcesConfig(rollout_actors=3))  # room for both pools; only one works at a time
    with tempfile.TemporaryDirectory() as name:
        LanguagePolicy(language_model()).save(Path(name))
        two, one = Pool(2, Path(name)), Pool(1, Path(name))
    for groups in (4, *[GROUPS] * REPETITIONS):
        two.play(groups)
        one.play(groups)
    two.close()
    one.close()
    episodes = GROUPS * SLOTS
    figure = Figure(
        "rollouts, 2 actors against 1",
        f"{episodes / statistics.median(two.wall[1:]):.2f} episodes/s",
        f"{episodes / statistics.median(one.wall[1:]):.2f} episodes/s",
        speedup(two.wall[1:], one.wall[1:]),
        claim=1.6,
        note=f"by CPU time {2 * speedup(two.cpu[1:], one.cpu[1:]):.2f}x; groups of {SLOTS} episodes",
    )
    return report([figure], check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
