"""Two sides in turns: the table compares the best configuration of each, on one device."""

import json
import shlex
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from alexnet_repro import synthetic_fashion
from benchmarks.peers import in_turns, memory, timed
from tests.helpers.paths import ROOT


def case(side, configuration, *seconds, device="a GPU", **more):
    """Return a case of 100 images as the sides print it."""
    common = {"side": side, "what": "train step", "precision": "mixed_bfloat16", "batch": 100, "device": device}
    timed = {"seconds": list(seconds), "peak memory, bytes": 2_000_000} if seconds else {}
    return {**common, "configuration": configuration, **timed, **more}


def test_table_compares_the_best_configurations():
    """All turns' rounds count; a batch that doesn't fit is listed once; the ratio is of images/s."""
    found = [
        case("ours", "XLA on", 1.0, 1.25),
        case("ours", "XLA off", 2.0),
        case("theirs", "eager", 4.0),
        case("theirs", "compiled", failed="doesn't fit into the device's memory"),
        case("ours", "XLA on", 1.0),
        case("theirs", "eager", 2.0, 2.0),
        case("theirs", "compiled", failed="doesn't fit into the device's memory"),
    ]
    assert in_turns.table(found).splitlines() == [
        "on a GPU; images/s: median of all rounds (least to most)",
        "train step, mixed_bfloat16, batch of 100",
        "  ours: 100.0 (80.0 to 100.0) by XLA on; 2 turns, 2 MB",
        "  theirs: none by compiled: doesn't fit into the device's memory",
        "  theirs: 50.0 (25.0 to 50.0) by eager; 2 turns, 2 MB",
        "  ours over theirs: 2.000",
    ]


def test_no_ratio_across_devices():
    """A side that fell back to the CPU is no peer."""
    found = [case("ours", "XLA on", 1.0), case("theirs", "eager", 1.0, device="cpu")]
    with pytest.raises(ValueError, match="can't be compared: they ran on a GPU and cpu"):
        in_turns.table(found)


def test_processes_take_turns(capfd):
    """Each side runs once per turn; lines that aren't cases are left out, and an exit status is reported."""

    def command(what, then=""):
        program = f"import json; print('a warning'); print(json.dumps({{'what': {what!r}}})); {then}"
        return shlex.join([sys.executable, "-c", program])

    sides = {"ours": command("a"), "theirs": command("b", "raise SystemExit(3)")}
    assert [json.dumps(each) for each in in_turns.take_turns(sides, 2, 60)] == [
        '{"side": "ours", "turn": 1, "what": "a"}',
        '{"side": "theirs", "turn": 1, "what": "b"}',
        '{"side": "ours", "turn": 2, "what": "a"}',
        '{"side": "theirs", "turn": 2, "what": "b"}',
    ]
    assert capfd.readouterr().err.count("exit status 3: ") == 2


def test_side_that_hangs_is_ended(monkeypatch, capfd):
    """It is killed at its time limit; what it had printed counts."""
    timer = Mock()
    monkeypatch.setattr(in_turns.threading, "Timer", timer)
    program = "import json, time; print(json.dumps({'what': 'a'}), flush=True); time.sleep(60)"
    cases = in_turns.run_side(shlex.join([sys.executable, "-c", program]), 300)
    assert next(cases) == {"what": "a"}
    limit, end = timer.call_args.args
    end()  # as at the limit
    assert (limit, list(cases)) == (300, [])
    assert "exit status -9" in capfd.readouterr().err


def test_steps_are_pipelined(monkeypatch):
    """Rounds of at least as many steps as requested, waited for once; the seconds are per step."""
    monkeypatch.setattr(timed, "WARM_UP_SECONDS", 0)
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(timed, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    done = []
    seconds = timed.step_seconds(
        lambda: done.append("call"), lambda _: done.append("wait"), timed.Rows(warm_up=4, rounds=2, steps=5), updates=2
    )
    assert seconds == [2.0, 2.0]  # 12 s for three calls of two steps
    assert done == ["call", "wait"] * 2 + ["call", "call", "call", "wait"] * 2


def test_peers_need_nothing_of_this_package():
    """The sides that run in an environment of their own import neither this package nor TensorFlow nor Keras."""
    modules = ("benchmarks.peers.timed", "benchmarks.peers.in_turns", "benchmarks.peers.memory")
    program = f"""
import importlib, sys
for each in {modules}:
    importlib.import_module(each)
print(sorted(sys.modules.keys() & {{"alexnet_repro", "keras", "numpy", "tensorflow", "torch"}}))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("peer", ["document_loop", "memory"])
def test_help(peer):
    """`--help` is how to use it, and neither runs anything nor imports TensorFlow."""
    command = [sys.executable, "-X", "importtime", "-m", f"benchmarks.peers.{peer}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ")
    assert " tensorflow" not in done.stderr


@pytest.mark.parametrize(
    ("gpus", "device", "found"),
    [([], "cpu:0", (7, 3)), (["gpu:0", "gpu:1"], "gpu:0", (5, 4))],
    ids=["gpus=0", "gpus=2"],
)
def test_memory_is_of_the_device_that_trains(monkeypatch, gpus, device, found):
    """On a GPU a training's memory is the GPU's, not the host's beside it."""
    peaks, module = {"cpu:0": 7, "gpu:0": 5}, "alexnet_repro.backend.memory"
    monkeypatch.setattr(f"{module}.enable_memory_growth", lambda: gpus)
    monkeypatch.setattr(f"{module}.peak_memory", peaks.get)
    monkeypatch.setattr(memory, "tensors_peak", {"cpu:0": 3, "gpu:0": 4}.get)
    monkeypatch.setattr("alexnet_repro.build_alexnet", lambda: None)
    monkeypatch.setattr("alexnet_repro.train", lambda *_, **__: None)
    monkeypatch.setattr("alexnet_repro.synthetic_fashion", lambda: synthetic_fashion(1, 1))
    assert memory.peak("training", "float32", 1) == (device, *found)
