"""Where a train step's time on a GPU goes, from a profile that is made up, and as it was kept."""

import json
from types import SimpleNamespace

import pytest

from benchmarks.tools import kernel_times as script
from tests.helpers.paths import ROOT

KEPT = ROOT / "benchmarks/references/profile-h100.json"


def line(name, start, *events):
    """Return a line that starts at `start` ns; each event has a kernel's number, and its offset and length in µs."""
    made = [
        SimpleNamespace(metadata_id=number, offset_ps=offset * 10**6, duration_ps=taken * 10**6)
        for number, offset, taken in events
    ]
    return SimpleNamespace(name=name, timestamp_ns=start, events=made)


def plane(name, *of_lines):
    """Return a plane with three kernels' names."""
    names = {number: SimpleNamespace(name=each) for number, each in ((1, "convolve"), (2, "add"), (3, "MemcpyD2D"))}
    return SimpleNamespace(name=name, lines=of_lines, event_metadata=names)


def test_kernels_of_overlapping_streams():
    """µs and calls are per step, largest first; busy is when any stream of the GPU ran, a wait when none did."""
    space = SimpleNamespace(
        planes=[
            plane("/host:CPU", line("stream", 0, (2, 0, 1000))),
            plane(
                "/device:GPU:0",
                line("XLA Ops", 0, (2, 0, 1000)),
                # From 5 µs on: 5 to 15, 35 to 55.
                line("Stream #7(Compute)", 5000, (1, 0, 10), (1, 30, 20)),
                # 10 to 20, 11 to 13 within it, 60 to 64.
                line("Stream #8(MemcpyD2D)", 0, (3, 10, 10), (2, 11, 2), (3, 60, 4)),
            ),
        ]
    )
    found = script.summed(space, 2)
    assert found.busy == pytest.approx(19.5)  # 5 to 20, 35 to 55 and 60 to 64
    assert found.kernels == [(15.0, 1.0, "convolve"), (7.0, 1.0, "MemcpyD2D"), (1.0, 0.5, "add")]
    assert found.waits == [(7.5, 0.5, "convolve"), (2.5, 0.5, "MemcpyD2D")]  # 20 to 35, 55 to 60


def test_nothing_ran():
    """A profile without a GPU's plane has no kernels."""
    assert script.summed(SimpleNamespace(planes=[plane("/host:CPU")]), 1) == (0.0, [], [])


def test_table(monkeypatch):
    """The largest kernels by name, cut; the others in one line; then the whole step's times."""
    monkeypatch.setattr(script, "LARGEST", 2)
    monkeypatch.setattr(script, "WIDTH", 8)
    found = {
        "step": {"batch": 512, "precision": "tf32", "xla": "off"},
        "first_call_seconds": 23.25,
        "seconds": [0.002, 0.0025, 0.009],
        "busy_microseconds": 2000.0,
        "calls": 6.0,
        "kernels": [(1500.0, 3.0, "convolution"), (250.0, 1.0, "add"), (150.0, 0.5, "copy"), (100.0, 1.5, "fill")],
        "waits": [(400.0, 1.0, "convolution"), (90.0, 2.5, "add")],
    }
    assert script.lines(found) == [
        "batch=512 precision=tf32 xla=off",
        "µs per step  calls per step   share  kernel",
        "    1,500.0            3.00   75.0%  convolut",
        "      250.0            1.00   12.5%  add",
        "      250.0            2.00   12.5%  2 others",
        "step: 2,500 µs, median of 3 rounds",
        "GPU busy: 2,000 µs, 80.0% of the step; shares are of it",
        "idle before convolut: 400 µs, 1.00 times per step",
        "idle before add: 90 µs, 2.50 times per step",
        "kernels, copies and fills: 6.0 per step",
        "first call: 23.2 s, tracing and compiling included",
    ]


def test_no_gpu(monkeypatch, capsys):
    """Without a GPU one line says so before any work, and the exit status is 2."""
    monkeypatch.setattr(script, "enable_memory_growth", list)
    monkeypatch.delattr(script, "profile")
    assert script.main(["--batch=8"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith("no GPU for TensorFlow")


def test_kept_profiles():
    """The profiles on file are in this tool's form: those of an H100, with 25 kernels each."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert [script.lines(each)[0] for each in kept["profiles"]] == [
        "batch=512 precision=mixed_bfloat16 xla=on deterministic=False updates_per_call=32",
        "batch=512 precision=mixed_bfloat16 xla=off deterministic=False training=False updates_a_call=1",
        "batch=32 precision=float32 xla=off deterministic=True training=True updates_a_call=32",
    ]
    assert [len(each["kernels"]) for each in kept["profiles"]] == [25, 25, 25]
    assert script.lines(kept["profiles"][0])[-9:] == [
        "step: 7,228 µs, median of 5 rounds",
        "GPU busy: 6,407 µs, 88.6% of the step; shares are of it",
        "idle before loop_add_fusion_3: 460 µs, 1.00 times per step",
        "idle before main_kernel: 297 µs, 1.03 times per step",
        "idle before MemcpyD2D: 134 µs, 8.00 times per step",
        "idle before MemcpyD2H: 82 µs, 1.03 times per step",
        "idle before loop_convert_multiply_fusion_1: 26 µs, 2.00 times per step",
        "kernels, copies and fills: 135.3 per step",
        "first call: 30.4 s, tracing and compiling included",
    ]
