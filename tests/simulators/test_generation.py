"""Lines in batches: what is said to one prompt does not depend on the others, whatever the architecture."""

import pytest
import torch
from support import tiny_language_model

from algos import generation, models
from algos.generation import CausalGenerator, Seq2SeqGenerator, load_generator
from algos.models import ModelError
from algos.policy import LanguagePolicy
from envs.answering import Request

TEXTS = ["Is it alive?\nYes.\n", "Does it have wheels?\nNo.\n", "Start\nHello there, what would you like?\n"]
PROMPTS = ["Is it alive?\n", "Start\nDoes it have wheels?\nWhat would you like?\n", "Hello?\n"]


def requests(*, seeds=(None, None, None), max_tokens=12, prompts=PROMPTS):
    return [Request("", p, max_tokens, s) for p, s in zip(prompts, seeds, strict=True)]


@pytest.fixture(scope="module")
def causal_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal") / "policy"
    tiny_language_model(TEXTS, seed=3).save(folder)
    return folder


@pytest.fixture(scope="module")
def seq2seq_folder(tmp_path_factory):
    """A T5 of a few thousand untrained parameters, whose prompts end in its end token."""
    from tokenizers.processors import TemplateProcessing
    from transformers import T5Config, T5ForConditionalGeneration

    folder = tmp_path_factory.mktemp("seq2seq")
    tokenizer = models.train_tokenizer(TEXTS, 300)
    end = tokenizer.eos_token_id
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single=f"$A {tokenizer.eos_token}", special_tokens=[(tokenizer.eos_token, end)]
    )
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=16,
        d_ff=64,
        num_layers=2,
        num_heads=2,
        pad_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=end,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["causal", "seq2seq"])
def generator(request, causal_folder, seq2seq_folder):
    return load_generator(causal_folder if request.param == "causal" else seq2seq_folder)


def test_the_configuration_decides_how_a_model_is_read(causal_folder, seq2seq_folder):
    assert isinstance(load_generator(causal_folder), CausalGenerator)
    assert isinstance(load_generator(seq2seq_folder), Seq2SeqGenerator)


@pytest.mark.parametrize("seeds", [(None, None, None), (1, 2, 3)])
def test_a_line_does_not_depend_on_the_batch(generator, seeds):
    together = generator.lines(requests(seeds=seeds))
    alone = [generator.lines([r])[0] for r in requests(seeds=seeds)]
    assert together == alone
    assert not any("\n" in line for line in together)


def test_the_seed_decides_a_drawn_line(generator):
    drawn = [generator.lines(requests(seeds=(s, s, s), prompts=PROMPTS[:1] * 3)) for s in range(6)]
    assert all(len(set(lines)) == 1 for lines in drawn)
    assert len({lines[0] for lines in drawn}) > 1


def test_drawn_and_likeliest_lines_can_be_asked_for_together(generator):
    mixed = generator.lines(requests(seeds=(None, 7, None)))
    likeliest, drawn = generator.lines(requests()), generator.lines(requests(seeds=(7, 7, 7)))
    assert mixed == [likeliest[0], drawn[1], likeliest[2]]


def test_each_line_has_its_own_limit(generator):
    long, short = generator.lines([Request("", PROMPTS[0], 12, None), Request("", PROMPTS[0], 2, None)])
    assert len(short) <= len(long)
    assert long.startswith(short)


def test_a_causal_model_says_its_likeliest_line(causal_folder):
    """Against a plain loop of forward passes."""
    lm = models.load(causal_folder)
    ids = lm.codec.encode(PROMPTS[0]).tolist()
    line = []
    with torch.no_grad():
        for _ in range(12):
            logits = (
                lm.model(torch.tensor([ids + line])).logits[0, -1].masked_fill(lm.codec.forbidden, -torch.inf)
            )
            line.append(int(logits.argmax()))
            if lm.codec.ends_action[line[-1]]:
                break
    expected = lm.codec.decode(line).split("\n")[0].strip()
    assert load_generator(causal_folder).lines(requests()[:1]) == [expected]


def test_an_encoder_decoder_says_what_its_own_generate_says(seq2seq_folder):
    model, tokenizer = models.load_seq2seq(seq2seq_folder)
    batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    ids = model.eval().generate(**batch, max_new_tokens=12, do_sample=False)
    expected = [t.split("\n")[0].strip() for t in tokenizer.batch_decode(ids, skip_special_tokens=True)]
    assert load_generator(seq2seq_folder).lines(requests()) == expected


def test_a_prompt_that_is_too_long_loses_its_beginning():
    lm = tiny_language_model(TEXTS, positions=48, seed=3)
    generator = CausalGenerator(LanguagePolicy(lm).eval())
    ids = lm.codec.encode("Hello? " * 60 + "\n")[-(48 - 12) :]
    cut = lm.codec.decode(ids)
    assert len(lm.codec.encode(cut)) == len(ids)
    lines = generator.lines(requests(prompts=["Hello? " * 60 + "\n", cut, PROMPTS[0]]))
    assert lines[0] == lines[1]


def test_a_prompt_loses_no_more_beside_a_request_for_a_longer_line(monkeypatch):
    read = []

    class Reading(generation.Sampler):
        def act(self, chunks):
            read.extend(len(ids) for ids in chunks.values())
            return super().act(chunks)

    monkeypatch.setattr(generation, "Sampler", Reading)
    lm = tiny_language_model(TEXTS, positions=64, seed=3)
    long = Request("", "Hello? " * 60 + "\n", 8, 3)
    CausalGenerator(LanguagePolicy(lm).eval()).lines([long, Request("", "Hi\n", 40, 3)])
    assert max(read) == 64 - 8


def test_a_window_without_room_for_a_prompt_is_an_error():
    generator = CausalGenerator(LanguagePolicy(tiny_language_model(TEXTS, positions=16)).eval())
    with pytest.raises(ModelError, match="window of 16 tokens has no room for a prompt beside a line of 16"):
        generator.lines(requests(max_tokens=16))


def test_a_model_that_is_not_there_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(ModelError, match="could not be loaded"):
        load_generator(tmp_path)


def test_an_encoder_decoder_reads_the_end_of_a_prompt_that_is_too_long(seq2seq_folder):
    generator, seen = load_generator(seq2seq_folder), []
    tokenizer = generator._tokenizer
    tokenizer.model_max_length = 6
    generator._model.get_encoder().register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    generator.lines([Request("", "move left\n" * 20 + "12345", 1, None)])
    assert tokenizer.decode(seen[0][0]) == "12345" + tokenizer.eos_token
