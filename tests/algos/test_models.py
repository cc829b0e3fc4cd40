"""Language models: presets, folders, and a clear refusal of what cannot be used."""

import json

import pytest
import torch
from support import tiny_language_model
from transformers import (
    BertGenerationConfig,
    BertGenerationDecoder,
    BioGptConfig,
    BioGptForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from algos import models
from algos.base import get_algorithm
from algos.batch import empty_batch
from algos.codec import TokenizerError
from algos.models import ModelError
from algos.policy import load_policy

TEXTS = ("move left\n", "There is a wall above you.\n")
IDS = torch.tensor([[5, 6, 7, 8]])


def logits(model, ids=IDS):
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_a_preset_is_determined_by_its_seed_and_disturbs_no_other_generator():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    one, same, other = (models.create("tiny", TEXTS, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(logits(one.model), logits(same.model))
    assert not torch.equal(logits(one.model), logits(other.model))


def test_the_tiny_preset_has_about_a_million_parameters_and_no_dropout():
    tiny = models.create("tiny", TEXTS, 0)
    assert 0.8e6 < tiny.model.num_parameters() < 1.2e6
    assert tiny.max_tokens == 1024
    assert torch.equal(logits(tiny.model.train()), logits(tiny.model.eval()))


def test_a_preset_can_write_any_text():
    codec = models.create("tiny", [], 0).codec
    text = "日本語 🧩 \x00 é\n"
    assert codec.decode(codec.encode(text)) == text


def test_an_unknown_preset_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ModelError, match="'huge' is unknown; presets: tiny, small"):
        models.create("huge", TEXTS, 0)


def test_a_saved_model_is_a_plain_transformers_folder(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    start = tiny_language_model(TEXTS)
    start.save(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert torch.equal(logits(model.eval()), logits(start.model.eval()))
    assert tokenizer("move left\n")["input_ids"] == start.codec.encode("move left\n").tolist()


def test_a_loaded_folder_computes_and_tokenises_as_before(tmp_path):
    start = tiny_language_model(TEXTS)
    start.save(tmp_path)
    loaded = models.load(tmp_path)
    assert torch.equal(logits(loaded.model), logits(start.model.eval()))
    assert loaded.max_tokens == start.max_tokens == 256
    assert loaded.codec.forbidden.tolist() == start.codec.forbidden.tolist()
    for text in TEXTS:
        assert loaded.codec.encode(text).tolist() == start.codec.encode(text).tolist()


def test_a_model_is_loaded_in_float32_and_without_dropout_whatever_its_file_says(tmp_path):
    start = tiny_language_model(TEXTS)
    for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        setattr(start.model.config, key, 0.5)
    start.model.to(torch.bfloat16)
    start.save(tmp_path)
    loaded = models.load(tmp_path)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert torch.equal(logits(loaded.model.train()), logits(loaded.model.eval()))


def test_every_dropout_of_a_model_is_off_whatever_its_family_calls_it(tmp_path):
    config = BioGptConfig(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    save_as(tmp_path, BioGptForCausalLM(config))
    model = models.load(tmp_path).model
    assert torch.equal(logits(model.train()), logits(model.eval()))


def test_a_model_that_sees_later_tokens_is_refused(tmp_path):
    config = BertGenerationConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    save_as(tmp_path, BertGenerationDecoder(config))
    with pytest.raises(ModelError, match="BertGenerationDecoder is not causal"):
        models.load(tmp_path)


def test_a_model_that_cannot_be_read_in_pieces_is_refused(tmp_path):
    config = FalconConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, alibi=True
    )
    save_as(tmp_path, FalconForCausalLM(config))
    with pytest.raises(ModelError, match="FalconForCausalLM cannot read a text in pieces"):
        models.load(tmp_path)


@pytest.mark.parametrize("algo", ["ilql", "mc", "cql", "ppo", "archer", "offline-archer"])
def test_values_of_a_model_whose_states_are_narrower_at_the_end(tmp_path, algo):
    """As those of OPT with 350 M parameters are."""
    config = OPTConfig(
        vocab_size=300,
        hidden_size=16,
        word_embed_proj_dim=8,
        ffn_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    save_as(tmp_path, OPTForCausalLM(config))
    kind = get_algorithm(algo)
    algorithm = kind(kind.Config(), models.load(tmp_path))
    assert algorithm(empty_batch().normalized_by(1)).value.item() == 0
    algorithm.policy().save(tmp_path / "saved")
    assert load_policy(tmp_path / "saved").max_tokens == 64


def save_as(folder, model):
    """With the tokenizer of our tiny model."""
    tiny_language_model(TEXTS).codec.tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


@pytest.mark.filterwarnings("error")
def test_a_fresh_trunk_recomputes_its_layers_where_the_model_does():
    model = tiny_language_model(TEXTS)
    assert not any(block.gradient_checkpointing for block in model.fresh_trunk().h)
    models.recompute_layers(model.trunk)
    assert all(block.gradient_checkpointing for block in model.fresh_trunk().h)


def test_a_tokenizer_without_padding_gets_its_end_token_as_padding(tmp_path):
    start = tiny_language_model(TEXTS)
    start.save(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["pad_token"] = None
    path.write_text(json.dumps(settings))
    tokenizer = models.load(tmp_path).codec.tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token


@pytest.mark.parametrize("use", [models.load, models.check])
def test_a_missing_folder_is_an_error_that_says_what_to_do(use, tmp_path):
    with pytest.raises(ModelError, match=r"hf download.*Presets that need neither: tiny, small") as caught:
        use(tmp_path / "no-such-model")
    assert "no-such-model' could not be loaded (there is no such folder)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", [models.load, models.check])
def test_a_missing_name_without_a_network_is_an_error_that_says_what_to_do(use, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"nobody/no-such-model.*it needs the network"):
        use("nobody/no-such-model")


def test_a_folder_with_a_damaged_configuration_is_an_error(tmp_path):
    tiny_language_model(TEXTS).save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type":')
    with pytest.raises(ModelError, match="could not be loaded"):
        models.load(tmp_path)


def test_checking_a_model_that_is_there_loads_no_weights(tmp_path):
    tiny_language_model(TEXTS).save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    models.check(tmp_path)


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 300,
    "max_position_embeddings": 64,
}


def save_beside_a_tokenizer(model, folder):
    tiny_language_model(TEXTS).save(folder)
    model.save_pretrained(folder)


def test_a_model_that_caps_its_logits_is_refused_even_while_they_are_small(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=30.0)
    save_beside_a_tokenizer(Gemma2ForCausalLM(config), tmp_path)
    with pytest.raises(ModelError, match="soft-capping or scaling"):
        models.load(tmp_path)


def test_a_model_that_scales_its_logits_is_refused(tmp_path):
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    save_beside_a_tokenizer(GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0)), tmp_path)
    with pytest.raises(ModelError, match="soft-capping or scaling"):
        models.load(tmp_path)


def save_configuration(folder, name, **settings):
    import transformers

    getattr(transformers, f"{name}Config")(**settings).save_pretrained(folder)


@pytest.mark.parametrize("use", [models.load, models.check])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("GPTJ", r"GPTJForCausalLM\) has no SDPA attention"),
        ("GPTNeo", r"GPTNeoForCausalLM\) has no SDPA attention"),
        ("Bloom", r"BloomForCausalLM\) has no SDPA attention"),
        ("GptOss", r"GptOssForCausalLM\) has no SDPA attention"),
        ("Qwen3Next", r"Qwen3NextForCausalLM\) has layers .* \(LinearAttentionLayer\)"),
        ("T5", r"\(T5Config\) is no causal language model"),
    ],
)
def test_what_an_architecture_lacks_is_said_before_there_are_weights(use, name, says, tmp_path):
    save_configuration(tmp_path, name)
    with pytest.raises(ModelError, match=says) as caught:
        use(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "hf download" not in str(caught.value)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    start = tiny_language_model(TEXTS)
    start.codec.tokenizer.add_tokens(["<move>"])
    start.save(tmp_path)
    rows = start.model.config.vocab_size
    with pytest.raises(
        ModelError, match=rf"tokenizer has {rows + 1} tokens, the model {rows}.*resize_token_embeddings"
    ):
        models.load(tmp_path)


def test_a_tokenizer_may_have_special_tokens_that_the_model_has_not(tmp_path):
    start = tiny_language_model(TEXTS)
    start.codec.tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    start.save(tmp_path)
    loaded = models.load(tmp_path)
    assert loaded.codec.vocab_size == logits(loaded.model).shape[-1]


def test_another_architecture_loads(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    model = Qwen2ForCausalLM(Qwen2Config(**SMALL)).eval()
    save_beside_a_tokenizer(model, tmp_path)
    loaded = models.load(tmp_path)
    assert torch.equal(logits(loaded.model), logits(model))
    assert loaded.max_tokens == 64
    assert bool(loaded.codec.forbidden[len(loaded.codec.tokenizer) :].all())


def test_a_tokenizer_that_does_not_concatenate_is_refused(tmp_path):
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"?": 0, "move": 1, "left": 2, "s": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tiny_language_model(TEXTS).model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="?").save_pretrained(tmp_path)
    with pytest.raises(TokenizerError, match="byte-level"):
        models.load(tmp_path)


def test_a_model_is_saved_by_every_learner_worker_and_not_the_first_alone(tmp_path, monkeypatch):
    from transformers.distributed import mixin

    monkeypatch.setattr(mixin, "_is_torch_distributed_initialized", lambda: True)
    monkeypatch.setattr(mixin, "_get_torch_distributed_rank", lambda: 1)
    models.create("tiny", ["move left\n"], 0).save(tmp_path / "saved")
    assert models.load(tmp_path / "saved").codec.encode("move left\n").size
