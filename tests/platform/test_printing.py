"""Tables on stdout: nothing is cut off, wherever they go."""

from dataclasses import replace

from rich.table import Table
from support import episode_of

from algos.play import PlayedEpisode
from envs.registry import get_task
from lmrl_ray.evaluate import score
from lmrl_ray.report.printing import print_table
from lmrl_ray.report.tables import print_scores

WORDS = [f"column-{i}-of-a-wide-table" for i in range(12)]


def wide():
    table = Table()
    for word in WORDS:
        table.add_column(word)
    table.add_row(*(word.upper() for word in WORDS))
    return table


def test_a_policy_that_is_not_understood_is_said_to_be_beneath_its_score(capsys):
    parts = [("?\n", False), ("x\n", True), ("no\n", False), ("ant\n", True), ("yes\n", False)]
    episode = episode_of(*parts, task="maze-fo")
    segments = tuple(replace(s, valid=s.text != "x\n") for s in episode.segments)
    for cut, said in ((1, "me: 50% of its actions were not understood, 50% were cut at 8 tokens"), (0, "0%")):
        played = PlayedEpisode(0, replace(episode, segments=segments), None, cut)
        print_scores(get_task("maze-fo"), [score(get_task("maze-fo"), "me", [played])])
        assert said in " ".join(capsys.readouterr().out.split())
    fine = PlayedEpisode(0, episode, None, 0)
    print_scores(get_task("maze-fo"), [score(get_task("maze-fo"), "me", [fine])])
    assert "understood" not in capsys.readouterr().out


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
