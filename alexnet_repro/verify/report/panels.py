"""Panels on each other that share what is below them: a line each, by its points or by a running mean with a band."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from alexnet_repro.verify.report.drawing import BLUE, INK, LINE, NARROW, PALE, WIDTH, wrapped

Floats = NDArray[np.float64]

MARKED = 60  # points of a line, at the most, that have a marker each
POINTS = 200  # of a line; more are shown by what their blocks have in common
LEFT, RIGHT, BOTTOM = 0.6, 0.2, 0.5  # inches around the panels, for numbers
LABEL = 1.5 * LINE  # inches above each panel
BAND = (0.1, 0.9)  # quantiles
MIN_OF_BAND = 10  # points that have quantiles in common


@dataclass(frozen=True)
class Panel:
    """One of the axes in a figure, which stand on each other and share what is below."""

    label: str
    x: Floats
    y: Floats
    height: float
    """Inches."""
    least: float = 0.0
    """How far from the middle the axis reaches, at the least: noise is to look like noise."""
    crossed: NDArray[np.bool_] | None = None
    """Points to be marked by crosses."""


def stacked(panels: Sequence[Panel], below: str, notes: Sequence[str], window: int = 0) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels on each other, each under its label.

    Args:
        panels: from the top.
        below: the label of what they share.
        notes: under it.
        window: of the running mean; 0: the points themselves.
    """
    lines = [line for note in notes for line in wrapped(note)]
    width = max(WIDTH, max(len(panel.label) for panel in panels) * NARROW)
    height = sum(panel.height + LABEL for panel in panels) + BOTTOM + len(lines) * LINE
    figure, edge = Figure(figsize=(width, height)), height
    made: list[Axes] = []
    for panel in panels:
        figure.text(0, (edge - LABEL + 0.6 * LINE) / height, panel.label, va="center")
        edge -= panel.height + LABEL
        place = (LEFT / width, edge / height, 1 - (LEFT + RIGHT) / width, panel.height / height)
        axes = figure.add_axes(place, sharex=made[0] if made else None)
        axes.tick_params(axis="x", labelbottom=panel is panels[-1])
        _line(axes, panel, window)
        made.append(axes)
    made[-1].set_xlabel(below, labelpad=1)
    for number, line in enumerate(lines, 1):
        figure.text(0, (len(lines) - number + 0.5) * LINE / height, line, va="center")
    return figure, made


def _line(axes: Axes, panel: Panel, window: int) -> None:
    x, y = panel.x, panel.y
    if window:
        parts = np.array_split(np.arange(len(x)), max(1, min(POINTS, len(x) // MIN_OF_BAND)))
        low, high = np.array([_quantiles(y[part]) for part in parts]).T
        axes.fill_between([x[part].mean() for part in parts], low, high, color=PALE, linewidth=0)
        chosen = np.linspace(0, len(x) - 1, min(POINTS, len(x))).astype(int)
        x, y = x[chosen], _running_mean(y, window)[chosen]
    elif np.isfinite(y).all() and panel.least:
        room = max(panel.least, 1.15 * float(np.abs(y - middle(y)).max()))
        axes.set_ylim(middle(y) - room, middle(y) + room)
    axes.plot(x, y, color=BLUE, linewidth=1.5, marker="o" if len(x) <= MARKED and not window else "", markersize=5)
    if panel.crossed is not None and panel.crossed.any():
        axes.plot(x[panel.crossed], y[panel.crossed], "x", color=INK, markersize=8, markeredgewidth=1.5)
    axes.locator_params(axis="y", nbins=3)


def _running_mean(values: Floats, window: int) -> Floats:
    """Return the mean of a window around each value, which is smaller at both ends; what is NaN doesn't count."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    places = np.arange(len(values))
    first, last = np.maximum(places - window // 2, 0), np.minimum(places + window // 2 + 1, len(values))
    with np.errstate(invalid="ignore"):
        means: Floats = (sums[last] - sums[first]) / (counts[last] - counts[first])
    return means


def _quantiles(values: Floats) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, BAND) if len(known) else (math.nan, math.nan)
    return float(low), float(high)


def middle(values: Floats) -> float:
    """Return the median of what is finite; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def floats(values: ArrayLike | Sequence[float | None]) -> Floats:
    """Return float64; None becomes NaN."""
    return np.asarray(values, np.float64)
