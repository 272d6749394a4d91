"""Small charts as SVG coordinates; charts.html.j2 draws them in the page's colours, light or dark."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

WIDTH, HEIGHT = 320.0, 180.0
"""Size of the plotted area in SVG units."""

STILL_FALLING = 0.01
"""Share by which the validation loss must have fallen in the last epoch for more epochs to be advised."""

MOST_POINTS = 150
"""Points of a line that are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    name: str
    x: Sequence[float]
    y: Sequence[float]
    css: str = ""
    """Class of the line's colour."""
    dashed: bool = False
    dots: bool = False
    """Also draw the points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A ring on a line, with its meaning."""

    name: str
    x: float
    y: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    x_name: str
    y_name: str
    x: tuple[float, float] = (0.0, 1.0)
    """Lowest and highest value of the axis."""
    y: tuple[float, float] = (0.0, 1.0)


def line_chart(
    title: str, axes: Axes, lines: Sequence[Line], marks: Sequence[Mark] = (), level: float | None = None
) -> dict[str, Any]:
    """Return the variables of the macro `line_chart`. ``level``: where a horizontal line is drawn.

    Values outside of the axes are drawn at their ends, and points that are not finite are left out.
    """

    def place(x: float, y: float) -> tuple[float, float]:
        return round(WIDTH * _share(x, axes.x), 1), round(HEIGHT * (1 - _share(y, axes.y)), 1)

    drawn = []
    for line in lines:
        points = [place(x, y) for x, y in zip(line.x, line.y, strict=True) if isfinite(x) and isfinite(y)]
        points = thinned(points)
        path = " ".join(f"{x},{y}" for x, y in points)
        drawn.append({"line": line, "path": path, "points": points if line.dots or len(points) == 1 else []})
    return {
        "title": title,
        "axes": axes,
        "lines": drawn,
        "marks": [{"name": mark.name, "at": place(mark.x, mark.y)} for mark in marks],
        "level": None if level is None else {"y": place(axes.x[0], level)[1], "name": f"{level:.0%}"},
        "width": WIDTH,
        "height": HEIGHT,
    }


def columns(edges: Sequence[float], counts: Sequence[float], height: float = HEIGHT) -> list[dict[str, Any]]:
    """Return the bars of a histogram over [0, 1] in SVG units; the tallest has the full height.

    ``edges``: 1 more than ``counts``.
    """
    tallest = max(counts, default=0) or 1
    return [
        {
            "x": WIDTH * low + 0.5,
            "width": WIDTH * (high - low) - 1,
            "y": height * (1 - count / tallest),
            "height": height * count / tallest,
            "tooltip": f"{low:.2f} to {high:.2f}: {count:,}",
        }
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most :data:`MOST_POINTS` of the points, evenly chosen, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(number * step)] for number in range(MOST_POINTS)]


def certified_point(curve: Mapping[str, Sequence[float]], threshold: float) -> tuple[float, float] | None:
    """Return (recall, precision) of a precision-recall curve at ``threshold``; None if it accepts nothing there.

    ``curve``: `thresholds` (descending), `precision` and `recall`.
    """
    accepted = bisect_right([-score for score in curve["thresholds"]], -threshold)
    return (curve["recall"][accepted - 1], curve["precision"][accepted - 1]) if accepted else None


def kept_epoch(history: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the row of the epoch whose weights are kept: the first with the lowest validation loss; None without."""
    finite = [row for row in history if isfinite(row["validation_loss"])]
    return min(finite, key=lambda row: row["validation_loss"], default=None)


def last_fall(history: Sequence[Mapping[str, Any]]) -> str:
    """Return how the validation loss fell in the last epoch, which is kept; "" where it hardly fell or rose."""
    if len(history) < 2 or kept_epoch(history) is not history[-1]:
        return ""
    before, after = (row["validation_loss"] for row in history[-2:])
    return f"{before:.4f} to {after:.4f}" if before - after >= STILL_FALLING * abs(before) else ""


def _share(value: float, ends: tuple[float, float]) -> float:
    low, high = ends
    return min(max((value - low) / (high - low), 0.0), 1.0) if high > low else 0.5
