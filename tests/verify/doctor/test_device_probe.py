"""How a device is probed: in which child processes, with which variables, and what is made of their answers."""

from importlib.metadata import version

import pytest

from alexnet_repro.verify.doctor import device_probe, endings, probes
from alexnet_repro.verify.doctor.device_probe import CHECKS, probe_device, probe_start
from alexnet_repro.verify.doctor.software import device_result
from tests.helpers.machines import CPU

BACKENDS = ("tensorflow", "jax", "torch")


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_this_processor_computes(monkeypatch, backend):
    """A backend, in its own process, starts, lists its devices, and computes right on the CPU."""
    pytest.importorskip(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)  # or TensorFlow imports another one as well
    found = list(probe_device(backend, "cpu:0", 180))
    assert [(result.check, result.error) for result in found] == [(check, None) for check in CHECKS[backend]]
    assert found[0].data["version"].partition("+")[0] == version(backend).partition("+")[0]
    assert isinstance(found[1].data["gpus"], list)


def _fails(backend, device, check):
    assert (backend, device) == ("tensorflow", "gpu:0")
    if check == "b":
        error = ArithmeticError("7 of 9 are wrong")
        error.add_note("in bfloat16")
        raise error
    return {"x": 1}


def test_failed_check_ends_its_process(monkeypatch):
    """After an error, which may stick to a CUDA context, nothing more runs in this process."""
    monkeypatch.setattr(probes, "run", _fails)
    (first, a), (second, b) = device_probe.main("tensorflow", "gpu:0", "a", "b", "c")
    assert (first, second) == ("a", "b")
    assert (a["error"], a["data"]) == (None, {"x": 1})
    assert b["error"] == "ArithmeticError: 7 of 9 are wrong, in bfloat16"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("device", "first"), [("cpu:0", "cpu:0"), ("gpu:3", "gpu:0")])
def test_gpu_is_the_only_one_its_process_sees(monkeypatch, backend, device, first):
    """So it is the first there, whatever its number; without it, nothing is computed at all, nor is memory reserved."""
    started = []

    def each_of(_module, arguments, names, _deadline, environ):
        started.append((arguments, environ["CUDA_VISIBLE_DEVICES"], environ["XLA_PYTHON_CLIENT_PREALLOCATE"]))
        return ((name, {"error": "not seen" if name == "devices" else None}) for name in names)

    monkeypatch.setattr(device_probe, "answer_each", each_of)
    found = list(probe_device(backend, device, 1, {"CUDA_VISIBLE_DEVICES": "3"}))
    assert started == [([backend, first], "3", "false")]
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
    found = [finding for result in probe_device("tensorflow", "cpu:0", 1) for finding in device_result(CPU, result)]
    (failed,) = (finding for finding in found if finding.status != "PASS")
    assert (failed.check, failed.status) == (check, "FAIL")
    assert "ended by SIGSEGV" in failed.message
    assert failed.evidence == "Check failed: x"
    assert "nvidia-smi" not in failed.fix


@pytest.mark.parametrize(("backend", "check"), [("tensorflow", "xla"), ("jax", "operations"), ("torch", "operations")])
def test_backend_starts_without_a_gpu(monkeypatch, backend, check):
    """Whether a backend starts is answered by a child that sees no GPU; how it died is its error."""
    started = []

    def each_of(_module, arguments, names, _deadline, environ):
        started.append((arguments, list(names), environ["CUDA_VISIBLE_DEVICES"]))
        yield names[0], {"error": "exit status 1", "log": "F0000 00:00:1 2 x.cc:1] Unknown flag in XLA_FLAGS: --bogus"}

    monkeypatch.setattr(device_probe, "answer_each", each_of)
    result = probe_start(backend, 1)
    assert started == [([backend, "cpu:0"], [check], "-1")]
    (found,) = device_result(CPU, result)
    assert (found.check, found.status, found.device) == (check, "FAIL", "cpu:0")
    assert "XLA_FLAGS has --bogus, which this version doesn't know" in found.message


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_backend_starts(monkeypatch, backend):
    """A sound backend starts."""
    pytest.importorskip(backend)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert probe_start(backend, 180).error is None
