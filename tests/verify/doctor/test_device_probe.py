"""Whether TensorFlow computes right on a device, probed in a child process."""

from importlib.metadata import version

import pytest

from alexnet_repro.verify.doctor import device_probe, endings
from alexnet_repro.verify.doctor.device_probe import PROBES, probe_device, probe_start
from alexnet_repro.verify.doctor.software import device_result
from tests.helpers.machines import CPU


@pytest.mark.slow
def test_this_processor_computes():
    """TensorFlow, in its own process, starts, lists its devices, and computes right on the CPU."""
    pytest.importorskip("tensorflow")
    found = list(probe_device("cpu:0", 180))
    assert [(result.check, result.error) for result in found] == [(check, None) for check in PROBES]
    assert found[0].data["version"] == version("tensorflow")
    assert isinstance(found[1].data["gpus"], list)


def _wrong(_device):
    raise ArithmeticError("7 of 9 are wrong")


def test_failed_check_ends_its_process(monkeypatch):
    """After an error, which may stick to a CUDA context, nothing more runs in this process."""
    monkeypatch.setattr(device_probe, "PROBES", {"a": lambda _: {"x": 1}, "b": _wrong, "c": lambda _: {}})
    (first, a), (second, b) = device_probe.main("gpu:0", "a", "b", "c")
    assert (first, second) == ("a", "b")
    assert (a["error"], a["data"]) == (None, {"x": 1})
    assert b["error"] == "ArithmeticError: 7 of 9 are wrong"


@pytest.mark.parametrize(("device", "first"), [("cpu:0", "cpu:0"), ("gpu:3", "gpu:0")])
def test_gpu_is_the_only_one_its_process_sees(monkeypatch, device, first):
    """So it is the first there, whatever its number; without it, nothing is computed at all."""
    started = []

    def each_of(_module, arguments, names, _deadline, environ):
        started.append((arguments, environ["CUDA_VISIBLE_DEVICES"]))
        return ((name, {"error": "not seen" if name == "devices" else None}) for name in names)

    monkeypatch.setattr(device_probe, "answer_each", each_of)
    found = list(probe_device(device, 1, {"CUDA_VISIBLE_DEVICES": "3"}))
    assert started == [([first], "3")]
    assert [(result.device, result.check) for result in found] == [(device, "import"), (device, "devices")]


@pytest.mark.parametrize("check", ["matmul", "xla"])
def test_check_that_crashes_fails(monkeypatch, check):
    """A check whose process died fails on the doctor's list, with how it died."""

    def each_of(_module, _arguments, names, _deadline, _environ):
        crash = {"error": "ended by SIGSEGV", "log": "F0000 00:00:1795 2341 x.cc:234] Check failed: x\ncuInit failed"}
        well = {"error": None, "seconds": 1.0, "data": {"gpus": []}, "log": ""}
        return ((name, crash if name == check else well) for name in names)

    monkeypatch.setattr(device_probe, "answer_each", each_of)
    monkeypatch.setattr(endings, "_nvidia_files", lambda _root: False)
    found = [finding for result in probe_device("cpu:0", 1) for finding in device_result(CPU, result)]
    (failed,) = (finding for finding in found if finding.status != "PASS")
    assert (failed.check, failed.status) == (check, "FAIL")
    assert "ended by SIGSEGV" in failed.message
    assert failed.evidence == "Check failed: x"
    assert "nvidia-smi" not in failed.fix


@pytest.mark.parametrize(("check", "spoil"), [("matmul", "matmul"), ("convolution", "conv2d"), ("xla", "conv2d")])
def test_wrong_result_is_an_error(monkeypatch, check, spoil):
    """A device whose products or sums are off fails that check, with how far off it is."""
    tf = pytest.importorskip("tensorflow")
    module = tf.linalg if spoil == "matmul" else tf.nn
    right = getattr(module, spoil)
    monkeypatch.setattr(module, spoil, lambda *arguments: right(*arguments) + 1)
    monkeypatch.setattr(device_probe, "_only", lambda _device: tf)
    with pytest.raises(ArithmeticError, match=r"65536 of 65536 products are wrong|off by 1"):
        PROBES[check]("cpu:0")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_start_without_a_gpu(monkeypatch, backend):
    """Whether another backend starts is answered by a child that sees no GPU; how it died is its error."""
    started = []

    def each_of(_module, arguments, names, _deadline, environ):
        started.append((arguments, list(names), environ["CUDA_VISIBLE_DEVICES"]))
        yield names[0], {"error": "exit status 1", "log": "F0000 00:00:1 2 x.cc:1] Unknown flag in XLA_FLAGS: --bogus"}

    monkeypatch.setattr(device_probe, "answer_each", each_of)
    (result,) = probe_start(backend, 1)
    assert started == [(["cpu:0"], [backend], "-1")]
    (found,) = device_result(CPU, result)
    assert (found.check, found.status, found.device) == (backend, "FAIL", "cpu:0")
    assert "XLA_FLAGS has --bogus, which this version doesn't know" in found.message


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backend_starts(backend):
    """A sound backend starts."""
    pytest.importorskip(backend)
    (result,) = probe_start(backend, 180)
    assert (result.check, result.error) == (backend, None)
