"""From what a model said to an action: JSON where there is some, else what can be told from the text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

_DECODER = json.JSONDecoder(strict=False)
_BROKEN = re.compile(r"""["']?action["']?\s*:\s*(["'])(.+?)\1\s*(?:[,}]|$)""", re.DOTALL)
"""`{'action': 'go north'}`, or an object that was never closed."""


def parse_action(reply: str, actions: Sequence[str] | None = None) -> str | None:
    """The action that a reply holds, as one line that ends in a newline; None where there is none.

    It is the field `action` of the last JSON object that has one, outside of any <think> part (also of one
    that was cut). Where all legal `actions` are known, one of them in other letters or spaces is taken for
    it, and so is a reply that is nothing but one of them.
    """
    text = reply.rpartition("</think>")[2].partition("<think>")[0]
    found = list(_json_actions(text)) or [m.group(2) for m in _BROKEN.finditer(text)]
    said = _one_line(found[-1] if found else "")
    if actions is not None:
        known = {_key(action): action for action in actions}
        legal = known.get(_key(said or text.strip().strip("`\"'.")))
        if legal is not None:
            return legal
    return f"{said}\n" if said else None


def _json_actions(text: str) -> Iterator[str]:
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            action = value.get("action")
            if isinstance(action, str | int | float) and not isinstance(action, bool):
                yield str(action)
        at = text.find("{", end)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _key(action: str) -> str:
    return _one_line(action).casefold()
