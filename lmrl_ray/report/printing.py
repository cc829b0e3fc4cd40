"""Tables on stdout, nothing cut off."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_ENDLESS = 100_000


def print_table(table: Table) -> None:
    """As wide as it is into a file or a pipe; on a terminal that is narrower, cells go on below."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=Console(width=_ENDLESS).measure(table).maximum)
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)
