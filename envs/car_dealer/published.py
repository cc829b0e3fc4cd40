"""Reader of the car dealer conversations that LMRL-Gym publishes, in both formats that are about.

`train.json` and `eval.json`: a list of conversations, or an object of such lists by personality. A
conversation has `buyer_info` with the budget as a number, `lines` (role Seller or Buyer) and, unless it
was cut off, the `output` of the sale. The older file of 4,399 conversations has a budget such as "30k":
its lines (role Dealer or Buyer) may carry a probability and a price of purchase, and there is no list
price in it. There the last line that carries a probability decides, a sale being more likely than not,
and the budget stands in for the list price.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any, Final

from envs.car_dealer.deal import Decision, RewardMode, reward_of
from envs.car_dealer.env import OPENING
from envs.core import Episode, Segment

_SELLERS: Final = ("Seller", "Dealer")
_BUYER: Final = "Buyer"
_UNKNOWN_TASK: Final = -1
"""A published buyer is none of our numbered ones."""
_LIKELY: Final = 0.5
_NUMBER: Final = (int, float)


def read_published(
    path: str | PathLike[str], *, task: str = "car-dealer", reward: RewardMode = "fancy"
) -> Iterator[Episode]:
    """The conversations of a file as episodes; their `seed` is the number in the file, from 1.

    The file is JSON in one piece, so it is parsed at once; episodes are built one by one. ValueError
    names the file, the line (or the number of the conversation) and the field that is wrong.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error
    for number, record in enumerate(_records(path, content), start=1):
        try:
            yield _episode(record, number, task, reward)
        except ValueError as error:
            raise ValueError(f"{path}, conversation {number}: {error}") from error


def _records(path: Path, content: Any) -> Iterator[Any]:
    groups = content.values() if isinstance(content, dict) else [content]
    for group in groups:
        if not isinstance(group, list):
            raise ValueError(f"{path}: found {type(group).__name__} where a list should be")
        yield from group


def _episode(record: Any, number: int, task: str, mode: RewardMode) -> Episode:
    info, lines = _field(record, "buyer_info", dict), _field(record, "lines", list)
    if isinstance(info.get("budget"), str) and "output" not in record:
        budget = _read_budget(info["budget"])
        decision: Decision | None = _last_estimate(lines, budget)
    else:
        budget = int(_field(info, "budget", _NUMBER, "buyer_info."))
        decision = _read_output(_field(record, "output", dict)) if "output" in record else None
    segments = _segments(lines, 0.0 if decision is None else reward_of(decision, budget, mode))
    if decision is None and segments[-1].is_action:
        del segments[-1]  # what the buyer said to it is not in the file
    return Episode(
        task=task,
        segments=tuple(segments),
        terminated=decision is not None,
        truncated=False,
        success=decision is not None and decision.accepted,
        seed=number,
        task_id=_UNKNOWN_TASK,
        simulator="lm",
        policy="published",
    )


def _read_output(output: Mapping[str, Any]) -> Decision:
    bought = _field(output, "car_bought", bool, "output.")
    msrp = int(_field(output, "msrp", _NUMBER, "output."))
    price = output.get("buy_price")
    if price is not None:
        price = int(_field(output, "buy_price", _NUMBER, "output."))
    return Decision(bought, msrp, price)


def _read_budget(text: str) -> int:
    """ "30k" or "$30,000" in dollars."""
    text = text.strip().lower()
    digits = text.lstrip("$").removesuffix("k").replace(",", "")
    if not digits.isdecimal():
        raise ValueError(f"buyer_info.budget: found {text!r}, which is no amount such as '30k'")
    return int(digits) * (1000 if text.endswith("k") else 1)


def _last_estimate(lines: list[Any], budget: int) -> Decision:
    bought, price = False, None
    for at, line in enumerate(lines):
        read = partial(_field, line, kind=_NUMBER, prefix=f"lines[{at}].")
        if isinstance(line, dict) and line.get("purchase_prob") is not None:
            bought = read("purchase_prob") > _LIKELY
        if isinstance(line, dict) and line.get("purchase_price") is not None:
            price = int(read("purchase_price"))
    return Decision(bought, msrp=budget, price=price)


def _segments(lines: list[Any], reward: float) -> list[Segment]:
    """The conversation from the seller's side; the reward is on the seller's last turn."""
    segments = [Segment(OPENING, is_action=False)]
    spoken = [_read_line(line, f"lines[{at}].") for at, line in enumerate(lines)]
    for is_seller, turn in groupby(spoken, key=lambda line: line[0]):
        text = " ".join(text for _, text in turn) + "\n"
        if not is_seller and len(segments) == 1:  # the buyer speaks first: the seller sees it at once
            segments = [Segment(OPENING + text, is_action=False)]
        else:
            segments.append(Segment(text, is_action=is_seller))
    last = max((at for at, segment in enumerate(segments) if segment.is_action), default=None)
    if last is None:
        raise ValueError("lines: the seller says nothing")
    segments[last] = Segment(segments[last].text, is_action=True, reward=reward)
    return segments


def _read_line(line: Any, prefix: str) -> tuple[bool, str]:
    role = _field(line, "role", str, prefix)
    if role != _BUYER and role not in _SELLERS:
        raise ValueError(f"{prefix}role: found {role!r}, not one of Seller, Dealer, Buyer")
    return role in _SELLERS, " ".join(_field(line, "text", str, prefix).split())


def _field(record: Any, name: str, kind: Any, prefix: str = "") -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'record'}: found {record!r}, not an object")
    value = record.get(name)
    is_wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if is_wrong:
        raise ValueError(f"{prefix}{name}: found {value!r}; fields are {', '.join(record)}")
    return value
