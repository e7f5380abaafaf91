"""resize_with_pad is TensorFlow 2.0.0's, for every size: recorded values, an independent oracle, and its properties."""

import json

import keras
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from alexnet_repro import resize_with_pad
from alexnet_repro.data.resize import _axes
from tests.helpers.paths import RECORDED

REFERENCE = json.loads((RECORDED / "resize_tf_2.0.0.json").read_text())
TARGETS = [(224, 224), (227, 227), (100, 37), (32, 48), (1, 1)]

sizes = st.tuples(st.integers(1, 400), st.integers(1, 400))
targets = st.sampled_from(TARGETS)
seeds = st.integers(0, 2**32 - 1)

# Source positions are float32, as in TensorFlow's kernel: off by up to 400 * 2^-24 of a pixel from float64's, and
# twice that in value where neighbours lie a whole range apart.
POSITION_ERROR = 1e-4

# Other backends may fuse a product and a sum.
ROUNDING = 0 if keras.backend.backend() == "tensorflow" else 2.0**-23

# Images are resized for every eighth size on record. JAX compiles every operation anew for each: half a second.
EVERY = 100 if keras.backend.backend() == "jax" else 8


def random_images(seed, *shape):
    """Return float32 images in [0, 1)."""
    return np.random.RandomState(seed).random_sample(shape).astype(np.float32)


def resized(images, target):
    """Return the function's result as an array."""
    return keras.ops.convert_to_numpy(resize_with_pad(images, *target))


def content(size, target):
    """Return top, left, height and width of what isn't padding, seen on an image of ones; padding is exactly 0."""
    out = resized(np.ones((*size, 1), np.float32), target)[:, :, 0]
    rows, columns = np.flatnonzero(out.any(axis=1)), np.flatnonzero(out.any(axis=0))
    assert (out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 1).all()
    return rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]


def place(size, target):
    """Return top, left, height and width of what isn't padding, as they are computed before an image is resized."""
    axes = [np.flatnonzero(axis.inside) for axis in _axes(*size, *target)]
    return *(inside[0] for inside in axes), *(len(inside) for inside in axes)


def oracle(image, target):
    """Resize one image in NumPy, in float64: place by TensorFlow 2.0.0's formula, values by a weight matrix a side."""
    sides = np.array(image.shape[:2], np.float64)
    exact = sides / max(sides[1] / target[1], sides[0] / target[0])
    matrices = []
    for side, exact_side, length in zip(image.shape[:2], exact, target, strict=True):
        inner = max(1, int(np.floor(exact_side)))
        start = max(0, int(np.floor((length - exact_side) / 2)))
        matrix = np.zeros((length, side))
        for row in range(inner):
            position = min(max((row + 0.5) * side / inner - 0.5, 0), side - 1)
            below = int(position)
            matrix[start + row, below] += 1 - (position - below)
            matrix[start + row, min(below + 1, side - 1)] += position - below
        matrices.append(matrix)
    return np.einsum("ih,hwc,jw->ijc", matrices[0], image.astype(np.float64), matrices[1], optimize=True)


@pytest.mark.parametrize("boxes", [pytest.param(b, id="target={}x{}".format(*b["target"])) for b in REFERENCE["boxes"]])
def test_place_of_the_content(boxes):
    """The content lies where TensorFlow 2.0.0 put it, to the pixel: every square size to 400, and 400 others."""
    for found, rows in ((place, boxes["rows"]), (content, boxes["rows"][::EVERY])):
        assert [row for row in rows if list(found(row[:2], boxes["target"])) != row[2:]] == []


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id="size={}x{}-target={}x{}".format(*c["size"], *c["target"])) for c in REFERENCE["images"]],
)
def test_values(case):
    """The values are TensorFlow 2.0.0's: the same bits on TensorFlow, within one rounding elsewhere."""
    flat = resized(random_images(0, 1, *case["size"], 2), case["target"]).ravel()
    picked = flat[np.linspace(0, flat.size - 1, 32).astype(int)]
    np.testing.assert_allclose(picked, case["values"], rtol=0, atol=ROUNDING)


@given(sizes, targets, seeds)
@example((1, 225), (224, 224), 0)
@example((9, 9), (224, 224), 0)
def test_oracle(size, target, seed):
    """The result is that of an independent NumPy implementation in float64."""
    image = random_images(seed, *size, 2)
    np.testing.assert_allclose(resized(image, target), oracle(image, target), rtol=0, atol=POSITION_ERROR)


@given(sizes, targets, st.sampled_from(["uint8", "int32", "float16", "float32", "float64"]), st.integers(0, 3))
def test_shape_and_dtype(size, target, dtype, batch):
    """Any integer or float images, one or a batch or none, give float32 of the target's shape."""
    for shape in ((batch, *size, 2), (*size, 3)):
        out = resized(np.ones(shape, dtype), target)
        assert out.shape == (*shape[:-3], *target, shape[-1])
        assert out.dtype == np.float32


@given(sizes, targets)
def test_padding(size, target):
    """The content is one rectangle, as long as the target or a pixel shorter; around it all is exactly 0."""
    top, left, height, width = content(size, target)
    assert target[0] - height <= 1 or target[1] - width <= 1
    assert 0 <= top <= target[0] - height
    assert 0 <= left <= target[1] - width


@given(sizes, targets)
def test_centred(size, target):
    """The content's centre is within a pixel of the target's."""
    top, left, height, width = content(size, target)
    assert abs(top + height / 2 - target[0] / 2) <= 1
    assert abs(left + width / 2 - target[1] / 2) <= 1


@given(sizes, targets)
def test_aspect_ratio(size, target):
    """The aspect ratio is kept to within a pixel of each side, but never at the price of a whole side."""
    _, _, height, width = content(size, target)
    scale = min(target[0] / size[0], target[1] / size[1])
    assert height == 1 or -1e-9 <= scale * size[0] - height <= 1 + 1e-9
    assert width == 1 or -1e-9 <= scale * size[1] - width <= 1 + 1e-9


@given(sizes, targets, seeds, st.floats(0.5, 255))
def test_value_range(size, target, seed, scale):
    """No value leaves the range of the image and the padding's zero by more than rounding."""
    image = random_images(seed, *size, 1) * np.float32(scale)
    out = resized(image, target)
    assert out.min() >= 0
    assert out.max() <= image.max() * (1 + 2.0**-22)


@given(sizes, targets, seeds)
def test_batch_equals_singles(size, target, seed):
    """A batch gives the same bits as its images one by one."""
    images = random_images(seed, 3, *size, 2)
    np.testing.assert_array_equal(resized(images, target), np.stack([resized(image, target) for image in images]))


@given(sizes, targets, seeds)
def test_linear(size, target, seed):
    """Resizing a weighted sum of images gives the weighted sum of the resized."""
    first, second = random_images(seed, 2, *size, 1)
    left = resized(2 * first - 3 * second, target)
    np.testing.assert_allclose(left, 2 * resized(first, target) - 3 * resized(second, target), rtol=0, atol=5e-6)


@given(sizes, seeds)
def test_identity(size, seed):
    """An image that has the target's size already comes back bit for bit."""
    image = random_images(seed, *size, 2)
    np.testing.assert_array_equal(resized(image, size), image)


@given(sizes, targets, seeds, st.sampled_from([0, 1]))
def test_mirror(size, target, seed, axis):
    """Where the padding is the same on both sides, the mirrored image gives the mirrored result."""
    box = content(size, target)
    assume(2 * box[axis] + box[axis + 2] == target[axis])
    image = random_images(seed, *size, 1)
    mirrored = resized(np.flip(image, axis).copy(), target)
    np.testing.assert_allclose(mirrored, np.flip(resized(image, target), axis), rtol=0, atol=POSITION_ERROR)


@given(sizes, targets, seeds)
def test_uint8(size, target, seed):
    """uint8 images give the bits that the same values give as float32."""
    image = np.random.RandomState(seed).randint(0, 256, (*size, 1)).astype(np.uint8)
    np.testing.assert_array_equal(resized(image, target), resized(image.astype(np.float32), target))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="unknown sizes exist in TensorFlow's graphs only")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_graph(jit_compile):
    """A compiled function that knows no size puts the content on the same pixels, and computes the same values."""
    import tensorflow as tf

    unknown = [tf.TensorSpec((None, None, None, 1), tf.float32)]
    graph = tf.function(lambda x: resize_with_pad(x, 100, 37), input_signature=unknown, jit_compile=jit_compile)
    rows = REFERENCE["boxes"][TARGETS.index((100, 37))]["rows"]
    for row in rows[:: 100 if jit_compile else 5]:  # XLA compiles each size anew
        images = random_images(row[0], 1, *row[:2], 1) + 1
        # The same bits, but for products and sums that XLA fuses.
        np.testing.assert_allclose(graph(images), resized(images, (100, 37)), rtol=1e-6 if jit_compile else 0)


@pytest.mark.parametrize(
    ("shape", "dtype", "arguments", "message"),
    [
        pytest.param((28, 28), "float32", {}, r"images .* shape \(28, 28\)", id="case=rank-2"),
        pytest.param((1, 2, 3, 4, 5), "float32", {}, r"images .* shape \(1, 2, 3, 4, 5\)", id="case=rank-5"),
        pytest.param((2, 0, 28, 1), "float32", {}, r"images .* shape \(2, 0, 28, 1\)", id="case=no-rows"),
        pytest.param((28, 0, 1), "uint8", {}, r"images .* shape \(28, 0, 1\)", id="case=no-columns"),
        pytest.param((28, 28, 0), "uint8", {}, r"images .* shape \(28, 28, 0\)", id="case=no-channels"),
        pytest.param((28, 28, 1), "bool", {}, r"images .* shape \(28, 28, 1\), dtype bool", id="case=bool"),
        pytest.param((28, 28, 1), "uint8", {"height": 0}, "height=0", id="case=height-0"),
        pytest.param((28, 28, 1), "uint8", {"width": -3}, "width=-3", id="case=width-negative"),
        pytest.param((28, 28, 1), "uint8", {"width": 224.0}, r"width=224\.0", id="case=width-float"),
    ],
)
def test_wrong_arguments(shape, dtype, arguments, message):
    """What can't be resized is refused by name and shape."""
    with pytest.raises(ValueError, match=message):
        resize_with_pad(np.ones(shape, dtype), **arguments)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="unknown ranks exist in TensorFlow's graphs only")
def test_decoded_images():
    """A decoded image of unknown rank is refused with what gives it one, which then works; values are as eagerly."""
    import tensorflow as tf

    image = random_images(0, 9, 7, 1).astype(np.uint8)
    files = tf.data.Dataset.from_tensors(tf.io.encode_png(image))
    with pytest.raises(ValueError, match=r"of unknown rank: tf\.io\.decode_image\(…, expand_animations=False\) gives"):
        files.map(lambda file: resize_with_pad(tf.io.decode_image(file), 8, 8))
    decoded = files.map(lambda file: resize_with_pad(tf.io.decode_image(file, expand_animations=False), 8, 8))
    (found,) = decoded.as_numpy_iterator()
    np.testing.assert_array_equal(found, resized(image, (8, 8)))
