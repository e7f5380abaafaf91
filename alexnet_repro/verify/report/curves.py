"""Loss and accuracy over the images that were seen."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import EngFormatter
from numpy.typing import ArrayLike

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.drawing import INK, Drawing, Named, drawn
from alexnet_repro.verify.report.panels import MARKED, MIN_OF_BAND, Floats, Panel, floats, stacked
from alexnet_repro.verify.report.read import numbers

SMOOTH = 40  # windows of the running mean, side by side, in a whole curve
ROOM = 90  # points of print, for the markers of all measurements together: apart, they show the line between them


def learning(findings: Sequence[Finding]) -> list[Drawing]:
    """Return the curves of checks that learned and kept their losses (`alexnet_repro.verify.checks.learning`)."""
    curves = [curve for each in findings if each.check == "learning" and (curve := _kept(each))]
    return drawn(_learning(*curve, ()) for curve in curves)


def _kept(finding: Finding) -> tuple[str, Floats, Floats, Floats] | None:
    """Return title, images, losses and accuracies of a finding; None where it holds no losses."""
    data = finding.data if isinstance(finding.data, dict) else {}
    losses, accuracies = numbers(data.get("losses")), numbers(data.get("accuracies"))
    batch = next(iter(numbers([data.get("batch")])), 0.0)
    if not losses or not 0 < batch < math.inf:
        return None
    images = floats(batch * np.arange(1, len(losses) + 1))
    told = accuracies if len(accuracies) == len(losses) else []
    return f"{finding.device}, {finding.precision}", images, floats(losses), floats(told)


def learning_curve(
    title: str,
    images: ArrayLike,
    losses: ArrayLike,
    accuracies: ArrayLike = (),
    points: Sequence[tuple[float, float]] = (),
) -> Drawing:
    """Return loss and accuracy over the images seen; of many updates a running mean, and the band most lie in.

    Args:
        title: what was trained.
        images: seen up to and with each update, `(updates,)`, rising.
        losses: of each update, `(updates,)`; NaN leaves a gap.
        accuracies: of each update from 0 to 1, `(updates,)`; none: there is no such panel, unless there are points.
        points: images seen, and the accuracy on the test images after them.

    Raises:
        ValueError: there is no update, or arrays aren't of equal length.
    """
    x, y, shares = map(floats, (images, losses, accuracies))
    if not len(x) or len(y) != len(x) or len(shares) not in (0, len(x)):
        raise ValueError(f"{len(x)} updates can't have {len(y)} losses and {len(shares)} accuracies: one each, or none")
    return drawn(_learning(*each, points) for each in [(title, x, y, shares)])[0]


def _learning(
    title: str, images: Floats, losses: Floats, accuracies: Floats, points: Sequence[tuple[float, float]]
) -> Named:
    panels = [Panel(f"{title}: loss", images, losses, 1.3)]
    if len(accuracies) or points:
        shares = accuracies if len(accuracies) else np.full(len(images), math.nan)
        panels.append(Panel("accuracy" + ("; ◆ on test images" if points else ""), images, shares, 1.3))
    many = len(images) > MARKED
    window = max(MIN_OF_BAND, len(images) // SMOOTH)
    notes = [f"line: mean of {window} updates; band: the middle 80 %"] if many else []
    figure, axes = stacked(panels, "images seen", notes, window if many else 0)
    axes[0].set_ylim(bottom=0)
    for each in axes[1:]:
        each.set_ylim(0, 1.05)
    if points:
        axes[1].plot(*zip(*points, strict=True), "D", color=INK, markersize=max(2.0, min(7.0, ROOM / len(points))))
        last = points[-1]
        axes[1].annotate(f"{last[1]:.4f}", last, (0, -10), textcoords="offset points", ha="right", va="top")
    axes[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    axes[-1].locator_params(axis="x", nbins=5)
    says = f"Loss and accuracy of {title} over {images[-1]:,.0f} images, {len(images)} updates"
    return f"learning-{title}", says, figure
