"""Population-based training: a trial goes on from another's weights and optimiser, with changed values."""

import json
import os
import signal
import time

import pytest
import torch
import yaml
from safetensors.torch import load_file
from support import tiny_language_model
from sweeps import runs_of

from algos.base import get_algorithm
from algos.ppo import PPOConfig
from lmrl_ray.checkpoint import CheckpointError, read_manifest
from lmrl_ray.config import ConfigError, merge, parse
from lmrl_ray.report.progress import Display
from lmrl_ray.resolve import resolve_config
from lmrl_ray.sweep import read_sweep
from lmrl_ray.sweep.exploit import Exploit, adopt, exploits_of, note
from lmrl_ray.sweep.tuning import _within
from lmrl_ray.train import Hooks, read_config, resume, train

STEPS = 8
QUIET = Hooks(Display(quiet=True))
PBT = {
    "algo": "ppo",
    "scheduler": "pbt",
    "asha": None,
    "trials": 2,
    "space": {
        "optimizer.lr": {"loguniform": [1.0e-4, 1.0e-2]},
        "algorithm.kl_weight": {"loguniform": [1.0e-3, 0.1]},
        "algorithm.clip": {"choice": [0.1, 0.2, 0.3]},
    },
    "pbt": {"interval_steps": 2, "quantile": 0.5},
    "config": {
        "online": {"episodes": 4, "epochs": 1},
        "training": {"steps": STEPS, "eval_every": 2, "save_every": 2, "keep_checkpoints": 1},
    },
}


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"search": "optuna"}, r"search: found 'optuna', but scheduler pbt changes values while trials run"),
        ({"trials": 1}, r"trials: found 1, but a population has at least 2"),
        ({"max_concurrent": 1}, r"max_concurrent: found 1, but scheduler pbt keeps its whole population"),
        ({"config": {"resources": {"workers": 1}}}, r"resources\.workers: found 1.*in its own process"),
        ({"config": {"training": {"save_every": 3}}}, r"save_every: is 3.*needs a checkpoint at each; use 2"),
        (
            {"metric": "loss", "config": {"training": {"log_every": 4, "eval_every": 3, "save_every": 4}}},
            r"save_every: is 4, but loss is reported every 1 steps .* use 1",
        ),
        ({"pbt": {"interval_steps": 3}}, r"interval_steps: found 3.*every 2 steps; use a multiple"),
        ({"pbt": {"interval_steps": 8}}, r"interval_steps: found 8, but training ends after 8 steps"),
        ({"space": {"training.batch_episodes": {"choice": [2, 4]}}}, r"only algorithm, optimizer, decoding"),
        ({"space": {"optimizer.schedule": {"choice": ["cosine"]}}}, r"only numbers can be perturbed"),
        ({"space": {"algorithm.initial_value": {"uniform": [-1, 0]}}}, r"shapes what a trial starts from"),
        ({"asha": {"grace_steps": 1}}, r"asha: has settings, but scheduler is pbt"),
    ],
)
def test_what_a_population_cannot_do_is_refused_with_the_reason(sweep_file, over, message):
    config = merge(PBT["config"], over.get("config", {}))
    with pytest.raises(ConfigError, match=message):
        read_sweep(sweep_file(**{**PBT, **over, "config": config}), 0)


def test_a_perturbed_value_stays_in_its_range():
    ends = {"a": (0.1, 1.0)}
    assert _within(ends, {"a": 1.2, "b": 5}) == {"a": 1.0, "b": 5}
    assert _within(ends, {"a": 0.08}) == {"a": 0.1}


def test_a_kl_weight_that_nothing_steers_is_the_configurations_and_not_the_checkpoints():
    def ppo(**settings):
        return get_algorithm("ppo")(PPOConfig(**settings), tiny_language_model(["a b"]))

    changed = ppo(kl_weight=0.5)
    changed.load_state_dict(ppo(kl_weight=0.2).state_dict())
    assert float(changed.kl_weight) == 0.5
    steered = ppo(kl_weight=0.5, kl_target=1.0)
    steered.load_state_dict(ppo(kl_weight=0.2, kl_target=1.0).state_dict())
    assert float(steered.kl_weight) == pytest.approx(0.2)


def test_a_run_goes_on_from_anothers_state_with_changed_values(toy, toy_policy, toy_data, out):
    options = {
        "plugins": [toy],
        "init": str(toy_policy),
        "data": str(toy_data),
        "optimizer": {"engine": "torch", "warmup_steps": 0},
        "training": {"steps": 2, "batch_episodes": 4, "save_every": 1, "keep_checkpoints": 3},
    }
    first = resolve_config("bc", "toy", options=options)
    donor = train(first, out, QUIET, "donor").folder
    taker = train(first.model_copy(update={"seed": 5}), out, QUIET, "taker").folder

    changed = parse(merge(first.dump(), {"training": {"steps": 3}, "optimizer": {"lr": 0.03}}))
    assert adopt(donor / "checkpoints" / "step-000002", taker, changed) == 2
    assert [p.name for p in (taker / "checkpoints").iterdir()] == ["step-000002"]
    assert read_config(taker).optimizer.lr == 0.03
    resume("taker", out, QUIET)
    resume("donor", out, QUIET, {"training": {"steps": 3}, "optimizer": {"lr": 0.03}})

    for part in ("model", "optimizer"):
        mine, theirs = (
            load_file(run / "checkpoints" / "step-000003" / "state" / f"{part}.safetensors")
            for run in (taker, donor)
        )
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[k], theirs[k]) for k in mine)
    assert read_manifest(taker / "checkpoints" / "step-000003").config["optimizer"]["lr"] == 0.03


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path, toy, toy_policy):
    given = tmp_path / "donor" / "checkpoint_000000"
    given.mkdir(parents=True)
    config = resolve_config("bc", "toy", options={"plugins": [toy], "init": str(toy_policy)})
    with pytest.raises(CheckpointError, match=r"no readable manifest.*taker cannot go on from it"):
        adopt(given, tmp_path / "taker", config)


def test_a_run_that_is_given_no_checkpoint_starts_over(tmp_path, toy, toy_policy):
    (tmp_path / "checkpoints" / "step-000002").mkdir(parents=True)
    config = resolve_config("bc", "toy", options={"plugins": [toy], "init": str(toy_policy)})
    assert adopt(None, tmp_path, config) == 0
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoints", "config.yaml"]


def test_an_exploit_that_a_resume_repeats_counts_once(tmp_path):
    exploits = [Exploit("a", 2, "b", {"lr": 0.1}), Exploit("a", 4, "b", {"lr": 0.2})]
    for exploit in (*exploits, exploits[1]):
        note(exploit, tmp_path)
    assert exploits_of(tmp_path) == exploits


@pytest.mark.slow
def test_a_population_whose_driver_is_killed_goes_on(sweep_file, out, client, started, tmp_path):
    # Trials of a second each would be over one after the other.
    together = {"env": {"log": str(tmp_path / "log"), "meet": 2}}
    file = sweep_file(**{**PBT, "config": {**PBT["config"], **together}})
    first = started("sweep", file, "--out", out, "--json")
    while not list(out.glob("toy_sweep-*/exploits.jsonl")):
        assert first.poll() is None, first.stderr.read()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()

    second = started("sweep", file, "--out", out, "--resume", "toy_sweep", "--json")
    printed, said = second.communicate(timeout=500)
    assert second.returncode == 0, said
    result = json.loads(printed)
    assert [(t["status"], t["steps"]) for t in result["trials"]] == [("done", STEPS)] * 2
    names = {t["name"] for t in result["trials"]}
    assert {r.info.status for r in runs_of(client).values()} == {"FINISHED"}
    assert set(runs_of(client)) == names | {"toy_sweep"}
    assert result["exploits"]
    for exploit in result["exploits"]:
        assert {exploit["trial"], exploit["donor"]} == names
        assert exploit["step"] in range(2, STEPS, 2)
    for trial in result["trials"]:
        config = yaml.safe_load((out / trial["name"] / "config.yaml").read_text())
        assert config["optimizer"]["lr"] == trial["parameters"]["optimizer.lr"]
        history = client.get_metric_history(runs_of(client)[trial["name"]].info.run_id, "eval/return")
        steps = [m.step for m in history]
        assert steps == sorted(set(steps))
        assert steps[-1] == STEPS
