"""`lmrl config`: a whole configuration in words, which `--config` takes again."""

import json
import shutil

import pytest

from algos.base import algorithm_ids, get_algorithm
from lmrl_ray.resolve import resolve_config
from lmrl_ray.symbolic import config as symbolic


@pytest.mark.parametrize(
    "algo", [a for a in algorithm_ids() if get_algorithm(a).__module__.startswith("algos.")]
)
def test_what_is_printed_is_the_configuration_itself(lmrl, tmp_path, algo):
    settings = ["optimizer.lr=1e-5", "model.lora.r=4"]
    answer = lmrl("config", algo, "wordle", *(f"--set={setting}" for setting in settings))
    assert answer.code == 0
    file = tmp_path / "all.yaml"
    file.write_text(answer.stdout)
    expected = resolve_config(algo, "wordle", settings=settings)
    assert resolve_config(algo, "wordle", file=file) == expected


@pytest.mark.parametrize("algo", list(symbolic.ALGORITHMS))
def test_the_symbolic_maze_has_a_configuration_to_print_too(lmrl, tmp_path, algo):
    answer = lmrl("config", algo, "maze-symbolic", "--set", "algorithm.gamma=0.9")
    file = tmp_path / "all.yaml"
    file.write_text(answer.stdout)
    assert symbolic.resolve(algo, "maze-symbolic", file=file).algorithm.gamma == 0.9


def test_keys_have_their_choices_and_their_meaning_beside_them(lmrl):
    printed = lmrl("config", "ilql", "maze-fo").stdout.splitlines()
    (line,) = [line for line in printed if line.strip().startswith("trunk_start:")]
    assert '"fresh"' in line
    assert "# clone | fresh; weights that the values' trunk starts from" in line


def test_what_is_not_trained_says_how_it_is_run(lmrl):
    assert "lmrl eval RUN TASK --decoding propose" in lmrl("config", "chai", "car-dealer").stderr


def test_a_wrong_key_is_named(lmrl):
    answer = lmrl("config", "bc", "maze-fo", "--set", "training.stepz=3")
    assert answer.code != 0
    assert "training.stepz" in answer.stderr


def test_an_optional_key_is_said_to_be_null_as_it_is_written(lmrl):
    assert "None" not in lmrl("config", "ilql", "maze-fo").stdout


@pytest.mark.parametrize("setting", ["algorithm.tau=0.9", "training.steps=3", "seed=4", "optimizer.lr=1"])
def test_what_would_have_no_effect_on_an_evaluation_is_refused(lmrl, toy, toy_policy, setting):
    answer = lmrl("eval", toy_policy, "toy", "--plugin", toy, "--set", setting)
    assert answer.code == 1
    assert f"--set {setting.split('.')[0].split('=')[0]}: has no effect on an evaluation" in answer.stderr


def test_a_policy_that_nobody_here_has_trained_is_pre_trained(toy_policy, tmp_path):
    pretrained = resolve_config("ilql", "maze-fo", options={"model": {"name": str(toy_policy)}})
    given = resolve_config("ilql", "maze-fo", options={"init": str(toy_policy)})
    assert given.optimizer == pretrained.optimizer != resolve_config("ilql", "maze-fo").optimizer
    assert given.algorithm.trunk_start == "clone"
    ours = tmp_path / "step-000002"
    shutil.copytree(toy_policy, ours / "policy")
    (ours / "manifest.json").write_text('{"config": {"task": "maze-fo", "model": {"name": "tiny"}}}')
    of_ours = resolve_config("ilql", "maze-fo", options={"init": str(ours / "policy")})
    assert of_ours.optimizer == resolve_config("ilql", "maze-fo").optimizer


def shorten(config):
    """As if the tokenizer had more tokens than the model."""
    config.write_text(json.dumps({**json.loads(config.read_text()), "vocab_size": 100}))


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (
            lambda folder: [f.unlink() for f in folder.glob("tokenizer*")],
            "has no tokenizer: tokenizer.save_pre",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "could not be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no *.safetensors"),
        (lambda folder: shorten(folder / "config.json"), "call model.resize_token_embeddings"),
    ],
)
def test_a_model_whose_files_cannot_be_used_leaves_no_run(lmrl, toy_policy, toy, out, break_it, said):
    theirs = shutil.copytree(toy_policy, out / "theirs")
    break_it(theirs)
    answer = lmrl("train", "bc", "toy", "--plugin", toy, "--model", theirs, "--name", "x", "--out", out)
    assert answer.code == 1
    assert said in answer.stderr
    assert not (out / "x").exists()
