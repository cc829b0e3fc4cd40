"""Parallel coordinates: where a trial crosses each axis."""

import pytest

from lmrl_ray.report.coordinates import Axis, draw_coordinates, figure_of


def test_a_linear_axis_is_crossed_in_proportion():
    axis = Axis("tau", [0.7, 0.8, 0.9], "linear", (0.7, 0.9))
    assert axis.positions() == pytest.approx([0.0, 0.5, 1.0])
    assert axis.ticks() == [(0.0, "0.7"), (pytest.approx(0.5), "0.8"), (1.0, "0.9")]


def test_a_logarithmic_axis_gives_each_decade_the_same_room():
    axis = Axis("lr", [1e-4, 1e-3, 1e-2], "log", (1e-4, 1e-2))
    assert axis.positions() == pytest.approx([0.0, 0.5, 1.0])
    assert [label for _, label in axis.ticks()] == ["0.0001", "0.001", "0.01"]


def test_a_choice_is_a_tick_of_its_own_in_the_order_of_the_file():
    axis = Axis("keep", ["b", "a", "b"], "choice", ("a", "b", "c"))
    assert axis.positions() == pytest.approx([0.5, 0.0, 0.5])
    assert axis.ticks() == [(0.0, "a"), (0.5, "b"), (1.0, "c")]


def test_an_axis_without_a_domain_reaches_as_far_as_its_values():
    assert Axis("score", [-4.0, -1.0, -2.5], "linear").positions() == pytest.approx([0.0, 1.0, 0.5])
    assert Axis("score", [3.0, 3.0], "linear").positions() == pytest.approx([0.5, 0.5])
    assert Axis("score", [3.0], "linear").ticks() == [(0.5, "3")]


AXES = [
    Axis("lr", [1e-4, 1e-2], "log", (1e-4, 1e-2)),
    Axis("keep", ["best", "successes"], "choice", ("best", "successes")),
    Axis("score", [1.0, 2.0], "linear"),
]


@pytest.mark.parametrize(("mode", "best"), [("max", [1, 1, 1]), ("min", [0, 0, 0])])
def test_each_trial_is_a_line_and_the_best_one_lies_on_top(mode, best):
    (plot,) = figure_of(AXES, mode).axes
    drawn = [list(line.get_ydata()) for line in plot.lines[:2]]
    assert sorted(drawn) == [[0, 0, 0], [1, 1, 1]]
    assert drawn[-1] == best
    assert [t.get_text() for t in plot.get_xticklabels()] == ["lr (log)", "keep", "score"]


def test_the_picture_is_a_png(tmp_path):
    assert draw_coordinates(AXES, tmp_path / "coordinates.png").read_bytes().startswith(b"\x89PNG")
