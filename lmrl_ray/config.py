"""One schema for a training run: YAML files, `--set a.b=c` and a Tune search space all go through it.

An unknown key is an error that names the nearest known one; a value of the wrong type says what was
found and what is expected.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import reduce
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError

from algos.base import AlgorithmConfig, get_algorithm
from algos.lora import LoraSettings
from algos.policy import Decoding, refused_by_vllm
from algos.settings import Settings
from envs.registry import get_task
from lmrl_ray.simulators import located

ModelT = TypeVar("ModelT", bound=BaseModel)
_LINES = "should be `key: value` lines"


class ConfigError(ValueError):
    """A configuration that cannot be used: which key, what was found, what to write instead."""


Beta = Annotated[float, Field(ge=0, lt=1)]


Offload = Literal["none", "cpu", "nvme"]


def _part_or_whole(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("should be a part of one GPU (at most 1) or a whole number of them")
    return gpus


Gpus = Annotated[float, AfterValidator(_part_or_whole)]


class OptimizerConfig(Settings):
    """The engine and its optimiser."""

    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[0, 1, 2, 3] = Field(0, description="what DeepSpeed shards over the workers")
    lr: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(20, ge=0, description="linear warm-up")
    schedule: Literal["constant", "cosine"] = Field("constant", description="after the warm-up")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    offload_optimizer: Offload = Field(
        "none", description="where DeepSpeed keeps the optimiser's state and steps; cpu: zero_stage 1 to 3"
    )
    offload_param: Offload = Field(
        "none", description="where DeepSpeed keeps weights not in use; zero_stage 3"
    )
    nvme_path: str | None = Field(None, description="the folder of what is offloaded to nvme, on every node")


class TrainingConfig(Settings):
    """How long, in what portions, and when to save and look."""

    steps: int = Field(300, ge=1, description="optimiser steps")
    batch_episodes: int = Field(64, ge=1, description="episodes of one step, over all workers")
    micro_batch_tokens: int = Field(16_384, ge=64, description="padded tokens of one forward pass")
    save_every: int = Field(100, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1)
    eval_every: int = Field(0, ge=0, description="steps between evaluations on the way; 0 for none")
    eval_episodes: int = Field(25, ge=1, description="episodes of an evaluation on the way")
    log_every: int = Field(10, ge=1)


class OnlineConfig(Settings):
    """Rounds of an online algorithm: play, then learn from what was played."""

    episodes: int = Field(128, ge=1, description="episodes of a round, over all workers")
    epochs: int = Field(1, ge=1, description="times that a round is learnt from")
    max_staleness: int = Field(
        0,
        ge=0,
        description="rounds played ahead, by rollout actors, while earlier ones are learnt from; no weight "
        "corrects for the older policy that played them (ppo/sampled_gap says how far it is)",
    )
    temperature: float | None = Field(
        None, gt=0, description="at which rounds are played; None for decoding.temperature, as in evaluations"
    )


class ModelConfig(Settings):
    name: str = Field("tiny", description="a preset (tiny, small), a Hugging Face name, or a folder")
    bf16: bool = Field(
        False,
        description="trunks compute in bfloat16; learnt weights, targets, heads and losses stay float32",
    )
    gradient_checkpointing: bool = Field(
        False, description="recompute each layer in the backward pass instead of keeping its activations"
    )
    compile: str | None = Field(
        None,
        description="torch.compile's backend for the trunks (inductor, on a CPU it needs a C++ compiler)",
    )
    lora: LoraSettings | None = Field(None, description="train adapters on the frozen model, not its weights")


def _workers(value: Any) -> int | tuple[int, int]:
    counts = list(value) if isinstance(value, list | tuple) else [value]
    if all(type(c) is int for c in counts):
        if len(counts) == 1 and counts[0] >= 0:
            return int(counts[0])
        if len(counts) == 2 and 1 <= counts[0] <= counts[1]:
            return (counts[0], counts[1])
    raise ValueError("should be a number of workers, or [least, most] with 1 <= least <= most")


Workers = Annotated[int | tuple[int, int], BeforeValidator(_workers)]


class ResourcesConfig(Settings):
    """Where it runs. 0 means: in this process, without a cluster."""

    workers: Workers = Field(
        0,
        description="learner workers under Ray Train; 0 = in this process; [least, most]: as many as the "
        "cluster has room for, started anew from the last checkpoint when nodes come or go",
    )
    resize_every_s: float = Field(
        60.0, gt=0, description="between looks at whether elastic workers should be more or fewer"
    )
    rollout_actors: int = Field(0, ge=0, description="Ray actors that play episodes; 0 = in this process")
    slots: int = Field(32, ge=1, description="episodes in play at a time in one actor")
    cpus_per_worker: float = Field(1.0, gt=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    rollout_engine: Literal["torch", "vllm"] = Field(
        "torch", description="what decodes in rollout actors; vllm needs GPUs and lmrl-ray[vllm]"
    )
    cpus_per_actor: float = Field(1.0, ge=0.001, description="of a rollout actor; actors may share a CPU")
    gpus_per_actor: Gpus = Field(0.0, ge=0, description="of a rollout actor; actors may share a GPU")
    gpus_per_simulator: Gpus = Field(0.0, ge=0, description="of the actor that env.simulator=lm:PATH is in")
    max_failed_share: float = Field(
        0.5, ge=0, lt=1, description="of a round's or an evaluation's episodes; beyond it the run stops"
    )
    heartbeat_s: float = Field(
        30.0, ge=0, description="between lines that say how the episodes get on; 0 for none"
    )
    learner_resource: str | None = Field(
        None, description="custom resource of the nodes that learner workers are kept to"
    )
    actor_resource: str | None = Field(
        None,
        description="custom resource of the nodes that rollout actors and simulators are kept to",
    )
    wait_for_nodes_s: float = Field(
        0.0, ge=0, description="longest wait for nodes that an autoscaler has yet to add; 0 refuses at once"
    )
    max_failures: int = Field(3, ge=0, description="restarts of the learner workers before giving up")
    timeout_s: float = Field(300.0, gt=0, description="longest wait for another worker or an actor")

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]


def _no_name_alone(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"is a section: write --model {value}, or model.name={value} with --set")
    return value


def _one_is_a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class RunConfig(Settings):
    """A training run, complete: with it and the data, the run can be repeated."""

    algo: str = Field(description="algorithm id")
    task: str = Field(description="task id")
    seed: int = Field(0, ge=0, lt=2**63)
    data: str | None = Field(None, description="a Parquet file of episodes; None builds the task's own")
    data_episodes: int | None = Field(None, ge=1, description="episodes of a data set built here")
    init: str | None = Field(None, description="the run or folder whose policy it starts from")
    model: Annotated[ModelConfig, BeforeValidator(_no_name_alone)] = ModelConfig()
    algorithm: AlgorithmConfig = Field(AlgorithmConfig(), description="what the algorithm's file declares")
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    online: OnlineConfig = Field(OnlineConfig(), description="for online algorithms")
    decoding: Decoding = Decoding()
    resources: ResourcesConfig = ResourcesConfig()
    env: Annotated[dict[str, Any], AfterValidator(located)] = Field(
        default_factory=dict, description="arguments of the task's simulator"
    )
    plugins: Annotated[tuple[str, ...], BeforeValidator(_one_is_a_list)] = Field(
        (), description="Python files that register tasks and algorithms"
    )

    @property
    def rollout_decoding(self) -> Decoding:
        """How the rounds of an online algorithm are played: drawn from the policy, which learns from them."""
        temperature = self.online.temperature or self.decoding.temperature
        return self.decoding.model_copy(update={"mode": "sample", "temperature": temperature})

    def dump(self) -> dict[str, Any]:
        """Plain values, as YAML and MLflow take them; `parse` reads it back."""
        plain = self.model_dump(mode="json")
        plain["algorithm"] = self.algorithm.model_dump(mode="json")
        return plain


def parse(values: Mapping[str, Any], where: str = "config") -> RunConfig:
    """Validate plain values. Raises ConfigError, UnknownTaskError or UnknownAlgorithmError."""
    missing = [k for k in ("algo", "task") if not values.get(k)]
    if missing:
        raise ConfigError(f"{where}: {missing[0]}: is missing")
    for key in ("algo", "task"):
        if not isinstance(values[key], str):
            raise ConfigError(f"{where}: {key}: found {values[key]!r}, but it should be a name")
    get_task(values["task"])
    schema = get_algorithm(values["algo"]).Config
    _check_not_of_a_section(values, schema, where)
    own = validate(schema, values.get("algorithm") or {}, where, "algorithm.")
    rest = {k: v for k, v in values.items() if k != "algorithm"}
    config = validate(RunConfig, rest, where, "")
    config = config.model_copy(update={"algorithm": own})
    _check_decoding(config, where)
    _check_offload(config.optimizer, where)
    _check_model(config, where)
    _check_workers(config.resources, config.optimizer.engine, where)
    if get_algorithm(config.algo).online:
        _check_all_have_actors(config.resources, where)
    if config.resources.rollout_engine == "vllm" and (reason := _vllm_refused(config)):
        raise ConfigError(f"{where}: resources.rollout_engine: vllm: {reason}")
    if config.online.max_staleness and not config.resources.rollout_actors:
        raise ConfigError(
            f"{where}: online.max_staleness: {config.online.max_staleness} rounds ahead need "
            f"resources.rollout_actors of at least 1; without actors nothing is played beside the learning"
        )
    return config


def _check_not_of_a_section(values: Mapping[str, Any], algorithm: type[BaseModel], where: str) -> None:
    """`lr` is no key of a run, `optimizer.lr` is."""
    types = {name: _within(RunConfig, name) for name in RunConfig.model_fields} | {"algorithm": algorithm}
    sections = {n: s for n, s in types.items() if isinstance(s, type) and issubclass(s, BaseModel)}
    for key in values.keys() - RunConfig.model_fields.keys():
        homes = [f"{name}.{key}" for name, section in sections.items() if key in section.model_fields]
        if homes:
            raise ConfigError(f"{where}: {key}: unknown key. Did you mean {' or '.join(homes)}?")


def _check_decoding(config: RunConfig, where: str) -> None:
    if config.decoding.mode == "rerank" and get_task(config.task).actions is None:
        raise ConfigError(
            f"{where}: decoding.mode: rerank scores a task's fixed list of actions, and {config.task} has "
            f"none; use sample or greedy"
        )
    if config.decoding.mode == "propose" and not get_algorithm(config.algo).has_q:
        raise ConfigError(
            f"{where}: decoding.mode: propose chooses among candidates by Q, and {config.algo} has none; use "
            f"sample, or an algorithm with values (ilql, mc, cql)"
        )


def _check_offload(config: OptimizerConfig, where: str) -> None:
    """What would have no effect is refused, not ignored (as DeepSpeed does below these stages)."""
    places = {"offload_optimizer": config.offload_optimizer, "offload_param": config.offload_param}
    for key, place in places.items():
        if place == "none":
            continue
        least = 1 if (key, place) == ("offload_optimizer", "cpu") else 3
        if config.engine != "deepspeed" or config.zero_stage < least:
            raise ConfigError(
                f"{where}: optimizer.{key}: found {place!r}, which needs engine deepspeed and zero_stage "
                f"{'3' if least == 3 else '1, 2 or 3'}, not {config.engine} and {config.zero_stage}"
            )
    if ("nvme" in places.values()) != (config.nvme_path is not None):
        raise ConfigError(
            f"{where}: optimizer.nvme_path: found {config.nvme_path!r}; it goes with offload_optimizer or "
            f"offload_param nvme, and they with it"
        )


def _check_model(config: RunConfig, where: str) -> None:
    model, sharded = config.model, config.optimizer.engine == "deepspeed" and config.optimizer.zero_stage == 3
    if model.compile and (sharded or model.gradient_checkpointing):
        other = "optimizer.zero_stage 3" if sharded else "model.gradient_checkpointing"
        raise ConfigError(
            f"{where}: model.compile: found {model.compile!r}, but torch.compile does not get through what "
            f"{other} adds to a layer; leave one of them out"
        )
    if model.lora is not None and getattr(config.algorithm, "trunk_start", "clone") == "fresh":
        raise ConfigError(
            f"{where}: algorithm.trunk_start: found 'fresh', but model.lora keeps a trunk's weights, and new "
            f"ones know nothing; use clone"
        )


def _check_workers(config: ResourcesConfig, engine: str, where: str) -> None:
    if engine == "torch" and config.workers not in (0, 1):
        raise ConfigError(
            f"{where}: resources.workers: found {config.workers}, but optimizer.engine torch is for one, "
            f"who would not hear of the others' gradients; use engine deepspeed"
        )
    elastic = isinstance(config.workers, tuple) and not config.gpus_per_worker
    if elastic and config.rollout_actors and config.actor_resource is None:
        raise ConfigError(
            f"{where}: resources.workers: elastic workers would take the CPUs of the rollout actors; keep "
            f"these to nodes of their own (resources.actor_resource), or ask for one number of workers"
        )


def _check_all_have_actors(config: ResourcesConfig, where: str) -> None:
    """Each learner worker plays its share of a round, in actors of its own where there are any."""
    most = config.workers[1] if isinstance(config.workers, tuple) else config.workers
    if 0 < config.rollout_actors < most:
        raise ConfigError(
            f"{where}: resources.rollout_actors: found {config.rollout_actors}, but each of {most} learner "
            f"workers plays in actors of its own; use {most} or more, or 0 to play in the workers"
        )


def _vllm_refused(config: RunConfig) -> str | None:
    if get_algorithm(config.algo).has_q:
        return f"it decodes language models, and {config.algo} is steered by Q; use torch"
    if not config.resources.rollout_actors or not config.resources.gpus_per_actor:
        return "it decodes in rollout actors with GPUs; set rollout_actors and gpus_per_actor"
    rounds = refused_by_vllm(config.rollout_decoding) if get_algorithm(config.algo).online else None
    return refused_by_vllm(config.decoding) or rounds


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Of two sections of one name the first would be dropped."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {twice!r} is there twice", node.start_mark
            )
        return dict(super().construct_mapping(node, deep))


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises ConfigError naming the file."""
    try:
        values = yaml.load(path.read_text(), _Loader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds a {type(values).__name__}; expected `key: value` lines")
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, section by section."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`a.b=c` assignments as nested values; c is read as YAML. Raises ConfigError."""
    result: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {setting}: expected key=value, e.g. --set algorithm.tau=0.9")
        nested: Any = _yaml_scalar(text)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        result = merge(result, nested)
    return result


def _yaml_scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def validate(schema: type[ModelT], values: Any, where: str, prefix: str) -> ModelT:
    """Plain values as `schema` has them; `prefix` is their section's, as in "algorithm.". ConfigError."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {prefix[:-1]}: found {values!r}, but it {_LINES}")
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(schema, e, where, prefix) for e in error.errors())) from None


def _explain(schema: type[BaseModel], error: Any, where: str, prefix: str) -> str:
    *parents, last = [str(part) for part in error["loc"]] or [""]
    key = prefix + ".".join([*parents, last])
    if error["type"] == "missing":
        return f"{where}: {key}: is missing in {error['input']!r}"
    if error["type"] == "extra_forbidden":
        section = reduce(_within, parents, schema)
        return f"{where}: {key}: unknown key.{_nearest(last, section, prefix + '.'.join([*parents, '']))}"
    said = f"{where}: {key}: found {error['input']!r}, but it {_expected(error)}"
    if error["type"] == "model_type":
        said += f".{_known(reduce(_within, [*parents, last], schema), f'{key}.')}"
    return said


def _expected(error: Any) -> str:
    """What should stand there, in the words of a file rather than pydantic's."""
    if error["type"] in ("dict_type", "model_type"):
        return _LINES
    if error["type"] in ("tuple_type", "list_type"):
        example = f", as in [{error['input']}]" if isinstance(error["input"], str | int | float) else ""
        return f"should be a list{example}"
    said = re.sub(r"^(Input|Value error,|Tuple|List|Dictionary|String) ", "", error["msg"])
    return re.sub(r" after validation, not \d+$", "", said)


def _within(section: Any, part: str) -> Any:
    """The type of a section's field, or of a mapping's values; of `X | None`, X."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        annotation: Any = section.model_fields[part].annotation
    else:
        annotation = get_args(section)[-1]
    choices = [a for a in get_args(annotation) if a is not type(None)]
    return choices[0] if isinstance(annotation, UnionType) else annotation


def _nearest(key: str, section: type[BaseModel], prefix: str) -> str:
    near = difflib.get_close_matches(key, section.model_fields, n=1, cutoff=0.5)
    if near:
        field = section.model_fields[near[0]]
        about = f" ({field.description})" if field.description else ""
        return f" Did you mean {prefix}{near[0]}{about}?"
    return _known(section, prefix)


def _known(section: type[BaseModel], prefix: str) -> str:
    return f" Known keys: {', '.join(prefix + name for name in section.model_fields)}"
