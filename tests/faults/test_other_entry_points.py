"""Faults of files, memory and time: noticed by the command line, the doctor and the benchmarks."""

import dataclasses
import time
from unittest.mock import Mock

import numpy as np
import pytest
from keras import ops

from alexnet_repro.backend import devices
from alexnet_repro.cli.parser import main
from alexnet_repro.model import Logits
from alexnet_repro.training.train_step import best_train_step
from alexnet_repro.verify.benchmark import timer
from alexnet_repro.verify.benchmark.timing import Timing, gpu_speed_parity, judge
from alexnet_repro.verify.checks import memory
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE, learn, learnable_batch
from alexnet_repro.verify.doctor import device_probe
from tests.faults.catalogue import one_bit_in_memory
from tests.faults.tools import after
from tests.helpers.data_server import ARRAYS, CONTENT, NAMES, fill, idx

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = NAMES
FILES = [
    # what became of which file
    pytest.param((IMAGES, CONTENT[IMAGES][:-7]), id="fault=file-truncated"),
    pytest.param((LABELS, idx(ARRAYS[LABELS][::-1].copy())), id="fault=file-forged"),
    pytest.param((TEST_IMAGES, CONTENT[IMAGES]), id="fault=file-swapped"),
    pytest.param((TEST_LABELS, b""), id="fault=file-empty"),
]
ROUNDS = [0.100, 0.101, 0.099, 0.100, 0.102, 0.100, 0.101, 0.100, 0.099, 0.100, 0.101, 0.100]  # as they come


@pytest.mark.parametrize("bad", FILES)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_bad_file(places, tmp_path, capsys, command, bad):
    """`train` and `evaluate` exit with 1 before any work; the message names the file and the fix."""
    folder, weights, name = places["data_dir"], tmp_path / "some.weights.h5", bad[0]
    fill(folder, dict([bad]))
    weights.touch()
    assert main([command, f"--data-dir={folder}", f"--weights={weights}"]) == 1
    text = capsys.readouterr().err
    assert f"{folder / name} is not the published file" in text
    assert "rm " in text


def test_wrong_element_of_the_doctors_matmul(monkeypatch):
    """The doctor's matrix product fails, with the number of wrong elements."""
    tf = pytest.importorskip("tensorflow")

    def one_off(product):
        return product + np.eye(1, 256 * 256, 4711, dtype=np.float32).reshape(256, 256)

    after(tf.linalg, "matmul", one_off)(monkeypatch)
    [(_, answer)] = device_probe.main("tensorflow", "cpu:0", "matmul", "convolution")
    assert "1 of 65536 products are wrong" in answer["error"]


def test_bit_in_memory(monkeypatch):
    """The burn-in's patterns fail, and name the block and the pattern."""
    after(ops, "full", one_bit_in_memory)(monkeypatch)
    finding = memory.memory(CheckConfig(), budget=1 << 22, block=1 << 20)
    assert (finding.check, finding.status) == ("memory", "FAIL")
    assert "1 of 1048576 bytes of block 0" in finding.message
    assert "pattern 0x00" in finding.evidence


class Late:
    """A device's answer: reading it waits until the device, which does one thing after the other, is done."""

    free = 0.0

    def __init__(self, seconds):
        Late.free = self.ready = max(Late.free, time.perf_counter()) + seconds

    def wait(self):
        time.sleep(max(0, self.ready - time.perf_counter()))


@pytest.mark.parametrize(
    ("broken", "failed"),
    [pytest.param(False, [], id="fault=none"), pytest.param(True, ["synchronized"], id="fault=not-synchronised")],
)
def test_timing_without_synchronisation(monkeypatch, broken, failed):
    """A timing that ends before the device is done fails, whatever its rounds report."""
    monkeypatch.setattr(devices, "synchronize", lambda *values: None if broken else [each.wait() for each in values])
    monkeypatch.setattr(ops, "convert_to_numpy", Late.wait)
    monkeypatch.setattr(timer, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(timer, "gc", Mock())
    done = timer.measure(lambda: Late(0.02), min_rounds=5, seconds=0.1)
    timing = Timing("train_step[…]", "gpu:0", "float32", done.rounds, done.read_back)
    assert [finding.check for finding in judge(timing) if finding.status == "FAIL"] == failed


def timing(device="gpu:0", rounds=ROUNDS, **changes):
    """Return a case timed on a device."""
    return Timing(f"train_step[device={device}-batch=256]", device, "float32", rounds, 0.1, **changes)


def failures(findings):
    """Return the checks that failed, and their texts."""
    return [(finding.check, str(finding)) for finding in findings if finding.status == "FAIL"]


def test_slow_gpu():
    """A GPU that is 25 % slower than the others of its model fails, by its own name; equal ones don't."""
    equal = [timing(f"gpu:{number}", bottleneck="compute") for number in range(4)]
    models = {f"gpu:{number}": "NVIDIA H100" for number in range(4)}
    slow = [*equal[:2], timing("gpu:2", [1.25 * seconds for seconds in ROUNDS], bottleneck="compute"), equal[3]]
    assert failures(gpu_speed_parity(equal, models)) == []
    [(check, text)] = failures(gpu_speed_parity(slow, models))
    assert check == "gpu_speed_parity"
    assert "gpu:2 is 25.0% slower" in text


def test_decay_by_heat():
    """Rounds that grow longer while the driver says it is too hot fail; equally long ones don't."""
    hot = "its clocks are held down by heat (software slowdown), 88 °C"
    longer = [seconds * (1 + 0.03 * number) for number, seconds in enumerate(ROUNDS)]
    assert failures(judge(timing(heat=hot))) == []
    [(check, text)] = failures(judge(timing(rounds=longer, heat=hot)))
    assert check == "no_thermal_drift"
    assert hot in text


@pytest.mark.usefixtures("narrow")
def test_fast_but_wrong(monkeypatch):
    """A fast train step whose loss is NaN is invalid, whatever its throughput."""
    config = CheckConfig(side=67)
    loader = config.loader()
    indices = learnable_batch(loader, 16)
    with config.running():
        model, before = config.model()
        after(Logits, "call", lambda logits: logits * float("nan"))(monkeypatch)
        step = best_train_step(model, loader, dataclasses.replace(LEARNABLE, draw_size=16, batch_size=16))
        fault = learn(step, loader, indices, before).fault
    [(check, text)] = failures(judge(timing(fault=fault)))
    assert check == "valid"
    assert "is invalid: the loss is nan" in text
