"""The time of each round, and the clock and temperature that it was taken at."""

from collections.abc import Sequence

import numpy as np

from alexnet_repro.verify.doctor.gpus import describe_throttling
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.drawing import INK, Drawing, Named, drawn
from alexnet_repro.verify.report.panels import POINTS, Panel, floats, middle, stacked
from alexnet_repro.verify.report.read import Case


def step_times(timings: Sequence[Case]) -> list[Drawing]:
    """Return, for each case of `train_step`, the seconds of round after round, above clock and temperature."""
    cases = [case for case in timings if wording.parameters(case.case)[0] == "train_step"]
    alone = wording.one_device([case.case for case in cases])
    return drawn(_series(case, wording.label(case.case, ["device"] if alone else [])) for case in cases)


def _series(case: Case, text: str) -> Named:
    unit, size = ("s", 1.0) if case.median >= 1 else ("ms", 1e-3)
    rounds = np.asarray(case.rounds)
    parts = np.array_split(rounds, min(POINTS, len(rounds)))
    times = np.array([np.median(part) for part in parts]) / size
    beside = _telemetry(case) if np.isfinite(rounds).all() and rounds.sum() > 0 else []
    medians = f"by medians of up to {len(parts[0])}" if len(parts) < len(rounds) else ""
    if beside:
        starts, below = np.cumsum(rounds) - rounds, "seconds"
        x = np.array([part.mean() for part in np.array_split(starts, len(parts))])
        limited = describe_throttling(_all_bits(case))
        notes = [f"× held down by {limited}" if limited else "", f"rounds, {medians}" if medians else ""]
    else:
        x, below = np.linspace(1, len(rounds), len(times)), ", ".join(filter(None, ("round", medians)))
        notes = ["clock and temperature: not told"]
    title = f"{text.removeprefix('train_step, ')}: {unit}"
    figure, axes = stacked([Panel(title, x, times, 1.0, 0.1 * case.median / size), *beside], below, notes)
    if np.isfinite(times).all():
        axes[0].axhline(case.median / size, color=INK, linewidth=0.8, dashes=(4, 3))
    axes[-1].locator_params(axis="x", nbins=5, integer=not beside)
    says = f"Time of {len(rounds)} rounds of {text}, median {wording.seconds(case.median)}"
    told = "".join(f"; {panel.label} below it" for panel in beside) or "; neither clock nor temperature is told"
    return f"steps-{case.case}", says + told, figure


def _telemetry(case: Case) -> list[Panel]:
    """Return the panels of clock and temperature, as far as they were told beside a case."""
    clock, whose = ("cpu_mhz", "processors") if case.device.startswith("cpu") else ("gpu_mhz", "GPU")
    seconds = floats(case.samples.get("seconds", ()))
    panels = []
    if told := case.samples.get(clock):
        bits = case.samples.get("clock_limits") or [0] * len(told)
        crossed = np.array([bool(describe_throttling(int(each or 0))) for each in bits])
        ghz = floats(told) / 1e3
        panels.append(Panel(f"clock of the {whose}: GHz", seconds, ghz, 0.65, 0.05 * middle(ghz), crossed))
    if told := case.samples.get("temperature"):
        panels.append(Panel("temperature: °C", seconds, floats(told), 0.65, 2.0))
    return [panel for panel in panels if np.isfinite(panel.y).any()]


def _all_bits(case: Case) -> int:
    bits = 0
    for each in case.samples.get("clock_limits", ()):
        bits |= int(each or 0)
    return bits
