"""How a board and a move are written: FEN and SAN with a space between all characters.

The spaces keep a sub-word tokenizer from gluing pieces and squares together (LMRL-Gym, appendix
C.4). A FEN's own spaces become three. Published observations lack the newline that ends ours.
"""

from __future__ import annotations


def write_fen(fen: str) -> str:
    """The observation: the spaced FEN and a newline."""
    return " ".join(fen) + "\n"


def write_san(san: str) -> str:
    """The action: the spaced SAN and a newline, e.g. `N f 3`."""
    return " ".join(san) + "\n"


def read_fen(text: str) -> str:
    """The FEN in a spaced or plain text; whatever else the text holds is returned as it stands."""
    text = text.strip()
    spaced = len(text) > 1 and not text[1::2].strip(" ")
    return text[::2] if spaced else text


def read_san(text: str) -> str:
    """The SAN in a spaced or plain text."""
    return text.replace(" ", "").strip()
