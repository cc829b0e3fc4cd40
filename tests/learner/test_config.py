"""The configuration schema: what it refuses, how it says so, and that what it prints it reads."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from algos.base import UnknownAlgorithmError
from envs.registry import UnknownTaskError, task_ids
from lmrl_ray.config import ConfigError, load_yaml, merge, parse, parse_settings
from lmrl_ray.resolve import configs_folder, resolve_config

DEFAULTS = sorted((configs_folder() / "defaults").glob("*/*.yaml"))


def values(**over):
    return {"algo": "ilql", "task": "maze-fo", **over}


def problem(**over):
    with pytest.raises(ConfigError) as caught:
        parse(values(**over), "run.yaml")
    message = str(caught.value)
    assert message.startswith("run.yaml: ")
    return message


@pytest.mark.parametrize(
    ("over", "found", "meant"),
    [
        ({"optimizr": {}}, "optimizr", "optimizer"),
        ({"optimizer": {"learning_rte": 1}}, "optimizer.learning_rte", None),
        ({"optimizer": {"zero_stag": 1}}, "optimizer.zero_stag", "optimizer.zero_stage"),
        ({"training": {"batch_episode": 1}}, "training.batch_episode", "training.batch_episodes"),
        ({"algorithm": {"tua": 0.9}}, "algorithm.tua", "algorithm.tau"),
        ({"decoding": {"betta": 1}}, "decoding.betta", "decoding.beta"),
        ({"resources": {"worker": 2}}, "resources.worker", "resources.workers"),
        ({"model": {"nam": "tiny"}}, "model.nam", "model.name"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(over, found, meant):
    message = problem(**over)
    assert f"run.yaml: {found}: unknown key." in message
    assert (f"Did you mean {meant}" if meant else "Known keys: optimizer.engine, ") in message


def test_a_key_of_another_algorithm_is_unknown():
    with pytest.raises(ConfigError, match=r"algorithm\.tau: unknown key"):
        parse(values(algo="bc", algorithm={"tau": 0.9}))


@pytest.mark.parametrize(
    ("over", "key", "found"),
    [
        ({"optimizer": {"lr": "quick"}}, "optimizer.lr", "'quick'"),
        ({"optimizer": {"lr": [1e-3]}}, "optimizer.lr", "[0.001]"),
        ({"optimizer": {"zero_stage": "two"}}, "optimizer.zero_stage", "'two'"),
        ({"optimizer": {"betas": [0.9]}}, "optimizer.betas.1", "[0.9]"),
        ({"optimizer": 3}, "optimizer", "3"),
        ({"training": {"steps": 1.5}}, "training.steps", "1.5"),
        ({"training": {"steps": True}}, "training.steps", "True"),
        ({"algorithm": {"tau": True}}, "algorithm.tau", "True"),
        ({"decoding": {"min_p": False}}, "decoding.min_p", "False"),
        ({"training": None}, "training", "None"),
        ({"algorithm": 3}, "algorithm", "3"),
        ({"algorithm": ["tau"]}, "algorithm", "['tau']"),
        ({"algorithm": {"tie_heads": "perhaps"}}, "algorithm.tie_heads", "'perhaps'"),
        ({"algo": 3}, "algo", "3"),
        ({"task": ["maze-fo"]}, "task", "['maze-fo']"),
        ({"env": "umaze"}, "env", "'umaze'"),
        ({"plugins": [1]}, "plugins.0", "1"),
        ({"seed": "one"}, "seed", "'one'"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_and_shown(over, key, found):
    message = problem(**over)
    assert f"run.yaml: {key}: " in message
    assert found in message


@pytest.mark.parametrize(
    ("over", "key"),
    [
        ({"optimizer": {"lr": 0}}, "optimizer.lr"),
        ({"optimizer": {"lr": -1e-3}}, "optimizer.lr"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr"),
        ({"optimizer": {"lr": float("inf")}}, "optimizer.lr"),
        ({"optimizer": {"zero_stage": 4}}, "optimizer.zero_stage"),
        ({"optimizer": {"betas": [0.9, 7.0]}}, "optimizer.betas.1"),
        ({"optimizer": {"engine": "jax"}}, "optimizer.engine"),
        ({"training": {"steps": 0}}, "training.steps"),
        ({"training": {"keep_checkpoints": 0}}, "training.keep_checkpoints"),
        ({"resources": {"workers": -1}}, "resources.workers"),
        ({"resources": {"workers": [2, 1]}}, "resources.workers"),
        ({"resources": {"workers": [0, 1]}}, "resources.workers"),
        ({"resources": {"workers": True}}, "resources.workers"),
        ({"resources": {"workers": [1, 2, 3]}}, "resources.workers"),
        ({"model": {"lora": {"r": 0}}}, "model.lora.r"),
        ({"algorithm": {"tau": 1.0}}, "algorithm.tau"),
        ({"algorithm": {"gamma": 0}}, "algorithm.gamma"),
        ({"decoding": {"temperature": 0}}, "decoding.temperature"),
        ({"decoding": {"mode": "beam"}}, "decoding.mode"),
        ({"seed": -1}, "seed"),
        ({"data_episodes": 0}, "data_episodes"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_is_expected(over, key):
    message = problem(**over)
    assert f"run.yaml: {key}: found " in message
    assert "but it should be" in message


def test_all_that_is_wrong_is_said_at_once():
    message = problem(optimizer={"lr": 0, "foo": 1}, seed=-1)
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("key", ["algo", "task"])
def test_a_missing_algorithm_or_task_is_named(key):
    with pytest.raises(ConfigError, match=f"{key}: is missing"):
        parse({k: v for k, v in values().items() if k != key})


def test_an_unknown_task_or_algorithm_names_the_nearest():
    with pytest.raises(UnknownTaskError, match="maze-fo"):
        parse(values(task="maze-of"))
    with pytest.raises(UnknownAlgorithmError, match="Did you mean 'ilql'"):
        parse(values(algo="iqll"))


def test_a_number_that_yaml_reads_as_text_is_a_number(tmp_path):
    """PyYAML reads 1e-4 as a string and 1.0e-4 as a number."""
    file = tmp_path / "run.yaml"
    file.write_text("optimizer: {lr: 1e-4}\ntraining: {steps: '7'}\n")
    assert yaml.safe_load(file.read_text())["optimizer"]["lr"] == "1e-4"
    config = resolve_config("bc", "maze-fo", file=file, settings=["algorithm={}"])
    assert config.optimizer.lr == 1e-4
    assert config.training.steps == 7
    by_setting = resolve_config("ilql", "maze-fo", settings=["optimizer.lr=3e-5", "algorithm.tau=9e-1"])
    assert (by_setting.optimizer.lr, by_setting.algorithm.tau) == (3e-5, 0.9)


def test_a_later_source_wins_key_by_key(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("optimizer: {lr: 0.5, warmup_steps: 7}\nseed: 4\n")
    config = resolve_config(
        "ilql", "maze-fo", file=file, settings=["optimizer.lr=0.25", "seed=5"], options={"seed": 6}
    )
    assert (config.optimizer.lr, config.optimizer.warmup_steps, config.seed) == (0.25, 7, 6)


def test_a_file_for_another_algorithm_is_refused(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("algo: bc\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: algo: is 'bc', but 'ilql' was asked for"):
        resolve_config("ilql", "maze-fo", file=file)


def test_simulator_arguments_are_tried_before_anything_is_made():
    with pytest.raises(ConfigError, match="env: maze-fo does not accept"):
        resolve_config("bc", "maze-fo", options={"env": {"layout": "klein bottle"}})
    with pytest.raises(ConfigError, match="env: maze-fo does not accept"):
        resolve_config("bc", "maze-fo", settings=["env.wind=3"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "is not YAML"),
        ("- a\n- b\n", "holds a list"),
        ("just words", "holds a str"),
        ("training: {steps: 5}\nmodel: {}\ntraining: {save_every: 2}\n", "key 'training' is there twice"),
    ],
)
def test_a_file_that_is_no_mapping_is_named(tmp_path, content, said):
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said) as caught:
        load_yaml(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named_and_an_empty_one_is_no_values(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert load_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize("setting", ["optimizer.lr", "=3", ""])
def test_a_setting_that_assigns_nothing_is_refused(setting):
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_settings([setting])


def test_settings_nest_and_add_up():
    assert parse_settings(["a.b=1", "a.c=[1, x]", "d=e=f", "a.b=2"]) == {
        "a": {"b": 2, "c": [1, "x"]},
        "d": "e=f",
    }


def test_merging_changes_neither_side():
    base, over = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 1}}
    assert merge(base, over) == {"a": {"b": 9, "c": 2}, "d": {"e": 1}}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}
    assert over == {"a": {"b": 9}, "d": {"e": 1}}


_positive = st.floats(1e-12, 1e6)
_text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
_plain = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(-9, 9) | _text
_algorithms = st.fixed_dictionaries({"algo": st.just("bc")}) | st.fixed_dictionaries(
    {
        "algo": st.just("ilql"),
        "algorithm": st.fixed_dictionaries(
            {},
            optional={
                "gamma": st.floats(1e-6, 1),
                "discount": st.sampled_from(["token", "turn"]),
                "tau": st.floats(0.001, 0.999),
                "cql_weight": st.floats(0, 1e9),
                "backup": st.sampled_from(["one-step", "n-step", "lambda"]),
                "initial_value": st.floats(allow_nan=False, allow_infinity=False),
                "tie_heads": st.booleans(),
            },
        ),
    }
)
_sections = st.fixed_dictionaries(
    {"task": st.sampled_from(["maze-fo", "maze-po"])},
    optional={
        "seed": st.integers(0, 2**62),
        "data": st.none() | _text,
        "init": st.none() | _text,
        "model": st.fixed_dictionaries({"name": _text}),
        "optimizer": st.fixed_dictionaries(
            {},
            optional={
                "engine": st.sampled_from(["deepspeed", "torch"]),
                "zero_stage": st.integers(0, 3),
                "lr": _positive,
                "betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
                "schedule": st.sampled_from(["constant", "cosine"]),
            },
        ),
        "training": st.fixed_dictionaries({}, optional={"steps": st.integers(1, 10**9)}),
        "decoding": st.fixed_dictionaries(
            {},
            optional={
                "mode": st.sampled_from(["sample", "greedy", "rerank"]),
                "top_p": st.none() | st.just(0.5),
            },
        ),
        "resources": st.fixed_dictionaries({}, optional={"cpus_per_worker": _positive}),
        "env": st.dictionaries(_text, _plain | st.lists(_plain, max_size=3), max_size=3),
        "plugins": st.lists(_text, max_size=3),
    },
)


@given(_algorithms, _sections)
def test_what_a_configuration_prints_it_reads_back_through_json_and_yaml(algorithm, sections):
    config = parse({**algorithm, **sections})
    plain = config.dump()
    assert parse(plain) == config
    assert parse(json.loads(json.dumps(plain))) == config
    assert parse(yaml.safe_load(yaml.safe_dump(plain, sort_keys=False))) == config


def test_defaults_are_complete_and_a_configuration_does_not_change():
    config = parse(values())
    assert parse(config.dump()) == config
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_choosing_by_q_needs_an_algorithm_that_has_it():
    assert parse(values(decoding={"mode": "propose"})).decoding.candidates == 5
    assert "decoding.mode: propose" in problem(algo="archer", decoding={"mode": "propose"})


def test_there_are_tuned_defaults():
    assert DEFAULTS


@pytest.mark.parametrize("path", DEFAULTS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_tuned_defaults_are_for_a_known_task_and_algorithm_and_parse(path):
    assert path.parent.name in task_ids()
    config = resolve_config("bc" if path.stem == "common" else path.stem, path.parent.name)
    for section, entries in load_yaml(path).items():
        found = config.dump()[section]
        if not isinstance(entries, dict):
            assert found == entries
            continue
        for key, value in entries.items():
            assert found[key] == (pytest.approx(float(value)) if isinstance(found[key], float) else value)


@pytest.mark.parametrize("named", ["model", "init"])
def test_a_pre_trained_model_has_an_optimiser_and_a_trunk_of_its_own(tmp_path, named):
    options = {"model": {"name": "gpt2"}}
    if named == "init":
        run = tmp_path / "cloned" / "policy"
        run.mkdir(parents=True)
        (run.parent / "config.yaml").write_text("task: maze-fo\nmodel: {name: gpt2}\n")
        options = {"init": "cloned"}
    tiny = resolve_config("ilql", "maze-fo")
    config = resolve_config("ilql", "maze-fo", options=options, out=tmp_path)
    assert (tiny.optimizer.lr, tiny.algorithm.trunk_start) == (1e-3, "fresh")
    assert (config.optimizer.lr, config.algorithm.trunk_start) == (5e-5, "clone")
    assert config.algorithm.tau == tiny.algorithm.tau
    asked = resolve_config("ilql", "maze-fo", settings=["optimizer.lr=1e-4"], options=options, out=tmp_path)
    assert asked.optimizer.lr == 1e-4


NVME = {"zero_stage": 3, "offload_param": "nvme", "nvme_path": "/scratch"}


@pytest.mark.parametrize(
    ("over", "says"),
    [
        (
            {"optimizer": {"offload_optimizer": "cpu"}},
            "optimizer.offload_optimizer: found 'cpu', which needs",
        ),
        (
            {"optimizer": {**NVME, "zero_stage": 2}},
            "offload_param: found 'nvme', which needs engine deepspeed",
        ),
        (
            {"optimizer": {**NVME, "offload_param": "cpu"}},
            "optimizer.nvme_path: found '/scratch'; it goes with",
        ),
        ({"optimizer": {**NVME, "nvme_path": None}}, "optimizer.nvme_path: found None; it goes with"),
        (
            {"optimizer": {"engine": "torch", "zero_stage": 3, "offload_param": "cpu"}},
            "needs engine deepspeed and zero_stage 3, not torch and 3",
        ),
        (
            {"model": {"compile": "inductor"}, "optimizer": {"zero_stage": 3}},
            "through what optimizer.zero_stage 3",
        ),
        (
            {"model": {"compile": "inductor", "gradient_checkpointing": True}},
            "through what model.gradient_checkpointing adds",
        ),
        (
            {"model": {"lora": {}}, "algorithm": {"trunk_start": "fresh"}},
            "algorithm.trunk_start: found 'fresh'",
        ),
        (
            {"resources": {"workers": [1, 4], "rollout_actors": 2}},
            "resources.workers: elastic workers would take the CPUs of the rollout actors",
        ),
        (
            {"resources": {"workers": 2}, "optimizer": {"engine": "torch"}},
            "resources.workers: found 2, but optimizer.engine torch is for one",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(over, says):
    assert says in problem(**over)


def test_what_large_models_need_is_read_back_as_it_was_written():
    over = {
        "model": {"bf16": True, "lora": {"r": 8, "target_modules": ["q_proj", "v_proj"]}},
        "optimizer": {**NVME, "offload_optimizer": "cpu"},
        "resources": {"workers": [1, 4]},
    }
    config = parse(values(**over))
    assert config.resources.workers == (1, 4)
    assert parse(yaml.safe_load(yaml.safe_dump(config.dump()))) == config


@pytest.mark.parametrize("workers", [4, [2, 4]])
def test_each_worker_of_an_online_run_has_an_actor_or_none_has(workers):
    resources = {"workers": workers, "rollout_actors": 3, "actor_resource": "sim"}
    values = {"algo": "ppo", "task": "maze-fo", "resources": resources}
    with pytest.raises(ConfigError, match=r"rollout_actors: found 3, but each of 4 .* use 4 or more"):
        parse(values)
    parse({**values, "algo": "ilql"})
    for enough in (0, 4):
        parse(merge(values, {"resources": {"rollout_actors": enough}}))
