"""The documented AlexNet and its two losses, on Keras alone: the same on TensorFlow, JAX and PyTorch.

The document compiles a **sigmoid** output with `sparse_categorical_crossentropy`, which expects a distribution.
TensorFlow 2.0.0 normalised the sigmoid outputs; Keras 3 on TensorFlow takes the softmax of the sigmoid's input
instead, which has another value and another gradient. Both losses take labels `(n,)` (any integer or float dtype,
values `0 … classes-1`) and float32 logits `(n, classes)`, and return float32 `(n,)`, one loss per image. They are
finite for logits up to ±1e4 and the same on every backend, eager or compiled. Other shapes raise a `ValueError`.
"""

import math
import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from alexnet_repro.backend import cpu_layers, xla_layers

# Eleven taps, then strides 4, 2, 2, 2: the last 3x3 pooling needs 3 rows, so the one before needs
# 7, the first 15, and the 11x11 convolution with stride 4 needs 11 + 4 * 14 of the image.
SMALLEST_SIDE = 67
HIDDEN_UNITS = 4096  # of both hidden dense layers


def build_alexnet(
    input_shape: tuple[int, int, int] = (224, 224, 1),
    num_classes: int = 10,
    kernel_initializer: str = "glorot_uniform",
    *,
    for_xla: bool | None = None,
) -> keras.Sequential:
    """Build the documented `Sequential`: five convolutions, two hidden dense layers, a sigmoid head.

    Of images of `input_shape`, `(height, width, channels)`, it is built, from float `(n, height, width, channels)` to
    float32 sigmoid outputs `(n, num_classes)`. Layers carry the document's printed names (`conv2d` … `dense_2`)
    regardless of models built before. The hidden layers follow Keras's dtype policy; the head is float32 under every
    policy. Kernels are drawn by the Keras initializer of that name, by default the document's; biases start at zero.

    `for_xla` is whether the layers use the operations of `alexnet_repro.backend.xla_layers`, with the same results;
    by default where Keras would compile with XLA: on JAX, and on TensorFlow with a GPU and determinism off. Without, on
    TensorFlow in float32 and where no GPU is visible, the hidden dense layers are those of
    `alexnet_repro.backend.cpu_layers`. A clone, or a model that is loaded, has Keras's own.

    Raises:
        ValueError: `input_shape` is not three positive integers, is too small for the chain of
            poolings, or `num_classes` is less than one.

    Source: "Dive into Deep Learning", TensorFlow 2 edition, section 5.6.
    """
    try:
        height, width, channels = map(operator.index, input_shape)
    except (TypeError, ValueError):
        height = width = channels = 0
    if min(height, width, channels) < 1:
        raise ValueError(f"input_shape must be (height, width, channels), three positive integers; got {input_shape}")
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"input_shape {input_shape} is too small: after the convolutions and poolings nothing would be left; "
            f"the smallest that works is ({SMALLEST_SIDE}, {SMALLEST_SIDE}, {channels})"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1; got {num_classes}")
    if for_xla is None:
        for_xla = keras.Sequential([keras.Input((1,))]).jit_compile

    def conv(name: str, filters: int, size: int, *, strides: int = 1, padding: str = "same") -> keras.layers.Layer:
        options = {"activation": "relu", "data_format": "channels_last", "kernel_initializer": kernel_initializer}
        layer = keras.layers.Conv2D(filters, size, strides=strides, padding=padding, name=name, **options)
        layer = xla_layers.relu_by_result(layer) if for_xla else layer
        return xla_layers.strides_as_channels(layer) if for_xla and strides > 1 else layer

    def pool(name: str) -> keras.layers.Layer:
        layer = keras.layers.MaxPooling2D(3, strides=2, data_format="channels_last", name=name)
        return xla_layers.kept_winners(layer) if for_xla else layer

    def dense(name: str, units: int, activation: str, dtype: str | None = None) -> keras.layers.Layer:
        options = {"kernel_initializer": kernel_initializer, "dtype": dtype, "name": name}
        layer = keras.layers.Dense(units, activation, **options)
        return layer if for_xla or activation == "sigmoid" else cpu_layers.kernel_first(layer)  # no head: see Logits

    def dropout(name: str) -> keras.layers.Layer:
        layer = keras.layers.Dropout(0.5, name=name)
        return xla_layers.same_masks(layer) if for_xla else layer

    return keras.Sequential(
        [
            keras.Input((height, width, channels), name="images"),
            conv("conv2d", 96, 11, strides=4, padding="valid"),
            pool("max_pooling2d"),
            conv("conv2d_1", 256, 5),
            pool("max_pooling2d_1"),
            conv("conv2d_2", 384, 3),
            conv("conv2d_3", 384, 3),
            conv("conv2d_4", 256, 3),
            pool("max_pooling2d_2"),
            keras.layers.Flatten(data_format="channels_last", name="flatten"),
            dense("dense", HIDDEN_UNITS, "relu"),
            dropout("dropout"),
            dense("dense_1", HIDDEN_UNITS, "relu"),
            dropout("dropout_1"),
            dense("dense_2", num_classes, "sigmoid", dtype="float32"),
        ],
        name="alexnet",
    )


class Logits(keras.layers.Layer):
    """A dense head without its activation, on the head's own variables: features `(n, k)` to float32 `(n, classes)`."""

    def __init__(self, head: keras.layers.Dense) -> None:
        """Share the kernel and bias of `head`, a built dense layer."""
        super().__init__(dtype="float32", name="logits")
        self.head = head
        self.built = True

    def call(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """Return `features @ kernel + bias`."""
        return ops.add(ops.matmul(features, self.head.kernel), self.head.bias)


def logits_model(model: keras.Sequential) -> keras.Model:
    """Return `model` without its sigmoid, sharing every layer: images `(n, h, w, c)` to float32 logits.

    Losses take these logits, so that none depends on Keras's record of an activation's input.
    """
    *_, features, head = model.layers
    return keras.Model(model.inputs[0], Logits(head)(features.output), name=f"{model.name}_logits")


class LayerRow(NamedTuple):
    """One built layer: `output_shape` without the batch axis, `macs` per image in the forward pass."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


def layer_rows(model: keras.Sequential) -> Iterator[LayerRow]:
    """Yield each layer's name, output shape, parameters and multiply-accumulates.

    A kernel is applied once at each output position, so its MACs are its size times the number of
    positions (1 for a dense layer); bias, pooling and activations are left out.
    """
    for layer in model.layers:
        shape = tuple(layer.output.shape[1:])
        macs = math.prod(shape[:-1]) * int(ops.size(layer.kernel)) if hasattr(layer, "kernel") else 0
        yield LayerRow(layer.name, shape, layer.count_params(), macs)


Loss = Callable[[Any, Any], Any]
EPSILON = 1e-7  # TensorFlow 2.0.0's `keras.backend.epsilon()`


def softmax(labels: Any, logits: Any) -> Any:
    """Cross-entropy of the softmax of the logits: the document's loss as Keras 3 on TensorFlow computes it."""
    labels, logits = ops.convert_to_tensor(labels), ops.cast(logits, "float32")
    if (len(labels.shape), len(logits.shape)) != (1, 2):
        raise ValueError(
            f"labels must be (n,) and logits (n, classes); got shapes {tuple(labels.shape)} and {tuple(logits.shape)}"
        )
    # A one-hot product, not a gather: its gradient is a multiplication, deterministic everywhere.
    picked = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype="float32")
    return ops.logsumexp(logits, axis=-1) - ops.sum(picked * logits, axis=-1)


def normalised_sigmoid(labels: Any, logits: Any) -> Any:
    """Cross-entropy of the normalised sigmoid, `-log(p[label] / sum(p))`: the loss that the document trained with.

    As in TensorFlow 2.0.0 (`keras.backend.sparse_categorical_crossentropy`), with
    `p = clip(sigmoid(logits), 1e-7, 1 - 1e-7)`. Where the clip acts, the gradient is zero. It is
    written with `where`, for backends disagree about the gradient of `clip` at its ends, which
    float32 sigmoids do reach.
    """
    p = ops.sigmoid(ops.cast(logits, "float32"))
    p = ops.where(p < EPSILON, EPSILON, ops.where(p > 1 - EPSILON, 1 - EPSILON, p))
    return softmax(labels, ops.log(p))


LOSSES: dict[str, Loss] = {"normalised_sigmoid": normalised_sigmoid, "softmax": softmax}
