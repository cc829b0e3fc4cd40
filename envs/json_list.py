"""Read a JSON list of any length one element at a time: the published dialogue files are such lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

_CHUNK = 1 << 20
"""Characters read at a time."""
_BETWEEN = re.compile(r"[ \t\r\n,]*")


def read_json_list(file: TextIO, path: str) -> Iterator[tuple[int, Any]]:
    """The elements of a JSON list, each with the line on which it begins."""
    decode = json.JSONDecoder().raw_decode
    line, opening = 1, file.read(1)
    while opening.isspace():
        line, opening = line + (opening == "\n"), file.read(1)
    if opening != "[":
        raise ValueError(f"{path}: line {line}: found {opening!r}; expected a JSON list")
    buffer = ""
    while chunk := file.read(_CHUNK):
        buffer, start = buffer + chunk, 0
        while True:
            begin = _BETWEEN.match(buffer, start).end()  # type: ignore[union-attr]  # may be empty
            line += buffer.count("\n", start, begin)
            start = begin
            try:
                record, end = decode(buffer, start)
            except (json.JSONDecodeError, RecursionError):
                break  # the rest of the record is in the next chunk
            yield line, record
            line += buffer.count("\n", start, end)
            start = end
        buffer = buffer[start:]
    if buffer.strip() != "]":
        raise ValueError(f"{path}: line {line}: expected a JSON list, found {buffer[:40]!r}")
