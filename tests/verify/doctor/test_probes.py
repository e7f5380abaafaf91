"""What a probe's child computes: right on a sound device, and an error where a device or a kernel isn't."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from alexnet_repro.verify.doctor import probes

EXACT = np.ones((2, 3, 3, 1), "float32")


class Sound:
    """A backend that computes right, but for what `spoil` does to a check's results."""

    def __init__(self, _device):
        self.seen = []

    def devices(self):
        return {"gpus": ["A100"]}

    def operations(self, x, indices):
        return [np.sin(x), x.sum(), x[indices]]

    def matmul(self, a, b):
        return a @ b

    def convolution(self, layer, precision, xla):
        TRIED.append((precision, xla))
        return probes.expected_convolution(*layer)


TRIED = []


def _spoilt(method, part, change):
    def wrong(self, *arguments, **options):
        found = [np.array(each) for each in getattr(Sound, method)(self, *arguments, **options)]
        found[part] = change(found[part])
        return found

    return type("Spoilt", (Sound,), {method: wrong})


@pytest.mark.parametrize(
    ("check", "method", "part", "message"),
    [
        ("operations", "operations", 0, "sine is off by 1"),
        ("operations", "operations", 1, "sum is off by 1"),
        ("operations", "operations", 2, "gather is off by 1"),
        ("convolution", "convolution", 0, "output is off by 1"),
        ("convolution", "convolution", 1, "input's gradient is off by 1"),
        ("xla", "convolution", 2, "kernel's gradient is off by 1"),
        ("xla", "convolution", 3, "bias's gradient is off by 1"),
    ],
)
def test_wrong_result_is_an_error(monkeypatch, check, method, part, message):
    """A device whose results are off fails that check, by how far which of them is off, and in which precision."""
    monkeypatch.setitem(probes.CLASSES, "tensorflow", _spoilt(method, part, lambda right: right + 1))
    with pytest.raises(ArithmeticError, match=message) as caught:
        probes.run("tensorflow", "gpu:0", check)
    assert getattr(caught.value, "__notes__", []) == (["in float32"] if method == "convolution" else [])


def test_nothing_is_wrong_with_nan(monkeypatch):
    """A result that is no number is an error."""
    monkeypatch.setitem(probes.CLASSES, "tensorflow", _spoilt("convolution", 0, lambda right: right * np.nan))
    with pytest.raises(ArithmeticError, match="output is off by nan"):
        probes.run("tensorflow", "gpu:0", "convolution")


def test_wrong_product_is_an_error(monkeypatch):
    """Of a product, each element is exact."""
    wrong = type("Wrong", (Sound,), {"matmul": lambda _self, a, b: a @ b + 1})
    monkeypatch.setitem(probes.CLASSES, "torch", wrong)
    with pytest.raises(ArithmeticError, match="65536 of 65536 products are wrong"):
        probes.run("torch", "gpu:0", "matmul")


@pytest.mark.parametrize(
    ("device", "check", "precisions"),
    [
        ("gpu:0", "convolution", ["float32", "tf32", "bfloat16", "float16"]),
        ("gpu:0", "xla", ["float32", "tf32", "bfloat16", "float16"]),
        ("cpu:0", "convolution", ["float32", "bfloat16", "float16"]),
        ("cpu:0", "xla", ["float32", "bfloat16", "float16"]),
    ],
)
def test_layer_is_tried_in_every_precision(monkeypatch, device, check, precisions):
    """What training computes is tried in each precision that it has on the device, TensorFloat-32 on GPUs alone."""
    monkeypatch.setitem(probes.CLASSES, "jax", Sound)
    TRIED.clear()
    assert probes.run("jax", device, check) == {}
    assert [(each, check == "xla") for each in precisions] == TRIED


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_gpu_that_isnt_seen_is_an_error(monkeypatch, backend):
    """A child that was given one GPU and sees none says so, with the backend's reason; for the CPU's it is none."""
    blind = type("Blind", (Sound,), {"devices": lambda _self: {"gpus": [], "reason": "no plugin"}})
    monkeypatch.setitem(probes.CLASSES, backend, blind)
    with pytest.raises(RuntimeError, match=r"(TensorFlow|JAX|PyTorch) doesn't see this GPU; no plugin"):
        probes.run(backend, "gpu:0", "devices")
    assert probes.run(backend, "cpu:0", "devices") == {"gpus": [], "reason": "no plugin"}


def test_expected_layer():
    """The expected side is the definition: here of one channel, whose sums and gradients are counted by hand."""
    kernel, bias = np.ones((3, 3, 1, 1), "float32"), np.array([-4.5], "float32")
    y, dx, dkernel, dbias = probes.expected_convolution(EXACT, kernel, bias, EXACT)
    assert y[0, ..., 0].tolist() == [[0, 1.5, 0], [1.5, 4.5, 1.5], [0, 1.5, 0]]  # of 4, 6 and 9 ones
    assert dx[0, ..., 0].tolist() == [[3, 4, 3], [4, 5, 4], [3, 4, 3]]  # by how many of the five that count
    assert dkernel[..., 0, 0].tolist() == [[6, 8, 6], [8, 10, 8], [6, 8, 6]]
    assert dbias.tolist() == [10]


def test_numbers_are_exact_in_every_precision():
    """No number of the layer or its gradients is above 64, nor finer than a half: seven bits, as bfloat16 has."""
    numbers = probes.convolution_numbers()
    for each in (*numbers, *probes.expected_convolution(*numbers)):
        assert 0 < np.abs(each).max() < 64
        assert (each * 2 == np.round(each * 2)).all()


def test_layer_of_tensorflow_is_what_training_compiles(monkeypatch):
    """With XLA it is compiled whole, convolution, bias, ReLU and gradients; TF32 is off but where it's meant."""
    tf = pytest.importorskip("tensorflow")
    compiled, tf32 = [], []
    monkeypatch.setattr(probes._TensorFlow, "_only", lambda self: self.tf)
    monkeypatch.setattr(tf.config.experimental, "enable_tensor_float_32_execution", tf32.append)
    monkeypatch.setattr(tf, "function", lambda step, jit_compile: compiled.append(jit_compile) or step)
    layer = probes._TensorFlow("cpu:0")
    for precision in ("float32", "tf32"):
        found = layer.convolution(probes.convolution_numbers(), precision, xla=True)
        assert [each.shape for each in found] == [(2, 12, 12, 32), (2, 12, 12, 32), (3, 3, 32, 32), (32,)]
    assert (compiled, tf32) == ([True, True], [False, True])


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_backend_is_imported_by_name(monkeypatch, backend):
    """The first check is the import alone, so that what fails there is named."""
    monkeypatch.setitem(sys.modules, backend, SimpleNamespace(__version__="7.0"))
    assert probes.run(backend, "gpu:0", "import") == {"version": "7.0"}
