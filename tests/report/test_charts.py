"""Coordinates of the charts, recomputed by hand."""

from __future__ import annotations

import pytest

from catalog_enrichment.report.charts import (
    HEIGHT,
    MOST_POINTS,
    WIDTH,
    Axes,
    Line,
    Mark,
    certified_point,
    columns,
    kept_epoch,
    line_chart,
    thinned,
)

AXES = Axes(x_name="epoch", y_name="loss", x=(1, 3), y=(0, 2))


def test_a_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    chart = line_chart("t", AXES, [Line(name="a", x=[1, 2, 3], y=[0, 1, 2])])
    assert chart["lines"][0]["path"] == f"0.0,{HEIGHT} {WIDTH / 2},{HEIGHT / 2} {WIDTH},0.0"


def test_values_outside_of_the_axes_are_drawn_at_their_ends_and_nan_is_left_out() -> None:
    chart = line_chart("t", AXES, [Line(name="a", x=[0, 2, 9], y=[-1, float("nan"), 9])], level=1)
    assert chart["lines"][0]["path"] == f"0.0,{HEIGHT} {WIDTH},0.0"
    assert chart["level"]["y"] == HEIGHT / 2


def test_a_single_point_is_drawn_as_a_dot_and_a_line_without_dots_has_none() -> None:
    chart = line_chart(
        "t", AXES, [Line(name="a", x=[2], y=[1]), Line(name="b", x=[1, 2], y=[1, 1])], [Mark(name="m", x=3, y=2)]
    )
    assert [len(drawn["points"]) for drawn in chart["lines"]] == [1, 0]
    assert chart["marks"] == [{"name": "m", "at": (WIDTH, 0.0)}]


def test_an_axis_of_one_value_is_drawn_in_the_middle() -> None:
    axes = Axes(x_name="epoch", y_name="loss", x=(1, 1))
    assert line_chart("t", axes, [Line(name="a", x=[1], y=[0])])["lines"][0]["path"] == f"{WIDTH / 2},{HEIGHT}"


def test_the_tallest_column_has_the_full_height() -> None:
    low, high = columns([0.0, 0.5, 1.0], [1, 4])
    assert (low["height"], low["y"]) == (HEIGHT / 4, HEIGHT * 3 / 4)
    assert (high["height"], high["y"], high["x"]) == (HEIGHT, 0, WIDTH / 2 + 0.5)
    assert columns([0.0, 1.0], [0])[0]["height"] == 0


def test_thinning_keeps_the_first_and_the_last_point() -> None:
    points = [(float(n), 0.0) for n in range(1000)]
    few = thinned(points)
    assert (len(few), few[0], few[-1]) == (MOST_POINTS, points[0], points[-1])
    assert thinned(points[:MOST_POINTS]) == points[:MOST_POINTS]


@pytest.mark.parametrize(
    ("threshold", "point"), [(0.95, (0.1, 1.0)), (0.9, (0.3, 0.98)), (0.05, (0.7, 0.6)), (1.0, None)]
)
def test_the_certified_point_is_the_last_that_is_accepted(threshold: float, point: tuple[float, float] | None) -> None:
    curve = {"thresholds": [0.99, 0.9, 0.1], "recall": [0.1, 0.3, 0.7], "precision": [1.0, 0.98, 0.6]}
    assert certified_point(curve, threshold) == point


def test_the_kept_epoch_is_the_first_with_the_lowest_finite_loss() -> None:
    rows = [{"epoch": n, "validation_loss": loss} for n, loss in enumerate([float("nan"), 2.0, 1.0, 1.0])]
    assert kept_epoch(rows) == rows[2]
    assert kept_epoch([]) is None
