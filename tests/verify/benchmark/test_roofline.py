"""The roofline of a case, layer by layer, follows from its work and the device's own rates; all expected by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_repro.verify.benchmark.roofline import (
    Part,
    Work,
    bottleneck,
    bound,
    forward,
    of_layers,
    resizing,
    train_step,
)
from alexnet_repro.verify.benchmark.timing import Calibration

PRECISIONS = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")
RATES = Calibration("cpu:0", dict.fromkeys(PRECISIONS, 1e11), memory=1e9, read=1e10, write=5e9)
# The first dense layer: 6400 inputs, 4096 outputs, 26,214,400 weights and 4096 biases; of a batch of 2.
DENSE = {
    "float32": [
        ("forward", 104_857_600, 4 * (2 * 6400 + 26_218_496), 4 * 2 * 4096),
        ("backward", 0, 4 * 4 * 4096, 4 * 2 * 4096),  # ReLU's, by what it returned, and the bias's
        ("backward", 104_857_600, 4 * (2 * 6400 + 2 * 4096), 4 * 26_214_400),  # the kernel's
        ("backward", 104_857_600, 4 * (2 * 4096 + 26_214_400), 4 * 2 * 6400),  # the input's
        ("update", 0, 12 * 26_218_496, 0),  # weight read and written back, gradient read
    ],
    "mixed_bfloat16": [
        ("forward", 0, 4 * 26_218_496, 2 * 26_218_496),  # the cast of float32 weights, in each call
        ("forward", 104_857_600, 2 * (2 * 6400 + 26_218_496), 2 * 2 * 4096),
        ("backward", 0, 2 * 4 * 4096, 2 * 2 * 4096),
        ("backward", 104_857_600, 2 * (2 * 6400 + 2 * 4096), 2 * 26_214_400),
        ("backward", 104_857_600, 2 * (2 * 4096 + 26_214_400), 2 * 2 * 6400),
        ("update", 0, 10 * 26_218_496, 0),
    ],
}
# The first convolution, of 224x224 pixels to 54x54 of 96 channels: 11,616 weights and 96 biases; of a batch of 3.
CONV = {
    "float32": [
        ("forward", 203_233_536, 4 * (3 * 50_176 + 11_712), 4 * 3 * 279_936),
        ("backward", 0, 4 * 6 * 279_936, 4 * 3 * 279_936),
        ("backward", 203_233_536, 4 * (3 * 50_176 + 3 * 279_936), 4 * 11_616),  # no gradient of images
        ("update", 0, 12 * 11_712, 0),
    ],
    "mixed_bfloat16": [
        ("forward", 0, 4 * 11_712, 2 * 11_712),
        ("forward", 0, 4 * 3 * 50_176, 2 * 3 * 50_176),  # images come in float32
        ("forward", 203_233_536, 2 * (3 * 50_176 + 11_712), 2 * 3 * 279_936),
        ("backward", 0, 2 * 6 * 279_936, 2 * 3 * 279_936),
        ("backward", 203_233_536, 2 * (3 * 50_176 + 3 * 279_936), 2 * 11_616),
        ("update", 0, 10 * 11_712, 0),
    ],
}
POOL = {  # of a batch of 2; a byte says which of nine places won
    "float32": [
        ("forward", 0, 4 * 2 * 279_936, 4 * 2 * 64_896 + 2 * 64_896),
        ("backward", 0, 4 * 2 * 64_896 + 2 * 64_896, 4 * 2 * 279_936),
    ],
    "mixed_bfloat16": [
        ("forward", 0, 2 * 2 * 279_936, 2 * 2 * 64_896 + 2 * 64_896),
        ("backward", 0, 2 * 2 * 64_896 + 2 * 64_896, 2 * 2 * 279_936),
    ],
}


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("layer", "batch", "parts"),
    [("dense", 2, DENSE), ("conv2d", 3, CONV), ("max_pooling2d", 2, POOL)],
    ids=["layer=dense", "layer=conv2d", "layer=max_pooling2d"],
)
def test_parts_of_a_layer(layer, batch, parts, precision):
    """A train step's operations and bytes of a layer, each product and each pass over arrays counted by hand."""
    found = [tuple(part)[1:] for part in train_step(batch, precision).parts if part.layer == layer]
    assert found == parts[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("batch", [1, 128])
def test_operations_are_the_documented(precision, batch):
    """Those of all layers add up to the document's: forward, and forward with both products back."""
    assert forward(batch, precision).flop == batch * 1_876_292_352
    assert train_step(batch, precision, 3).flop == 3 * batch * 5_561_132_544


@pytest.mark.parametrize(("precision", "least", "most"), [("float32", 187e6, 200e6), ("mixed_bfloat16", 374e6, 385e6)])
def test_weights_of_one_image(precision, least, most):
    """Inference of one image reads 187 MB of weights; in 16 bits it reads them, and writes and reads half of that."""
    assert least < forward(1, precision).bytes < most


def test_each_rate_counts():
    """Reads at the rate of reads, writes at that of writes, products at the precision's; the larger is the bound."""
    part = Part("a", "forward", flop=10**11, read=10**10, written=10**9)
    assert part.seconds("float32", RATES) == pytest.approx((1.0, 1.2))
    assert bound(Work((part, part), times=2), "float32", RATES) == pytest.approx((0.0, 4.8, "a"))
    faster = replace(RATES, matmul={"float32": 5e10})
    assert bound(Work((part,)), "float32", faster) == pytest.approx((2.0, 0.0, "a"))


def test_older_calibration():
    """Of a run that measured an addition's rate alone, reads and writes go at that."""
    part = Part("a", "forward", flop=0, read=10**9, written=10**9)
    assert part.seconds("float32", replace(RATES, read=0.0, write=0.0)) == (0.0, 2.0)


def test_layer_that_takes_most():
    """The layer that takes over half of the bound is named, whatever its parts; without one, none is."""
    half, rest = (Part(name, "forward", 10**11, 0, 0) for name in ("a", "b"))
    assert bound(Work((half, half, rest)), "float32", RATES).layer == "a"
    assert bound(Work((half, rest)), "float32", RATES).layer == ""


def test_weights_of_one_image_take_the_time():
    """Inference of one image by two cores' rates is memory's: dense layers read 172 of 187 MB; of 128, compute's."""
    two_cores = Calibration("cpu:0", {"float32": 175e9}, memory=10e9, read=12e9, write=10e9)
    one, many = (bound(forward(batch, "float32"), "float32", two_cores) for batch in (1, 128))
    assert one.memory == pytest.approx(0.0147, rel=0.03)
    assert one.compute == pytest.approx(0.0102, rel=0.03)
    assert many.compute > 20 * many.memory


@pytest.mark.parametrize(
    ("work", "seconds", "name"),
    [
        pytest.param(Work((Part("a", "forward", 10**11, 10**8, 0),), 20), 1.2, "compute", id="bottleneck=compute"),
        pytest.param(Work((Part("a", "forward", 10**9, 10**9, 0),), 20), 0.15, "memory", id="bottleneck=memory"),
        pytest.param(Work((Part("a", "forward", 10**7, 10**5, 0),), 100), 0.0012, "launch", id="bottleneck=launch"),
        pytest.param(Work((Part("a", "forward", 10**7, 10**5, 0),), 100), 0.0013, "other", id="bottleneck=not launch"),
        pytest.param(Work((Part("a", "forward", 10**11, 10**8, 0),), 20), 2.1, "other", id="bottleneck=other"),
    ],
)
def test_bottleneck(work, seconds, name):
    """What takes longest at calibrated rates, where that explains half of the time; a call counts as launches do."""
    assert bottleneck(work, seconds, "float32", replace(RATES, call_overhead=1e-4, kernel_launch=5e-6)) == name


def test_arithmetic_and_memory_explain_it_together():
    """Each takes 0.3 s of 1 s: together they explain over half, and the larger is named."""
    parts = (Part("a", "forward", 32 * 10**9, 0, 0), Part("b", "forward", 0, 3 * 10**9, 0))
    assert bottleneck(Work(parts), 1.0, "float32", RATES) == "compute"


# An H100's rates, and its train steps of 512 images: docs/gpu.md.
H100 = Calibration("gpu:0", {"mixed_bfloat16": 717e12}, memory=2.57e12, call_overhead=81e-6, kernel_launch=10e-6)


@pytest.mark.parametrize(
    ("kernel_launch", "name"), [(10e-6, "compute"), (81e-6, "launch")], ids=["launch=a kernel", "launch=a call"]
)
def test_bottleneck_of_an_h100(kernel_launch, name):
    """A step of 512 images in bfloat16 is limited by compute, not by launches, which are a kernel's, not a call's."""
    rates = replace(H100, kernel_launch=kernel_launch)
    assert bottleneck(train_step(512, "mixed_bfloat16"), 7.23e-3, "mixed_bfloat16", rates) == name


def test_share_of_an_h100():
    """Layer by layer its rates explain 5.81 ms of that step's 7.23."""
    assert bound(train_step(512, "mixed_bfloat16"), "mixed_bfloat16", H100).seconds == pytest.approx(5.807e-3, rel=1e-3)


def test_resize_is_memory():
    """Pixels are read as bytes, and written as float32."""
    assert resizing(128).parts == (("resize", "forward", 0, 128 * 784, 4 * 128 * 50_176),)
    assert resizing(2, 448).parts[0].read == 2 * 448 * 448
    assert train_step(4, "float32").parts[0] == forward(4, "float32", resized=True).parts[0] == resizing(4).parts[0]
    assert "resize" not in {part.layer for part in forward(4, "float32").parts}


def test_work_of_each_layer():
    """A train step's layers in the model's order, each direction once; together they have all that it does."""
    step = train_step(8, "mixed_bfloat16")
    found = of_layers(step.parts)
    assert list(found)[:6] == [
        ("resize", "forward"),
        ("conv2d", "forward"),
        ("conv2d", "backward"),
        ("conv2d", "update"),
        ("max_pooling2d", "forward"),
        ("max_pooling2d", "backward"),
    ]
    assert sum(work.flop for work in found.values()) == step.flop
    assert sum(work.bytes for work in found.values()) == step.bytes


rate = st.floats(1e6, 1e16)
rates = st.builds(
    lambda matmul, memory, read, write: Calibration("gpu:0", dict.fromkeys(PRECISIONS, matmul), memory, read, write),
    *[rate] * 4,
)


@given(rates, st.sampled_from(PRECISIONS), st.integers(1, 4096), st.integers(1, 64), st.floats(1.001, 100))
def test_bound_grows_with_work_and_falls_with_rates(device, precision, batch, updates, factor):
    """More images or updates take longer, a device that is faster in any rate not; a step takes over twice forward."""
    least = bound(train_step(batch, precision, updates), precision, device).seconds
    assert least > 2 * updates * bound(forward(batch, precision, resized=True), precision, device).seconds
    assert bound(train_step(batch + 1, precision, updates), precision, device).seconds > least
    assert bound(train_step(batch, precision, updates + 1), precision, device).seconds > least
    for name in ("read", "write"):
        assert (
            bound(
                train_step(batch, precision, updates),
                precision,
                replace(device, **{name: getattr(device, name) * factor}),
            ).seconds
            <= least
        )
    products = {name: value * factor for name, value in device.matmul.items()}
    assert bound(train_step(batch, precision, updates), precision, replace(device, matmul=products)).seconds <= least


@given(rates, st.sampled_from(PRECISIONS), st.integers(1, 4096))
def test_bound_is_never_below_either(device, precision, batch):
    """The bound is at least all arithmetic, and at least all bytes; and at most both, one after the other."""
    step = train_step(batch, precision)
    compute = step.flop / device.matmul[precision]
    memory = sum(part.read / device.read + part.written / device.write for part in step.parts)
    found = bound(step, precision, device).seconds
    assert max(compute, memory) <= found * (1 + 1e-9)
    assert found <= (compute + memory) * (1 + 1e-9)
