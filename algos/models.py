"""Language models: the presets that need no download, and any Hugging Face name or folder.

    tiny    about 1 M parameters: what a laptop trains in minutes
    small   about 20 M parameters
    NAME    a causal model of transformers, by Hugging Face name or folder: gpt2. It needs SDPA attention,
            keys and values in every layer, and logits as its output layer gives them

A preset's tokenizer is a byte-level BPE trained on the task's own text, so every text can be encoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from algos.cache import SlotCache, foreign_layers, shortest_window
from algos.codec import TextCodec, special_ids
from algos.lora import has_adapters, merged_state
from algos.networks import run_in_bf16


def quiet_transformers() -> None:
    """No progress bars for loading and saving: they say nothing at our sizes, many times a run."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not torch.cuda.is_available():
        # Where `accelerate` is installed, saving imports DeepSpeed, which then tells stdout what it found.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


class ModelError(ValueError):
    """A model cannot be found, or cannot be used here."""


@dataclass(frozen=True)
class Preset:
    layers: int
    width: int
    heads: int
    positions: int
    vocab: int


PRESETS = {
    "tiny": Preset(layers=4, width=128, heads=4, positions=1024, vocab=1024),
    "small": Preset(layers=8, width=448, heads=7, positions=1024, vocab=4096),
}

PAD = "<|pad|>"


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM with its tokenizer; saved and loaded as a plain transformers folder."""

    model: Any
    codec: TextCodec

    @property
    def trunk(self) -> Any:
        """The model without its output layer."""
        return self.model.base_model

    @property
    def width(self) -> int:
        """Of the states that the output layer reads; some trunks are wider inside."""
        return int(self.model.get_output_embeddings().weight.shape[1])

    @property
    def max_tokens(self) -> int:
        """Tokens that fit into the model's window, and into every sliding window of its layers.

        LongRoPE turns every position's angles anew once a text exceeds the length that the model was first
        trained at, so that kept keys no longer fit; such a model's window ends there.
        """
        config = self.model.config
        positions = int(getattr(config, "max_position_embeddings", None) or config.n_positions)
        rope = getattr(config, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            positions = min(positions, int(rope["original_max_position_embeddings"]))
        return min(positions, shortest_window(config) or positions)

    def fresh_trunk(self) -> Any:
        """A trunk of the same shape with new weights, which runs in the same way."""
        trunk = type(self.trunk)(self.trunk.config).float()
        if getattr(self.trunk, "runs_in_bf16", False):
            run_in_bf16(trunk)
        if any(getattr(module, "gradient_checkpointing", False) for module in self.trunk.modules()):
            recompute_layers(trunk)
        return trunk

    def save(self, folder: Path) -> None:
        quiet_transformers()
        adapted = has_adapters(self.model)
        with _written_by_every_worker(self.model):
            self.model.save_pretrained(folder, state_dict=merged_state(self.model) if adapted else None)
        self.codec.tokenizer.save_pretrained(folder)


@contextmanager
def _written_by_every_worker(model: Any) -> Iterator[None]:
    """Inside, `save_pretrained` writes on each rank: where torch.distributed runs it would on the first
    alone, without a word, but each learner worker plays from a folder of its own."""
    model.should_save_on_this_rank = lambda is_main_process: is_main_process
    try:
        yield
    finally:
        del model.should_save_on_this_rank


def create(preset: str, texts: Iterable[str], seed: int) -> LanguageModel:
    """A preset with random weights, and a tokenizer trained on `texts`.

    Raises ModelError for an unknown preset.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if preset not in PRESETS:
        raise ModelError(f"model preset {preset!r} is unknown; presets: {', '.join(PRESETS)}")
    shape = PRESETS[preset]
    tokenizer = train_tokenizer(texts, shape.vocab)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=shape.positions,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        bos_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # GPT-2's own 0.02 is for a width of 768 and more: at ours attention would start out uniform.
        initializer_range=shape.width**-0.5,
        # The same function as GPT-2's own, in one operation instead of eight.
        activation_function="gelu_pytorch_tanh",
        **_NO_DROPOUT,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    return LanguageModel(model, TextCodec(tokenizer, config.vocab_size))


def load(name: str | Path) -> LanguageModel:
    """A model by Hugging Face name or folder, in fp32 and without dropout.

    Raises ModelError that says what to do when it is not there or cannot be used segment by segment.
    """
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    config = _usable_configuration(name)
    tokenizer = _load_tokenizer(name)
    with _explained(name):
        model = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=torch.float32,
            attn_implementation="sdpa",
            **_NO_CODE,
            **_WEIGHTS,
            **_dropout_off(config),
        )
    _check_plain_head(model)
    _check_rows(name, len(model.get_output_embeddings().weight), tokenizer)
    return LanguageModel(model, TextCodec(tokenizer, model.config.vocab_size))


def load_seq2seq(name: str | Path) -> tuple[Any, Any]:
    """An encoder-decoder model and its tokenizer, by Hugging Face name or folder, in fp32.

    It can be asked for lines of text, not trained. ModelError when it is not there.
    """
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    quiet_transformers()
    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(name, **_NO_CODE)
        model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32, **_NO_CODE, **_WEIGHTS)
    return model, tokenizer


def is_encoder_decoder(name: str | Path) -> bool:
    """Whether the model, by Hugging Face name or folder, is one. ModelError when it is not there."""
    from transformers import AutoConfig

    with _explained(name):
        return bool(AutoConfig.from_pretrained(name, **_NO_CODE).is_encoder_decoder)


def check(name: str | Path) -> None:
    """ModelError or TokenizerError, without loading any weights, when there is no such model, or its
    configuration, its tokenizer or (in a folder) its files of weights cannot be used here."""
    config, folder = _usable_configuration(name), Path(name)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model {str(name)!r} has no *.safetensors, and other weights are pickles, which are not loaded: "
            f"model.save_pretrained({str(name)!r})"
        )
    if folder.is_dir() and not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        raise ModelError(f"model {str(name)!r} has no tokenizer: tokenizer.save_pretrained({str(name)!r})")
    tokenizer = _load_tokenizer(name)
    _check_rows(name, config.get_text_config().vocab_size, tokenizer)
    TextCodec(tokenizer)


def _usable_configuration(name: str | Path) -> Any:
    """The model's configuration. ModelError when it is not there, or tells that the model cannot be used."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    with _explained(name):
        config = AutoConfig.from_pretrained(name, **_NO_CODE)
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None:
        raise ModelError(
            f"model {str(name)!r} ({type(config).__name__}) is no causal language model; use one that is"
        )
    if getattr(config.get_text_config(), "final_logit_softcapping", None):
        raise _changed_logits(kind.__name__)
    model = f"model {str(name)!r} ({kind.__name__})"
    if not kind._supports_sdpa:
        raise ModelError(
            f"{model} has no SDPA attention in transformers, which our batches of histories need; "
            f"use another model"
        )
    if foreign := foreign_layers(config):
        raise ModelError(
            f"{model} has layers that remember more than keys and values ({', '.join(sorted(foreign))}), "
            f"for which there is no cache of histories here; use another model"
        )
    return config


@contextmanager
def _explained(name: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a damaged file makes transformers raise whatever comes
        text = str(error) if isinstance(error, OSError | ValueError) else ""
        reason = (text or repr(error)).splitlines()[0]
        if Path(name).is_absolute() and not Path(name).exists():
            reason = "there is no such folder"  # Hugging Face speaks of repositories
        raise ModelError(
            f"model {str(name)!r} could not be loaded ({reason}). Give a folder that "
            f"`save_pretrained` wrote, or a Hugging Face name: it needs the network, or a copy in the "
            f"cache (on a machine with network: `hf download {name}`; then copy HF_HOME). "
            f"Presets that need neither: {', '.join(PRESETS)}"
        ) from error


def architecture(name: str | Path) -> Any:
    """The model without memory for its weights, to see what it can do. ModelError when it is not there."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with _explained(name), torch.device("meta"):
        config = AutoConfig.from_pretrained(name, **_NO_CODE)
        return AutoModelForCausalLM.from_config(config, **_NO_CODE)


def _load_tokenizer(name: str | Path) -> Any:
    """By Hugging Face name or folder, with a padding token. ModelError when it cannot be loaded."""
    from transformers import AutoTokenizer

    with _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(name, **_NO_CODE)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def recompute_layers(model: Any) -> None:
    """Keep no activations inside of its layers. ModelError when the architecture does not know how."""
    try:
        # The re-entrant kind needs inputs that require gradients, which frozen embeddings do not make.
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    except ValueError as error:
        raise ModelError(
            f"model.gradient_checkpointing: {type(model).__name__} has none in transformers; "
            f"leave it out, or use another model"
        ) from error


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE trained on texts; all 256 bytes are in it, so it encodes any text.

    Merges may cross words, as in SuperBPE (Liu et al. 2025): phrases that a task repeats become one
    token. They never cross a newline, which ends an action, or a lone character, by which some tasks
    spell (Wordle's letters, the squares of chess).
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_ALONE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=PAD)


_ALONE = r"\n| ?(?<!\S)\S(?!\S)"
"""A newline, or a character between spaces: what no merge may cross."""

_NO_CODE = {"trust_remote_code": False}
"""By default transformers would ask on the terminal whether to run the code that a folder brings."""
_WEIGHTS = {"use_safetensors": True}
"""Other weights are pickles."""
_NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def _dropout_off(config: Any) -> dict[str, float]:
    """Zero for every dropout rate that the model's configuration has: values are not regressed on noise."""
    return {k: 0.0 for k in config.to_dict() if k.endswith(("_pdrop", "dropout", "dropout_prob"))}


@torch.no_grad()
def _check_plain_head(model: Any) -> None:
    """We apply the output layer ourselves, to action tokens alone: it must be all that follows the trunk.

    And a state must not see what comes after it.
    """
    ids = torch.tensor([[1, 2, 3], [1, 2, 4]])
    model.eval()
    direct = model(input_ids=ids).logits
    hidden = model.base_model(input_ids=ids).last_hidden_state
    if not torch.allclose(direct, model.get_output_embeddings()(hidden), rtol=1e-3, atol=1e-3):
        raise _changed_logits(type(model).__name__)
    if not torch.allclose(hidden[0, :2], hidden[1, :2], rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"{type(model).__name__} is not causal: its states change with later tokens; use another model, "
            f"or set is_decoder in its config.json if it was trained as a decoder"
        )
    if not torch.allclose(_read_in_pieces(model, ids), hidden[:, -1], rtol=1e-3, atol=1e-3):
        raise ModelError(
            f"{type(model).__name__} reads a text otherwise when it comes in pieces; use another model"
        )


def _read_in_pieces(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """The last state of two texts, [2, h], of which the first is begun earlier, as in play."""
    first, second = ids.numpy()
    cache = SlotCache([model.base_model], 2, torch.device("cpu"))
    try:
        cache.append([first[:2], second[:0]])
        (states,) = cache.append([first[2:], second])
    except Exception as error:  # an architecture that takes its mask or positions in another way
        raise ModelError(
            f"{type(model).__name__} cannot read a text in pieces as we give them ({error!r}); "
            f"use another model"
        ) from error
    return states


def _check_rows(name: str | Path, rows: int, tokenizer: Any) -> None:
    """The model has a row for every token that is said; special ones it may lack (see `TextCodec`)."""
    tokens = len(tokenizer)
    if not special_ids(tokenizer).issuperset(range(rows, tokens)):
        raise ModelError(
            f"model {str(name)!r}: the tokenizer has {tokens} tokens, the model {rows}; call "
            f"model.resize_token_embeddings({tokens}) and save it, or save it with its own tokenizer"
        )


def _changed_logits(name: str) -> ModelError:
    return ModelError(
        f"{name} changes its logits after the output layer (soft-capping or scaling), "
        f"which is not supported; use another model"
    )
