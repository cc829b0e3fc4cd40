"""`lmrl config`: a whole configuration in words, which `--config` takes again."""

import pytest

from algos.base import algorithm_ids, get_algorithm
from lmrl_ray.resolve import resolve_config


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
