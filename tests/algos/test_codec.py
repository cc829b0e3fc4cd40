"""Text to ids and back: segments concatenate, actions stop at one newline, unusable ids are ruled out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algos import models
from algos.codec import TextCodec, TokenizerError


def pretrained_like(texts, vocab_size):
    """A byte-level tokenizer that merges as GPT-2's does, several newlines into one token too."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=["<|pad|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>")


TEXTS = ("move left\n", "There is a wall above you.\n", "a\n\n\nb\n\n\na\n\n\nb\n\n\n" * 20)
CODEC = TextCodec(pretrained_like(TEXTS, 300), model_vocab_size=320)
OURS = TextCodec(models.train_tokenizer(TEXTS, 300))
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def pieces(codec):
    return [codec.decode([i]) for i in range(len(codec.tokenizer))]


@pytest.mark.parametrize("codec", [CODEC, OURS], ids=["pretrained", "ours"])
@given(segments=st.lists(unicode_text, max_size=5))
def test_separately_encoded_segments_decode_to_their_concatenation(codec, segments):
    ids = np.concatenate([np.zeros(0, np.int32), *[codec.encode(s) for s in segments]])
    assert codec.decode(ids) == "".join(segments)


def test_in_our_own_tokenizer_a_newline_is_a_token_of_its_own():
    assert [text for text in pieces(OURS) if "\n" in text] == ["\n"]
    assert len(OURS.newline) == 1


def test_encoding_adds_no_token_and_shares_a_read_only_array():
    ids = CODEC.encode("move left\n")
    assert ids.dtype == np.int32
    assert "".join(CODEC.decode([i]) for i in ids) == "move left\n"
    assert ids is CODEC.encode("move left\n")
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


def test_an_empty_text_has_no_ids():
    assert len(CODEC.encode("")) == 0


def test_the_newline_is_known_by_its_ids():
    assert CODEC.decode(CODEC.newline) == "\n"


def test_every_id_whose_text_holds_a_newline_ends_an_action():
    found = [bool(x) for x in CODEC.ends_action]
    assert found[: len(CODEC.tokenizer)] == ["\n" in text for text in pieces(CODEC)]
    tokenizer = models.train_tokenizer(["move up\n"], 300)
    tokenizer.add_tokens(["up\n\n"])
    codec = TextCodec(tokenizer)
    assert bool(codec.ends_action[tokenizer.convert_tokens_to_ids("up\n\n")])


def test_special_and_unused_ids_are_forbidden():
    assert CODEC.vocab_size == 320
    assert bool(CODEC.forbidden[CODEC.tokenizer.pad_token_id])
    assert bool(CODEC.forbidden[len(CODEC.tokenizer) :].all())


def test_special_tokens_without_a_role_are_forbidden():
    from tokenizers import AddedToken

    tokenizer = pretrained_like(TEXTS, 300)
    tokenizer.add_tokens([AddedToken("<|reserved|>", special=True), AddedToken("<move>", special=False)])
    reserved, ordinary = tokenizer.convert_tokens_to_ids(["<|reserved|>", "<move>"])
    assert reserved not in tokenizer.all_special_ids
    forbidden = TextCodec(tokenizer).forbidden
    assert bool(forbidden[reserved])
    assert not bool(forbidden[ordinary])


def test_a_special_token_that_the_model_has_no_row_for_is_left_out_and_refused_in_a_text():
    tokenizer = pretrained_like(TEXTS, 300)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    codec = TextCodec(tokenizer, model_vocab_size=rows)
    assert codec.vocab_size == len(codec.forbidden) == len(codec.ends_action) == rows
    assert codec.decode(codec.encode("move left\n")) == "move left\n"
    with pytest.raises(TokenizerError, match=f"'<image>'.*the model has rows for {rows} tokens"):
        codec.encode("an <image> here\n")


def test_an_id_with_text_after_a_newline_is_forbidden_for_it_would_end_an_action_in_its_middle():
    expected = ["\n" in text[:-1] for text in pieces(CODEC)]
    special = CODEC.tokenizer.pad_token_id
    found = CODEC.forbidden[: len(CODEC.tokenizer)].tolist()
    assert [f for i, f in enumerate(found) if i != special] == [
        e for i, e in enumerate(expected) if i != special
    ]


def test_bytes_that_are_no_text_become_the_replacement_character():
    first_of_two = CODEC.encode("é")[0]
    assert CODEC.decode([first_of_two, *CODEC.newline]) == "�\n"


def test_a_tokenizer_that_loses_white_space_is_refused():
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"?": 0, "move": 1, "left": 2, "s": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(TokenizerError, match="byte-level"):
        TextCodec(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?"))


def test_a_tokenizer_that_puts_a_space_before_each_segment_is_refused():
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    pieces_of_words = Tokenizer(BPE(unk_token="?"))
    pieces_of_words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    pieces_of_words.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=60, special_tokens=["?"], show_progress=False)
    pieces_of_words.train_from_iterator(["move left\n", "s h i r e\n"], trainer)
    with pytest.raises(TokenizerError, match="separately encoded"):
        TextCodec(PreTrainedTokenizerFast(tokenizer_object=pieces_of_words, unk_token="?"))
