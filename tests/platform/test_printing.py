"""Tables on stdout: nothing is cut off, wherever they go."""

from rich.table import Table

from lmrl_ray.report.printing import print_table

WORDS = [f"column-{i}-of-a-wide-table" for i in range(12)]


def wide():
    table = Table()
    for word in WORDS:
        table.add_column(word)
    table.add_row(*(word.upper() for word in WORDS))
    return table


def test_a_table_that_is_piped_is_as_wide_as_it_is(capsys):
    print_table(wide())
    printed = capsys.readouterr().out
    assert all(word in printed and word.upper() in printed for word in WORDS)


def test_a_table_on_a_narrow_terminal_goes_on_below(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    print_table(wide())
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert printed.count("T") == 12 * len([c for c in WORDS[0] if c == "t"])
