"""Checkpoints: whole or not there, checked when read, never executed, readable by transformers."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file
from small_runs import EVERY, STEPS, Stop, config_of, everything, job_of, learn_here, weights
from support import tiny_language_model

from algos import models
from algos.base import get_algorithm
from algos.policy import load_policy
from lmrl_ray import checkpoint
from lmrl_ray.checkpoint import CheckpointError
from lmrl_ray.config import ConfigError
from lmrl_ray.learner import LocalContext
from lmrl_ray.resolve import find_policy

LAST, BEFORE = f"step-{STEPS:06d}", f"step-{STEPS - EVERY:06d}"


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    """Finished runs of BC and ILQL; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = {a: job_of(material, config_of(material, a), folder / a) for a in ("bc", "ilql")}
    for job in jobs.values():
        learn_here(job)
    return jobs


@pytest.fixture
def run(finished, material, tmp_path):
    """A finished BC run, to be changed at will."""
    job = finished["bc"]
    shutil.copytree(job.run_dir, tmp_path / "run")
    return job_of(material, config_of(material, "bc"), tmp_path / "run")


@pytest.mark.parametrize("algo", ["bc", "ilql"])
def test_the_manifest_says_what_it_is_of_and_lists_every_file(finished, algo):
    folder = finished[algo].checkpoints / LAST
    manifest = checkpoint.read_manifest(folder)
    assert (manifest.step, manifest.algo, manifest.task) == (STEPS, algo, "maze-fo")
    assert manifest.config == finished[algo].config
    files = everything(folder)
    files.pop("manifest.json")
    assert {k: tuple(v) for k, v in manifest.files.items()} == {
        name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()
    }
    assert checkpoint.damage(folder) is None


@pytest.mark.parametrize("algo", ["bc", "ilql"])
def test_the_policy_is_a_plain_transformers_folder(finished, algo):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished[algo].checkpoints / LAST
    model = AutoModelForCausalLM.from_pretrained(folder / "policy")
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    text = "The goal is at position 3, 3.\nmove left\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    ours = load_policy(folder)
    assert list(ours.codec.encode(text)) == tokenizer(text)["input_ids"]
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    assert torch.equal(model.eval()(input_ids=ids).logits, ours.lm(input_ids=ids).logits)


def test_the_policy_of_a_clone_has_the_weights_that_were_trained(finished):
    folder = finished["bc"].checkpoints / LAST
    saved, state = (
        load_file(folder / "policy" / "model.safetensors"),
        load_file(folder / "state" / "model.safetensors"),
    )
    assert saved
    for name, tensor in saved.items():
        assert torch.equal(tensor, state[f"lm.{name}"]), name


def test_the_behaviour_policy_of_ilql_stays_what_it_was_and_its_heads_are_saved(finished, material):
    folder = finished["ilql"].checkpoints / LAST
    start = load_file(material.start / "policy" / "model.safetensors")
    saved = load_file(folder / "policy" / "model.safetensors")
    assert all(torch.equal(saved[name], start[name]) for name in start)
    heads, state = load_file(folder / "heads.safetensors"), load_file(folder / "state" / "model.safetensors")
    assert all(torch.equal(heads[name], state[f"online_values.{name}"]) for name in heads)
    assert any(not torch.equal(state[f"target_{n}"], heads[n]) for n in heads if n.startswith("q."))


@pytest.mark.reliability
@pytest.mark.parametrize(
    "name",
    ["state/model.safetensors", "state/optimizer.safetensors", "state/trainer.json", "policy/tokenizer.json"],
)
def test_a_flipped_byte_is_found_and_the_checkpoint_before_is_used(run, name, capsys):
    path = run.checkpoints / LAST / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert checkpoint.damage(run.checkpoints / LAST) == f"{name} is not what was written"
    assert checkpoint.latest(run.checkpoints).name == BEFORE
    said = capsys.readouterr().err
    assert f"{LAST}: {name} is not what was written; using an earlier checkpoint" in said


@pytest.mark.reliability
@pytest.mark.parametrize("name", ["state/model.safetensors", "policy/config.json"])
def test_a_missing_file_is_found_and_the_checkpoint_before_is_used(run, name, capsys):
    (run.checkpoints / LAST / name).unlink()
    assert checkpoint.latest(run.checkpoints).name == BEFORE
    assert f"{LAST}: {name} is missing; using an earlier checkpoint" in capsys.readouterr().err


@pytest.mark.reliability
@pytest.mark.parametrize(
    "content",
    [
        "",
        "not JSON",
        "[]",
        "{}",
        '{"step": 8}',
        "null",
        '{"step":1,"algo":"bc","task":"t","config":{},"files":[1]}',
        '{"step":1,"algo":"bc","task":"t","config":{},"files":{"a": 3}}',
        "\x00\xff",
    ],
)
def test_a_foreign_or_damaged_manifest_is_said_to_be_unreadable(run, content, capsys):
    (run.checkpoints / LAST / "manifest.json").write_bytes(content.encode("latin-1"))
    assert checkpoint.latest(run.checkpoints).name == BEFORE
    assert "no readable manifest.json" in capsys.readouterr().err


def test_a_run_without_a_whole_checkpoint_has_no_policy_and_says_so(run):
    for folder in run.checkpoints.iterdir():
        (folder / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="has no whole checkpoint yet"):
        find_policy(run.run_dir, run.checkpoints)


def test_checkpoints_are_found_in_the_order_of_their_steps_whatever_their_number(tmp_path):
    for name in ("step-1000000", "step-999999", "step-000020", ".step-x", "checkpoint_1"):
        (tmp_path / name).mkdir()
    found = [p.name for p in checkpoint.all_checkpoints(tmp_path)]
    assert found == ["step-000020", "step-999999", "step-1000000"]


def test_a_model_of_another_shape_is_refused_with_the_folders_name(finished):
    other = tiny_language_model(["another"], width=8)
    algorithm = get_algorithm("bc")(get_algorithm("bc").Config(), other)
    folder = finished["bc"].checkpoints / LAST
    with pytest.raises(CheckpointError, match=f"{LAST}: its model does not fit the configuration"):
        checkpoint.load_model(folder, algorithm)


def test_a_truncated_model_is_refused_with_the_folders_name(run, material):
    path = run.checkpoints / LAST / "state" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    algorithm = get_algorithm("bc")(get_algorithm("bc").Config(), models.load(material.start / "policy"))
    with pytest.raises(CheckpointError, match=LAST):
        checkpoint.load_model(path.parent.parent, algorithm)


@pytest.mark.reliability
def test_a_full_disk_is_named_and_leaves_the_earlier_checkpoint_whole_and_nothing_half_written(
    material, small_disk, tmp_path, record_property
):
    config = config_of(material, "bc")
    whole = job_of(material, config, tmp_path / "whole")
    learn_here(whole)
    job = job_of(material, config, small_disk.folder / "run")

    class FillAfterFirst(LocalContext):
        def save(self, write, step, metrics):
            super().save(write, step, metrics)
            if step == EVERY:
                small_disk.fill(leave=20_000)

    with pytest.raises(CheckpointError, match="the disk is full") as caught:
        learn_here(job, FillAfterFirst(job.checkpoints, keep=10))
    small_disk.free()
    message = str(caught.value)
    assert str(job.checkpoints) in message
    assert "earlier checkpoints are whole" in message
    assert "--resume" in message
    assert [p.name for p in job.checkpoints.iterdir()] == [f"step-{EVERY:06d}"]
    assert checkpoint.damage(job.checkpoints / f"step-{EVERY:06d}") is None
    record_property("reliability", f"{small_disk}: the checkpoint before is whole, and the error says so")
    # With some space again, the run goes on to where it would have been.
    assert learn_here(job) == STEPS
    assert weights(job.checkpoints / LAST) == weights(whole.checkpoints / LAST)


@pytest.mark.reliability
def test_a_full_disk_at_the_journal_is_named_as_well(material, small_disk):
    job = job_of(material, config_of(material, "bc"), small_disk.folder / "run")
    small_disk.fill(leave=0)
    with pytest.raises(CheckpointError, match="the disk is full"):
        learn_here(job)
    small_disk.free()
    assert learn_here(job) == STEPS


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


@pytest.mark.reliability
def test_nothing_that_lies_in_a_checkpoint_is_unpickled(run, material, tmp_path):
    marker = tmp_path / "executed"
    evil = pickle.dumps(Payload(marker))
    pickle.loads(evil).close()
    assert marker.exists(), "the payload itself must work"
    marker.unlink()
    folder = run.checkpoints / BEFORE
    shutil.rmtree(run.checkpoints / LAST)
    for name in ("state/model.pt", "state/optimizer.pt", "state/trainer.pkl", "policy/pytorch_model.bin"):
        (folder / name).write_bytes(evil)
        torch.save(Payload(marker), (folder / name).with_suffix(".pth"))
    (folder / "policy" / "training_args.bin").write_bytes(evil)
    assert checkpoint.latest(run.checkpoints) == folder
    load_policy(folder)
    assert learn_here(run) == STEPS
    assert not marker.exists()


@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_a_policy_whose_only_weights_are_a_pickle_is_refused(material, tmp_path, form, monkeypatch):
    marker = tmp_path / "executed"
    folder = tmp_path / "policy"
    shutil.copytree(material.start / "policy", folder)
    (folder / "model.safetensors").unlink()
    if form == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))
    else:
        torch.save(Payload(marker), folder / "pytorch_model.bin")

    def no_unpickling(*args, **kwargs):
        raise Stop("torch.load was called")

    monkeypatch.setattr(torch, "load", no_unpickling)
    with pytest.raises(models.ModelError, match="could not be loaded"):
        models.load(folder)
    assert not marker.exists()


def test_a_pickle_in_the_place_of_safetensors_is_refused(run, material, tmp_path):
    marker = tmp_path / "executed"
    folder = run.checkpoints / LAST
    (folder / "state" / "model.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    algorithm = get_algorithm("bc")(get_algorithm("bc").Config(), models.load(material.start / "policy"))
    with pytest.raises(CheckpointError, match=LAST):
        checkpoint.load_model(folder, algorithm)
    (folder / "policy" / "model.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(models.ModelError, match="could not be loaded"):
        load_policy(folder)
    assert not marker.exists()


def test_publishing_drops_damaged_checkpoints_that_training_has_gone_back_behind(tmp_path):
    for step in (100, 200):
        (tmp_path / f"step-{step:06d}").mkdir()
    beside = tmp_path / f"{checkpoint.UNFINISHED}50"
    beside.mkdir()
    checkpoint.publish(beside, tmp_path / "step-000050", keep=2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000050"]


def test_publishing_replaces_a_checkpoint_of_the_same_step_and_drops_the_oldest(tmp_path):
    for step in range(3):
        beside = tmp_path / f"{checkpoint.UNFINISHED}{step}"
        beside.mkdir()
        (beside / "content").write_text(json.dumps(step))
        checkpoint.publish(beside, tmp_path / f"step-{max(step, 1):06d}", keep=1)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000002"]
    again = tmp_path / f"{checkpoint.UNFINISHED}again"
    again.mkdir()
    checkpoint.publish(again, tmp_path / "step-000002", keep=1)
    assert [list(p.iterdir()) for p in tmp_path.iterdir()] == [[]]


def test_a_checkpoint_is_on_the_disk_before_an_older_one_goes(tmp_path, monkeypatch):
    old, beside = tmp_path / "step-000001", tmp_path / f"{checkpoint.UNFINISHED}2"
    for folder in (old, beside):
        (folder / "state").mkdir(parents=True)
        (folder / "state" / "model").write_text(folder.name)
    events = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    )
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **_: events.append(f"removed {folder}"))
    checkpoint.publish(beside, tmp_path / "step-000002", keep=1)
    written = {str(path) for path in (beside, beside / "state", beside / "state" / "model")}
    assert set(events[:-2]) == written
    assert events[-2:] == [str(tmp_path), f"removed {old}"]
