"""Timings and findings to draw, and drawings as tests read them."""

import re
from xml.etree import ElementTree as ET

from alexnet_repro.verify.benchmark.timing import Calibration, Timing
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import curves, plots

PRECISIONS = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")
RATES = Calibration("gpu:0", {"float32": 5e13, "tf32": 4e14}, 3e12)
GPU = {"seconds": (0.1, 0.9, 1.7), "gpu_mhz": (1755, 1500, 1400), "temperature": (60, 70, None)}
SVG = "{http://www.w3.org/2000/svg}"
LINE = r'd="([^"]*)"[^>]*?style="fill: none; stroke: #0b5cad; stroke-width: 1.5'


def case(title, batch=128, precision="float32", device="gpu:0", rounds=(1.0, 1.1, 1.2), **fields):
    """Return a case of as many images as its batch has."""
    name = f"{title}[device={device}-batch={batch}-precision={precision}]"
    return Timing(name, device, precision, rounds, **{"images": batch, **fields})


def work(batch=128, precision="float32", title="forward", device="gpu:0", **fields):
    """Return a case of 1 TFLOP and 10 GB in 0.1 s: 100 FLOP per byte, 10 TFLOP/s."""
    return case(title, batch, precision, device, (0.1,), **{"flop": 1e12, "bytes": 1e10, **fields})


def speed(status="PASS", number=1.1, bound=1.03, device="gpu:0", **data):
    """Return what the gate found of a case."""
    name, data = f"forward[device={device}-batch=1-precision=tf32]", {"low": 1.05, "high": 1.15, **data}
    return Finding("speed", status, "a case", device=device, number=number, bound=bound, data=data, case=name)


def learned(**data):
    """Return what the check of learning found."""
    return Finding("learning", "PASS", "ok", device="gpu:1", precision="tf32", number=0.75, bound=0.4, data=data)


def steps(device="gpu:0", rounds=(0.5, 0.5, 0.5, 0.5), **samples):
    """Return the drawing of a case with such samples."""
    name = f"train_step[device={device}-batch=32]"
    (drawing,) = plots.step_times([Timing(name, device, "float32", rounds, samples=samples)])
    return drawing


def every_kind():
    """Return every kind of drawing."""
    cases = [case(title, b, p) for title in ("forward", "train_step") for b in (1, 128) for p in PRECISIONS]
    return [
        *plots.throughput(cases),
        *plots.step_times(cases),
        *plots.against_reference([speed()]),
        *plots.rooflines([work()], [RATES]),
        curves.learning_curve("quick", range(100), [1.0] * 100, [0.5] * 100, [(50, 0.8)]),
    ]


def texts(drawing):
    """Return the texts in a drawing, in their order, as a reader or a search finds them."""
    return ["".join(each.itertext()) for each in ET.fromstring(drawing.svg).iter(f"{SVG}text")]


def lines(drawing):
    """Return the numbers of points of the blue lines: the series that are drawn."""
    return [len(re.findall(r"[ML] ", path)) for path in re.findall(LINE, drawing.svg)]


def places(path):
    """Return the places of a path's points."""
    return [tuple(map(float, each)) for each in re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path)]
