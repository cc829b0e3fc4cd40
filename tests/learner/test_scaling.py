"""Adapters, bfloat16, recomputation, compiling and offload change what a run costs, not what it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_jobs import MIDDLE, STEPS, Job, batches_of, make_algorithm, run
from ranks import Ranks
from safetensors.torch import load_file
from small_runs import STEPS as RUN_STEPS
from small_runs import Stop, config_of, job_of, learn_here, weights

from algos import lora, models
from algos.lora import LoraError, LoraSettings
from algos.networks import hidden_states
from algos.policy import load_policy
from lmrl_ray import checkpoint
from lmrl_ray.config import ConfigError, OptimizerConfig, ResourcesConfig
from lmrl_ray.engine import TorchEngine
from lmrl_ray.learner import LocalContext
from lmrl_ray.report.progress import Display
from lmrl_ray.train import Hooks, train

TORCH: dict[str, Any] = {"engine": "torch"}
LORA = {"lora": {"r": 4}}
ALL_AT_ONCE = {**LORA, "bf16": True, "gradient_checkpointing": True}
TOLERANCE = 3e-5
"""Of weights, as in test_engine: what AdamW makes of rounding in sums of another order."""
WEIGHTS = "state/model.safetensors"


def zero(stage: int, **offload: str) -> dict[str, Any]:
    return {"engine": "deepspeed", "zero_stage": stage, **offload}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """The weights that plain torch ends with, by algorithm and options; each run once."""
    folder, known = tmp_path_factory.mktemp("plain"), {}

    def end(algo, model):
        key = f"{algo}-{model}"
        if key not in known:
            target = folder / str(len(known))
            run(Job(algo, TORCH, saves={STEPS: str(target)}, model=model), 0, 1)
            known[key] = load_file(target / WEIGHTS)
        return known[key]

    return end


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    with Ranks(2, tmp_path_factory.mktemp("ranks") / "store") as ranks:
        yield ranks


def assert_same(found, expected, tolerance=TOLERANCE):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("algo", ["bc", "ilql", "offline-archer"])
def test_recomputed_layers_give_the_weights_of_kept_ones(algo, ends):
    assert_same(ends(algo, {"gradient_checkpointing": True}), ends(algo, {}), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "model"),
    [
        (zero(3), {"gradient_checkpointing": True}),
        (zero(1, offload_optimizer="cpu"), {}),
        (zero(2, offload_optimizer="cpu"), {}),
        (zero(3, offload_optimizer="cpu"), {}),
        (zero(3, offload_param="cpu"), {}),
        (zero(3, offload_optimizer="cpu", offload_param="cpu"), LORA),
    ],
)
def test_offloaded_and_recomputed_training_ends_with_the_weights_of_plain_torch_and_resumes(
    optimizer, model, ends, tmp_path
):
    half, end, again = (str(tmp_path / name) for name in ("half", "end", "again"))
    run(Job("ilql", optimizer, saves={MIDDLE: half, STEPS: end}, model=model), 0, 1)
    assert_same(load_file(f"{end}/{WEIGHTS}"), ends("ilql", model))
    run(Job("ilql", optimizer, MIDDLE, STEPS, load=half, saves={STEPS: again}, model=model), 0, 1)
    assert_same(load_file(f"{again}/{WEIGHTS}"), load_file(f"{end}/{WEIGHTS}"), 0)


@pytest.mark.parametrize("algo", ["bc", "offline-archer"])
def test_layers_are_recomputed_also_where_the_algorithm_learns_in_evaluation_mode(algo):
    algorithm = make_algorithm(algo, {"gradient_checkpointing": True}).train()
    calls: list[bool] = []
    block = algorithm.lm.transformer.h[0]
    block.attn.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    modes = [m.training for m in algorithm.modules()]
    loss = algorithm(batches_of(0, 0, 1, algorithm._start[0].codec)[0].normalized_by(9)).value
    assert len(calls) == 1
    loss.backward()
    assert len(calls) == 2
    assert [m.training for m in algorithm.modules()] == modes


@pytest.mark.parametrize("model", [{"bf16": True}, ALL_AT_ONCE])
def test_in_bf16_trunks_compute_in_it_and_what_learns_stays_in_float32(model):
    algorithm = make_algorithm("ilql", model).train()
    engine = TorchEngine(algorithm, OptimizerConfig(engine="torch"))
    matrix = algorithm.online_values.trunk.h[0].mlp.c_fc
    seen: dict[str, Any] = {}
    matrix.register_forward_hook(lambda m, i, out: seen.update(trunk=out.dtype))
    algorithm.online_values.q[0].register_forward_hook(lambda m, i, out: seen.update(q=out[0].dtype))
    algorithm.target_q[0].register_forward_hook(lambda m, i, out: seen.update(target=out[0].dtype))
    metrics = engine.train_step(batches_of(0, 0, 1, algorithm._start[0].codec), lr=1e-3)
    assert seen == {"trunk": torch.bfloat16, "q": torch.float32, "target": torch.float32}
    assert {t.dtype for n, t in algorithm.learnt_state().items()} == {torch.float32}
    plain = make_algorithm("ilql", {k: v for k, v in model.items() if k == "lora"}).train()
    exact = TorchEngine(plain, OptimizerConfig(engine="torch"))
    expected = exact.train_step(batches_of(0, 0, 1, plain._start[0].codec), lr=1e-3)
    assert metrics["loss"] == pytest.approx(expected["loss"], rel=0.01)
    assert metrics["loss"] != expected["loss"]


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "model"), [(TORCH, {}), (zero(2), LORA)])
def test_a_compiled_trunk_is_really_compiled_and_learns_the_same(optimizer, model, ends, tmp_path):
    from torch._dynamo.utils import counters

    expected = ends("bc", model)
    counters.clear()
    job = Job("bc", optimizer, saves={STEPS: str(tmp_path / "end")}, model={"compile": "aot_eager", **model})
    run(job, 0, 1)
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
    assert_same(load_file(tmp_path / "end" / WEIGHTS), expected)


def test_adapters_learn_beside_a_base_that_is_there_once_and_does_not_move():
    algorithm = make_algorithm("ilql", LORA)
    lm = algorithm._start[0].model
    base = {id(p): p.detach().clone() for p in lm.parameters() if not p.requires_grad}
    learnt = algorithm.learnt_state()
    assert sum(id(p) in base for p in algorithm.parameters()) == len(base)
    assert any(n.startswith("target_trunk.") for n in learnt)
    assert all(".lora_" in n for n in learnt if "trunk." in n)
    before = {n: t.detach().clone() for n, t in learnt.items()}
    engine = TorchEngine(algorithm, OptimizerConfig(engine="torch"))
    engine.train_step(batches_of(0, 0, 1, algorithm._start[0].codec), lr=1e-2)
    assert all(torch.equal(p, base[id(p)]) for p in algorithm.parameters() if id(p) in base)
    now = algorithm.learnt_state()
    assert {n for n in now if torch.equal(now[n], before[n])} == set()
    for name in [n for n in now if n.startswith("target_trunk.")]:
        online = now[name.replace("target_trunk", "online_values.trunk")]
        torch.testing.assert_close(now[name], before[name].lerp(online, 0.2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("algo", ["bc", "ilql", "offline-archer"])
def test_a_saved_policy_has_its_adapters_added_to_plain_weights_and_acts_as_the_trained_one(algo, tmp_path):
    algorithm = make_algorithm(algo, ALL_AT_ONCE).eval()
    algorithm.policy().save(tmp_path)
    loaded, ids = load_policy(tmp_path), torch.tensor([[3, 1, 4, 1, 5]])
    assert not any("lora" in n for n in loaded.state_dict())
    different = 0
    for ours, theirs in zip(loaded.trunks(), algorithm.policy().trunks(), strict=True):
        reads = [t(input_ids=ids).last_hidden_state for t in (ours, theirs.float())]
        torch.testing.assert_close(*reads, rtol=1e-4, atol=1e-5)
        with lora.without_adapters(theirs):
            different += not torch.allclose(theirs(input_ids=ids).last_hidden_state, reads[0], atol=1e-4)
    assert different, "the adapters say something"


def test_ppo_compares_itself_with_the_model_without_its_adapters():
    algorithm = make_algorithm("ppo", LORA).eval()
    batch = batches_of(0, 0, 1, algorithm._start[0].codec)[0].normalized_by(9)
    assert algorithm._reference == []
    seen = algorithm(batch, look=True).metrics
    with lora.without_adapters(algorithm.lm), torch.no_grad():
        hidden = hidden_states(algorithm.lm.base_model, batch.input_ids, batch.mask)
        expected = algorithm.log_prob(hidden[batch.state_idx], batch.action_tok)
    assert torch.equal(seen["reference"], expected)
    assert not torch.allclose(seen["old"], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("algo", ["ilql", "offline-archer"])
def test_adapters_on_two_ranks_learn_at_every_stage_what_they_do_in_plain_torch(
    algo, stage, two_ranks, ends, tmp_path
):
    two_ranks.run(Job(algo, zero(stage), saves={STEPS: str(tmp_path / "end")}, model=LORA))
    assert_same(load_file(tmp_path / "end" / WEIGHTS), ends(algo, LORA))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_all_options_at_once_on_two_ranks_have_the_losses_of_plain_torch(stage, two_ranks):
    """Losses, not weights: sums of another order round differently in bfloat16, and AdamW amplifies it."""
    plain = run(Job("bc", TORCH, model=ALL_AT_ONCE), 0, 1)
    for outcome in two_ranks.run(Job("bc", zero(stage), model=ALL_AT_ONCE)):
        for found, expected in zip(outcome.metrics, plain.metrics, strict=True):
            assert found.get("loss", 0.0) == pytest.approx(expected.get("loss", 0.0), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("model", [{}, LORA])
@pytest.mark.parametrize("stage", [2, 3])
def test_a_run_on_two_ranks_then_one_then_two_ends_as_one_that_never_changed(
    stage, model, two_ranks, ends, tmp_path
):
    first, second, third, whole = (str(tmp_path / n) for n in ("first", "second", "third", "whole"))
    two_ranks.run(Job("ilql", zero(stage), 0, 2, saves={2: first}, model=model))
    run(Job("ilql", zero(stage), 2, 4, load=first, saves={4: second}, model=model), 0, 1)
    two_ranks.run(Job("ilql", zero(stage), 4, STEPS, load=second, saves={STEPS: third}, model=model))
    two_ranks.run(Job("ilql", zero(stage), saves={STEPS: whole}, model=model))
    assert_same(load_file(f"{third}/{WEIGHTS}"), load_file(f"{whole}/{WEIGHTS}"))
    assert_same(load_file(f"{third}/{WEIGHTS}"), ends("ilql", model))


class StopAtHalf(LocalContext):
    def save(self, write, step, metrics):
        super().save(write, step, metrics)
        if step == RUN_STEPS // 2:
            raise Stop


@pytest.mark.parametrize("optimizer", [TORCH, pytest.param(zero(3), marks=pytest.mark.slow)])
def test_a_run_with_adapters_resumes_bit_by_bit_from_a_checkpoint_without_the_base(
    optimizer, material, tmp_path
):
    config = config_of(
        material, "ilql", optimizer=optimizer, model={"lora": {"r": 2, "dropout": 0.1}, "bf16": True}
    )
    whole, halved = (job_of(material, config, tmp_path / name) for name in ("whole", "halved"))
    learn_here(whole)
    with pytest.raises(Stop):
        learn_here(halved, StopAtHalf(halved.checkpoints, keep=10))
    learn_here(halved)
    last = checkpoint.latest(whole.checkpoints)
    assert weights(checkpoint.latest(halved.checkpoints)) == weights(last)
    saved = load_file(last / WEIGHTS)
    assert all(".lora_" in name for name in saved if "trunk." in name)
    with pytest.raises(checkpoint.CheckpointError, match="does not fit the configuration"):
        checkpoint.load_model(last, make_algorithm("ilql"))


def test_unknown_target_modules_end_a_run_before_it_leaves_anything(material, tmp_path, fresh_mlflow_db):
    (tmp_path / "mlflow.db").write_bytes(fresh_mlflow_db.read_bytes())
    config = config_of(material, "bc", model={"lora": {"target_modules": ["q_proj"]}})
    with pytest.raises(LoraError, match=r"target_modules.*q_proj.*takes adapters in.*c_attn"):
        train(config, tmp_path, Hooks(Display(quiet=True)), name="run")
    assert not (tmp_path / "run").exists()


def test_a_model_that_cannot_recompute_its_layers_is_refused_with_advice(monkeypatch):
    model = make_algorithm("bc").lm
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    with pytest.raises(models.ModelError, match=r"model\.gradient_checkpointing: GPT2LMHeadModel has none"):
        models.recompute_layers(model)


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(LoraError, match=r"lmrl-ray\[lora\]"):
        lora.add_adapters(make_algorithm("bc").lm, LoraSettings())


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"model": {"compile": "indctor"}}, r"model\.compile: found 'indctor', known backends: .*inductor"),
        (
            {"optimizer": {**zero(3), "offload_param": "nvme", "nvme_path": "/scratch"}},
            "the learner runs on a CPU",
        ),
        (
            {
                "optimizer": {**zero(3), "offload_optimizer": "nvme", "nvme_path": "/scratch"},
                "resources": {"workers": 2},
            },
            "the learner runs on a CPU",
        ),
    ],
)
def test_what_the_machine_cannot_do_is_refused_before_the_run_has_a_folder(
    sections, says, material, tmp_path
):
    config = config_of(material, "bc", **sections)
    with pytest.raises(ConfigError, match=says):
        train(config, tmp_path, Hooks(Display(quiet=True)), name="run")
    assert list(tmp_path.iterdir()) == []


def test_elastic_workers_need_no_more_of_a_cluster_than_the_least():
    assert ResourcesConfig(workers=[2, 5]).min_workers == 2
    assert ResourcesConfig(workers=3).min_workers == 3
