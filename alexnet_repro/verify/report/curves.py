"""Learning curves: of the check that learns one batch, and of whole trainings."""

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.drawing import (
    INK,
    MAX_MARKED,
    MAX_POINTS,
    Drawing,
    Floats,
    Named,
    as_drawings,
    draw_line,
    new_panels,
    numbers_of,
)

WINDOWS = 40  # of a running mean, end to end, in a curve
Points = Sequence[tuple[float, float]]


@as_drawings
def learning_curves(findings: Sequence[Finding]) -> Iterator[Named]:
    """Return the losses of findings that hold them (`alexnet_repro.verify.checks.learning`), and the accuracy after."""
    for each in findings:
        losses, batch = map(numbers_of, (each.data.get("losses"), [each.data.get("batch")]))
        if each.check == "learning" and len(losses) and len(batch) and 0 < batch[0] < math.inf:
            images = batch[0] * np.arange(1, len(losses) + 1)
            accuracy = f"accuracy after it: {each.number:.2f}" if each.number is not None else ""
            chance = f"chance is below {each.bound:.2f}" if accuracy and each.bound is not None else ""
            yield _curve(f"{each.device}, {each.precision}", images, losses, losses[:0], notes=[accuracy, chance])


def learning_curve(
    title: str, images: ArrayLike, losses: ArrayLike, accuracies: ArrayLike = (), points: Points = ()
) -> Drawing:
    """Return loss and accuracy over the images seen; for many updates, a running mean and the band most lie in.

    Images seen up to and including each update, rising, and losses (NaN leaves a gap) are `(updates,)`; so are
    accuracies, from 0 to 1, or there are none. Points: images seen, and the accuracy on the test images after them.

    Raises:
        ValueError: there is no update, or arrays differ in length.
    """
    x, y, shares = (np.asarray(each, np.float64) for each in (images, losses, accuracies))
    if not len(x) or len(y) != len(x) or len(shares) not in (0, len(x)):
        raise ValueError(f"{len(x)} updates can't have {len(y)} losses and {len(shares)} accuracies: one each, or none")
    return as_drawings(lambda: [_curve(title, x, y, shares, points=points)])()[0]


def _curve(
    title: str, images: Floats, losses: Floats, accuracies: Floats, *, points: Points = (), notes: Sequence[str] = ()
) -> Named:
    from matplotlib.ticker import EngFormatter

    many, window = len(images) > MAX_MARKED, max(10, len(images) // WINDOWS)
    labels = [f"{title}: loss", *(["accuracy; ◆ on test images"] if points else ["accuracy"] * bool(len(accuracies)))]
    below = ["images seen", *[f"line: mean of {window} updates;", "band: the middle 80 %"] * many, *notes]
    figure, axes = new_panels(labels, 1.3, below)
    for panel, values in zip(axes, filter(len, (losses, accuracies)), strict=False):
        if many:
            chosen, means, *band = _smoothed(values, window)
            few = np.linspace(0, len(chosen) - 1, WINDOWS + 1).astype(int)  # the band's own points, one per window
            panel.fill_between(images[chosen[few]], *(each[few] for each in band), color="#b9cfe6", linewidth=0)
            panel.plot(images[chosen], means)
        else:
            draw_line(panel, images, values)
    axes[0].set_ylim(bottom=0)
    for panel in axes[1:]:
        panel.set_ylim(0, 1.05)
    if points:
        size = max(2.0, min(7.0, 90 / len(points)))  # so small that the line stays visible
        axes[1].plot(*zip(*points, strict=True), "D", color=INK, markersize=size)
        last = points[-1]
        axes[1].annotate(f"{last[1]:.4f}", last, (0, -10), textcoords="offset points", ha="right", va="top")
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    drawn = "Loss and accuracy" if len(axes) > 1 else "Loss"
    description = f"{drawn} of {title} over {images[-1]:,.0f} images, {len(images)} updates"
    return f"learning-{title}", "; ".join([description, *filter(None, notes)]), figure


def _smoothed(values: Floats, window: int) -> tuple[NDArray[np.int_], Floats, Floats, Floats]:
    """Return at most `MAX_POINTS` indices, and mean and quantiles of the finite values in the window around each."""
    chosen = np.linspace(0, len(values) - 1, min(MAX_POINTS, len(values))).astype(int)
    finite = np.where(np.isfinite(values), values, math.nan)
    padded = np.pad(finite, (window // 2, (window - 1) // 2), constant_values=math.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, window)[chosen]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # windows without a finite value are gaps
        return chosen, np.nanmean(around, axis=1), *np.nanquantile(around, (0.1, 0.9), axis=1)
