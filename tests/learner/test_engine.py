"""Engines: ZeRO 0-3 in one process and in two real gloo ranks against plain torch, with uneven shares."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_jobs import MIDDLE, STEPS, Job, Outcome, batches_of, make_algorithm, run
from ranks import Ranks
from safetensors.torch import load_file

from algos.batch import empty_batch
from algos.policy import ValuePolicy, load_policy
from lmrl_ray import checkpoint
from lmrl_ray.config import OptimizerConfig
from lmrl_ray.engine import TorchEngine, make_optimizer

TORCH: dict[str, Any] = {"engine": "torch"}
ALGORITHMS = ["bc", "ilql"]
STAGES = [0, 1, 2, 3]
STATE = ("state/model.safetensors", "state/optimizer.safetensors")
METRIC_TOLERANCE = {"rel": 1e-5, "abs": 1e-6}
WEIGHT_TOLERANCE = 3e-5
"""After 5 AdamW steps of lr 1e-3 to 6e-3, so that a step that went wrong is 100 times as large.

Sums of fp32 in another order differ in the last bit; where a gradient is nothing but rounding (a
key's bias, which the softmax ignores) AdamW blows it up to this.
"""


def zero(stage: int) -> dict[str, Any]:
    return {"engine": "deepspeed", "zero_stage": stage}


class Laboratory:
    """Runs jobs on one process or two, each uninterrupted run once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ranks: Ranks | None = None
        self._whole: dict[str, list[Outcome]] = {}

    def run(self, job: Job, world: int) -> list[Outcome]:
        if world == 1:
            return [run(job, 0, 1)]
        if self._ranks is None:
            self._ranks = Ranks(2, self.folder / "store")
        return self._ranks.run(job)

    def whole(self, algo: str, optimizer: dict[str, Any], world: int) -> list[Outcome]:
        """All steps, saved at MIDDLE and at the end."""
        name = self.name(algo, optimizer, world)
        if name not in self._whole:
            saves = {s: str(self.saved(algo, optimizer, world, s)) for s in (MIDDLE, STEPS)}
            self._whole[name] = self.run(Job(algo, optimizer, saves=saves), world)
        return self._whole[name]

    def saved(self, algo: str, optimizer: dict[str, Any], world: int, step: int) -> Path:
        return self.folder / f"{self.name(algo, optimizer, world)}-{step}"

    def name(self, algo: str, optimizer: dict[str, Any], world: int) -> str:
        return f"{algo}-{optimizer['engine']}{optimizer.get('zero_stage', '')}-{world}"

    def close(self) -> None:
        if self._ranks is not None:
            self._ranks.__exit__(None, None, None)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    laboratory = Laboratory(tmp_path_factory.mktemp("engines"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield laboratory
    torch.set_num_threads(threads)
    laboratory.close()


def assert_same_weights(folder: Path, other: Path) -> None:
    ours, theirs = (load_file(f / STATE[0]) for f in (folder, other))
    assert ours.keys() == theirs.keys()
    for name, weights in theirs.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=WEIGHT_TOLERANCE, msg=name)


def assert_same_bytes(folder: Path, other: Path) -> None:
    for name in STATE:
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("algo", [*ALGORITHMS, "offline-archer"])
def test_every_stage_on_one_and_two_ranks_gives_the_losses_and_weights_of_plain_torch(
    lab, algo, stage, world
):
    (plain,) = lab.whole(algo, TORCH, 1)
    outcomes = lab.whole(algo, zero(stage), world)
    for outcome in outcomes:
        assert len(outcome.metrics) == STEPS
        for found, expected in zip(outcome.metrics, plain.metrics, strict=True):
            assert found == pytest.approx(expected, **METRIC_TOLERANCE)
    assert_same_weights(lab.saved(algo, zero(stage), world, STEPS), lab.saved(algo, TORCH, 1, STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_step_in_which_nobody_acts_changes_nothing(lab, algo, tmp_path):
    for stage, world in [(2, 2), (3, 1), (3, 2)]:
        lab.whole(algo, zero(stage), world)
        before = lab.saved(algo, zero(stage), world, MIDDLE)
        first, second = tmp_path / f"{stage}-{world}-4", tmp_path / f"{stage}-{world}-5"
        job = Job(algo, zero(stage), MIDDLE, 5, load=str(before), saves={4: str(first), 5: str(second)})
        outcomes = lab.run(job, world)
        assert [o.metrics[1] for o in outcomes] == [{"actions": 0.0}] * world
        assert_same_bytes(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_a_run_goes_on_bit_by_bit_from_its_saved_state(lab, algo, stage, world, tmp_path):
    lab.whole(algo, zero(stage), world)
    start = lab.saved(algo, zero(stage), world, MIDDLE)
    job = Job(algo, zero(stage), MIDDLE, STEPS, load=str(start), saves={STEPS: str(tmp_path / "end")})
    lab.run(job, world)
    assert_same_bytes(tmp_path / "end", lab.saved(algo, zero(stage), world, STEPS))


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_plain_torch_goes_on_bit_by_bit_from_its_saved_state(lab, algo, tmp_path):
    lab.whole(algo, TORCH, 1)
    start = lab.saved(algo, TORCH, 1, MIDDLE)
    lab.run(Job(algo, TORCH, MIDDLE, STEPS, load=str(start), saves={STEPS: str(tmp_path / "end")}), 1)
    assert_same_bytes(tmp_path / "end", lab.saved(algo, TORCH, 1, STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_state_passes_unchanged_through_every_stage_and_number_of_ranks(lab, algo, tmp_path):
    """From two ranks to one and back, with weights of sizes that no number of ranks divides."""
    lab.whole(algo, zero(3), 2)
    original = last = lab.saved(algo, zero(3), 2, MIDDLE)
    way = [(TORCH, 1), (zero(2), 2), (zero(3), 1), (zero(3), 2), (zero(1), 1), (zero(0), 2), (zero(1), 2)]
    for number, (optimizer, world) in enumerate(way):
        target = tmp_path / str(number)
        job = Job(algo, optimizer, MIDDLE, MIDDLE, load=str(last), saves={MIDDLE: str(target)})
        lab.run(job, world)
        assert_same_bytes(target, original)
        last = target
    moments = load_file(original / STATE[1])
    assert any(t.numel() % 2 for t in moments.values())
    assert any(t.abs().sum() > 0 for t in moments.values())


@pytest.mark.slow
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_training_that_changes_stage_and_number_of_ranks_on_the_way_ends_the_same(lab, algo, tmp_path):
    lab.whole(algo, TORCH, 1)
    legs = [(zero(2), 2, 0, 2), (zero(3), 1, 2, 4), (zero(3), 2, 4, 5), (zero(1), 2, 5, STEPS)]
    last: str | None = None
    for optimizer, world, start, stop in legs:
        target = str(tmp_path / str(stop))
        lab.run(Job(algo, optimizer, start, stop, load=last, saves={stop: target}), world)
        last = target
    assert last is not None
    assert_same_weights(Path(last), lab.saved(algo, TORCH, 1, STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_a_state_saved_before_the_first_step_loads_and_trains_the_same(lab, stage, world, tmp_path):
    start, end = tmp_path / "start", tmp_path / "end"
    lab.run(Job("bc", zero(stage), 0, 0, saves={0: str(start)}), world)
    assert checkpoint.load_optimizer(start).keys() == {"step"}
    lab.run(Job("bc", zero(stage), 0, STEPS, load=str(start), saves={STEPS: str(end)}), world)
    lab.whole("bc", zero(stage), world)
    assert_same_bytes(end, lab.saved("bc", zero(stage), world, STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_gathered_weights_are_whole_on_every_rank_and_shared_out_again_afterwards(lab, algo, stage):
    first, second = lab.whole(algo, zero(stage), 2)
    assert first.gathered == second.gathered
    everything = sum(p.numel() for p in make_algorithm(algo).parameters())
    assert [first.resident, second.resident] == ([0, 0] if stage == 3 else [everything] * 2)


@pytest.mark.slow
def test_the_policy_saved_under_zero_3_on_two_ranks_acts_as_the_trained_one(lab):
    lab.whole("ilql", zero(3), 2)
    folder = lab.saved("ilql", zero(3), 2, STEPS)
    loaded, trained = load_policy(folder), make_algorithm("ilql")
    checkpoint.load_model(folder, trained)
    policy = trained.policy()
    assert isinstance(loaded, ValuePolicy)
    assert isinstance(policy, ValuePolicy)
    hidden = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.values.min_q(hidden), policy.values.min_q(hidden))
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    for ours, theirs in zip(loaded.trunks(), policy.trunks(), strict=True):
        reads = [t.eval()(input_ids=ids).last_hidden_state for t in (ours, theirs)]
        torch.testing.assert_close(*reads, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_trainable_parameter_takes_part_in_a_batch_without_actions(algo):
    """ZeRO-3 would apply its last gradient again to one that does not."""
    algorithm = make_algorithm(algo)
    loss = algorithm(empty_batch().normalized_by(10))
    loss.value.backward()
    assert loss.value.item() == 0
    without = [n for n, p in algorithm.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(float(p.grad.abs().sum()) == 0 for p in algorithm.parameters() if p.grad is not None)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_asks_for_memory_by_the_size_of_the_model(stage):
    """By default DeepSpeed takes and keeps 2 GB for each engine, until no process can be forked."""
    run(Job("bc", zero(0), stop=1), 0, 1)  # what imports and threads take
    before = _address_space_mb()
    run(Job("bc", zero(stage), stop=1), 0, 1)
    assert _address_space_mb() - before < 500


@pytest.mark.slow
def test_a_worker_imports_deepspeed_without_mlflow_and_may_import_it_later():
    code = "import sys; from lmrl_ray.engine import import_deepspeed; import_deepspeed()"
    code += "; assert 'mlflow' not in sys.modules; import mlflow; assert mlflow.MlflowClient"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def _address_space_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_targets_follow_the_online_weights_by_the_polyak_rate():
    algorithm = make_algorithm("ilql")
    engine = TorchEngine(algorithm, OptimizerConfig(engine="torch"))
    rate = algorithm.config.polyak
    pairs = [("target_trunk", "online_values.trunk"), ("target_q", "online_values.q")]
    expected = {k: v.double() for k, v in copy.deepcopy(algorithm.state_dict()).items()}
    for step in range(3):
        engine.train_step(batches_of(step, 0, 1, algorithm._start[0].codec), lr=1e-2)
        now = algorithm.state_dict()
        for target, online in pairs:
            names = [n for n in now if n.startswith(f"{target}.")]
            assert names
            for name in names:
                source = now[name.replace(target, online, 1)].double()
                expected[name] = (1 - rate) * expected[name] + rate * source
                torch.testing.assert_close(now[name].double(), expected[name], rtol=0, atol=1e-6)


def test_the_gradient_is_clipped_to_the_norm_and_the_metrics_tell_the_norm_before():
    algorithm = make_algorithm("bc")
    engine = TorchEngine(algorithm, OptimizerConfig(engine="torch", max_grad_norm=0.5))
    batches = batches_of(0, 0, 1, algorithm._start[0].codec)
    metrics = engine.train_step(batches, lr=1e-9)
    first = {n: t for n, t in engine.optimizer_state().items() if n.startswith("exp_avg/")}
    # After one step the first moment is (1 - beta1) times the clipped gradient.
    clipped = sum(float((t.double() / 0.1).square().sum()) for t in first.values()) ** 0.5
    assert clipped == pytest.approx(0.5, rel=1e-4)
    assert metrics["grad_norm"] > 0.5


def test_the_loss_of_a_step_is_the_mean_over_action_tokens_however_they_are_portioned():
    algorithm = make_algorithm("bc")
    codec = algorithm._start[0].codec
    whole = batches_of(2, 0, 1, codec)
    portions = [*batches_of(2, 0, 2, codec), *batches_of(2, 1, 2, codec)]
    assert len(portions) > len(whole)
    losses = []
    for batches in (whole, portions):
        engine = TorchEngine(make_algorithm("bc"), OptimizerConfig(engine="torch"))
        losses.append(engine.train_step(batches, lr=1e-3)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    count = whole[0].num_actions
    assert losses[0] == pytest.approx(algorithm(whole[0].normalized_by(1)).value.item() / count, rel=1e-5)


def test_an_actor_learns_at_its_own_rate():
    """The first step of Adam is the learning rate, whatever the gradient."""
    algorithm = make_algorithm("offline-archer")
    before = {n: p.detach().clone() for n, p in algorithm.named_parameters()}
    engine = TorchEngine(algorithm, OptimizerConfig(engine="torch"))
    engine.train_step(batches_of(2, 0, 1, algorithm._start[0].codec), lr=1e-3)
    steps = {n: (p - before[n]).abs().max().item() for n, p in algorithm.named_parameters()}
    assert max(s for n, s in steps.items() if n.startswith("lm.")) == pytest.approx(3e-4, rel=1e-2)
    assert max(s for n, s in steps.items() if n.startswith("critic.")) == pytest.approx(1e-3, rel=1e-2)


def test_weight_decay_spares_biases_and_norms():
    algorithm = make_algorithm("bc")
    optimizer = make_optimizer(
        dict(algorithm.named_parameters()),
        OptimizerConfig(engine="torch", weight_decay=0.1),
        algorithm.lr_scale,
    )
    decay = {p.dim(): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {2: 0.1, 1: 0.0}
