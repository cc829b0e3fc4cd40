"""Text to token ids and back, segment by segment.

Each segment (one observation or one action) is encoded by itself and the ids are concatenated, so
the ids of a prompt are a prefix of the ids of its continuation whatever was said. Ids that a model
sampled are kept as they are and never re-encoded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch


class TokenizerError(ValueError):
    """The tokenizer cannot be used segment by segment."""


class TextCodec:
    """A Hugging Face tokenizer as the two functions we need, and what a sampler must know of it.

    Attributes:
        vocab_size: ids that may occur, the model's number of rows. A special token beyond them (Gemma-3 has
            one, for images) is left out.
        ends_action: bool [vocab_size], the ids whose text holds a newline: an action stops there.
        forbidden: bool [vocab_size], ids that are never sampled: special and unused ones, and those with
            text after a newline, which would say more than the action that they end.
        newline: the ids of "\\n".
    """

    def __init__(self, tokenizer: Any, model_vocab_size: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = model_vocab_size or len(tokenizer)
        self._encode = lru_cache(maxsize=65_536)(self._encode_uncached)
        self.newline = self.encode("\n")
        self._check_segments_concatenate()
        self.ends_action = torch.zeros(self.vocab_size, dtype=torch.bool)
        self.forbidden = torch.ones(self.vocab_size, dtype=torch.bool)
        special = special_ids(tokenizer)
        known = range(min(len(tokenizer), self.vocab_size))
        for i, text in enumerate(tokenizer.batch_decode([[i] for i in known])):
            self.ends_action[i] = "\n" in text
            self.forbidden[i] = i in special or "\n" in text[:-1]

    def encode(self, text: str) -> np.ndarray:
        """Ids of one segment, int32 [n]; the array is shared, do not write to it."""
        return self._encode(text)

    def decode(self, ids: Any) -> str:
        """Text of ids; bytes that are not UTF-8 become U+FFFD."""
        text: str = self.tokenizer.decode(
            [int(i) for i in ids], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def _encode_uncached(self, text: str) -> np.ndarray:
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        array = np.asarray(ids, dtype=np.int32)
        if len(array) and array.max() >= self.vocab_size:
            raise TokenizerError(
                f"a text holds {self.decode([array.max()])!r}, token {array.max()} of the tokenizer, but the "
                f"model has rows for {self.vocab_size} tokens; call its resize_token_embeddings"
            )
        array.setflags(write=False)
        return array

    def _check_segments_concatenate(self) -> None:
        first, second = "move left\n", "s h i r e\n"
        joined = self.decode([*self.encode(first), *self.encode(second)])
        if joined != first + second:
            raise TokenizerError(
                f"{type(self.tokenizer).__name__} decodes two separately encoded segments to "
                f"{joined!r} instead of {first + second!r}; use a byte-level tokenizer"
            )


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of special tokens; `all_special_ids` has those alone that have a role (end, padding, ...)."""
    added = tokenizer.added_tokens_decoder.items()
    return {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
