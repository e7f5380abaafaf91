"""Faults that machines and programs have, each with the check that must fail and words of its message."""

import dataclasses
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import ops

import alexnet_repro.data.resize
import alexnet_repro.training.weights
from alexnet_repro.backend import precision
from alexnet_repro.data import loader
from alexnet_repro.data.loader import DataLoader
from alexnet_repro.model import LOSSES, Logits
from alexnet_repro.training import classifier as classifier_module
from alexnet_repro.training.recipe import Recipe
from alexnet_repro.verify.checks import data, memory
from alexnet_repro.verify.numerics.replay import Replay
from tests.faults.tools import (
    after,
    average_gradient,
    before,
    built_with,
    eleven_bits,
    flip,
    flipped,
    gradient_times,
    in_layer,
    in_weights,
    instead,
    on_call,
    output_gradient_times,
    plus,
    shifted,
    sum_in_another_order_each_time,
    when_compiled,
)

# Of float32's 32 bits: the sign, a middle one of the exponent, the highest and the lowest of the mantissa.
SIGN, EXPONENT, MANTISSA, LOWEST = 31, 25, 22, 0


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault."""

    name: str
    check: str
    """The one check that must fail."""
    words: tuple[str, ...]
    """Of its message."""
    inject: Callable


def bit_off(bit):
    """Return what flips a bit of one weight."""
    return lambda weights: flip(weights, bit)


def update_flipped(bit):
    """One bit of one weight flips in each optimizer update."""

    def inject(patch):
        original = keras.optimizers.SGD.update_step

        def update_step(self, gradient, variable, learning_rate):
            original(self, gradient, variable, learning_rate)
            if len(variable.shape) == 2 and variable.shape[0] == variable.shape[1]:  # of dense_1
                flat = ops.reshape(ops.convert_to_tensor(variable), (-1,))
                mask = ops.cast(ops.equal(ops.arange(flat.shape[0]), 12_345), "int32")
                bits = ops.bitwise_xor(ops.view(flat, "int32"), mask * np.array(1 << bit, np.uint32).astype(np.int32))
                variable.assign(ops.reshape(ops.view(bits, "float32"), variable.shape))

        patch.setattr(keras.optimizers.SGD, "update_step", update_step)

    return inject


def in_train_step(inject):
    """Do harm to TensorFlow's train step: `inject` takes its class, imported late for the sake of other backends."""

    def late(patch):
        from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

        inject(TensorFlowTrainStep)(patch)

    return late


def weight_flipped_once(bit):
    """One bit of one weight flips once, in the second run of a replay of two steps."""

    def harm(step):
        weights = step.classifier.trainable_variables
        kernel = next(each for each in weights if each.path.endswith("conv2d_2/kernel"))
        kernel.assign(flip(np.array(ops.convert_to_numpy(kernel.value)), bit))

    return in_train_step(lambda owner: on_call(owner, "__call__", 4, harm))


def bad_sample(owner, name, value):
    """Of a batch the eleventh row, where there is one, isn't finite."""

    def change(tensor):
        at = ops.reshape(ops.equal(ops.arange(ops.shape(tensor)[0]), 10), (-1,) + (1,) * (len(tensor.shape) - 1))
        return ops.where(at, value, tensor)

    return after(owner, name, change)


def raises(owner, name, when, error):
    """A call fails, as it does when a GPU is lost or full."""

    def inject(patch):
        original, calls = getattr(owner, name), itertools.count(1)

        def call(self, *arguments, **options):
            if when(next(calls), arguments):
                raise error
            return original(self, *arguments, **options)

        patch.setattr(owner, name, call)

    return inject


class InternalError(Exception):
    """What TensorFlow raises for a CUDA error."""


class ResourceExhaustedError(Exception):
    """What TensorFlow raises where there is no memory left."""


LOST = InternalError("CUDA_ERROR_UNKNOWN: GPU is lost: failed to synchronize the stop event")
FULL = ResourceExhaustedError("OOM when allocating tensor with shape[20,54,54,96] on /device:GPU:0")


def stuck_worker(patch):
    """A draw that is made in another thread than the main one never comes back."""
    original = DataLoader.draw_train

    def draw(self, batch_size):
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        return original(self, batch_size)

    patch.setattr(DataLoader, "draw_train", draw)
    patch.setattr(data, "MAX_DRAW_SECONDS", 0.3)


def tf32(patch):
    """Operands of one convolution lose bits, which no setting allows."""
    in_weights("conv2d/kernel", eleven_bits)(patch)
    in_layer("conv2d", lambda call, x: call(eleven_bits(x)))(patch)


def dropout_follows_recipe_in_evaluation(self, images, training=False):  # noqa: ARG001
    """Call the network with dropout on, whether it trains or not."""
    return self.logits(self.pixels(images), training=self.dropout)


def unscaled(self, images):
    """Return pixels from 0 to 255."""
    return classifier_module.resize_with_pad(images, *self.size)


def stale(self, target):
    """Leave a file that is there as it is."""
    if not target.exists():
        self.rename(target)


def ten_times_the_rate(optimizer):
    """Return an optimizer that learns ten times as fast."""
    optimizer.learning_rate = 10 * float(optimizer.learning_rate)
    return optimizer


def shuffled(drawn):
    """Return images with the labels of others."""
    images, labels = drawn
    return images, np.roll(labels, 1)


def mirrored(drawn):
    """Return images left to right."""
    images, labels = drawn
    return images[:, :, ::-1], labels


def class_9_as_0(drawn):
    """Return images with the label 0 where it should be 9."""
    images, labels = drawn
    return images, np.where(labels == 9, 0, labels)


def over_256(images):
    """Return pixels over one more than the largest."""
    return images.astype(np.float32) / np.float32(256)


def rounded_up(axes):
    """Return the place of the content with the extra row or column of odd padding above or at the left."""

    def place(axis):
        odd = (len(axis.inside) - axis.inside.sum()) % 2
        return type(axis)(*(np.roll(each, odd) for each in axis))

    return tuple(map(place, axes))


def twice_the_loss(step):
    """Have a train step double its loss."""
    once = step._loss
    step._loss = lambda labels, logits: 2 * once(labels, logits)


def a_pixel_down(axes):
    """Return the place of the content one row too low, where rows are padded."""
    rows, columns = axes
    return rows if rows.inside.all() else type(rows)(*(np.roll(each, 1) for each in rows)), columns


def one_bit_in_memory(tensor):
    """Return a block with one bit off."""
    wrong = np.array(ops.convert_to_numpy(tensor))
    wrong[wrong.size // 3] ^= 4
    return ops.convert_to_tensor(wrong)


def a_byte_lost(tensor):
    """Return a copy with one byte missing."""
    wrong = np.array(ops.convert_to_numpy(tensor))
    wrong[wrong.size // 2] ^= 0xFF
    return ops.convert_to_tensor(wrong)


FAULTS = [
    Fault("weight-sign", "layers", ("conv2d_2 output",), in_weights("conv2d_2/kernel", bit_off(SIGN))),
    Fault("weight-exponent", "layers", ("conv2d_3 output",), in_weights("conv2d_3/kernel", bit_off(EXPONENT))),
    Fault("weight-mantissa", "layers", ("conv2d_2 output",), in_weights("conv2d_2/kernel", bit_off(MANTISSA))),
    Fault("weight-lowest-bit-once", "replay", ("conv2d_2/kernel", "replay 2"), weight_flipped_once(LOWEST)),
    Fault("activation-sign", "layers", ("conv2d_4 output",), in_layer("conv2d_4", flipped(SIGN))),
    Fault("activation-exponent", "layers", ("dense output",), in_layer("dense", flipped(EXPONENT))),
    Fault("activation-mantissa", "layers", ("conv2d_1 output",), in_layer("conv2d_1", flipped(MANTISSA))),
    Fault("gradient-sign", "layers", ("dense_1 input gradient",), in_layer("dense_1", gradient_times(-1.0))),
    Fault("gradient-exponent", "layers", ("conv2d_3 input gradient",), in_layer("conv2d_3", gradient_times(2.0**16))),
    Fault("gradient-mantissa", "layers", ("dense_1 input gradient",), in_layer("dense_1", gradient_times(1.5))),
    Fault(
        "gradient-compiled",
        "compiled_layers",
        ("conv2d_3 kernel gradient",),
        in_layer("conv2d_3", when_compiled(output_gradient_times(1.3))),
    ),
    Fault("update-sign", "update", ("dense_1/kernel at", "old weight plus its update"), update_flipped(SIGN)),
    Fault("update-exponent", "update", ("dense_1/kernel at", "old weight plus its update"), update_flipped(EXPONENT)),
    Fault("update-mantissa", "update", ("dense_1/kernel at", "old weight plus its update"), update_flipped(1)),
    Fault("matmul-one-element", "layers", ("dense output",), in_layer("dense", plus(1.0))),
    Fault("pooling-one-element", "layers", ("max_pooling2d_1 output",), in_layer("max_pooling2d_1", plus(1e-5))),
    Fault(
        "pooling-gradient", "layers", ("max_pooling2d_1 input gradient",), in_layer("max_pooling2d_1", average_gradient)
    ),
    Fault("bias-dropped", "layers", ("conv2d_3 output",), in_weights("conv2d_3/bias", lambda b: 0 * b)),
    Fault("padding-of-convolution", "layers", ("conv2d_1 output",), in_layer("conv2d_1", shifted)),
    Fault("padding-of-resize", "resize", ("resizing 14x28",), after(alexnet_repro.data.resize, "_axes", a_pixel_down)),
    Fault("padding-rounded-up", "resize", ("resizing 27x32",), after(alexnet_repro.data.resize, "_axes", rounded_up)),
    Fault("loader-over-256", "resize", ("the loader's batch",), instead(loader, "_unit", over_256)),
    Fault(
        "kernel-transposed", "layers", ("conv2d_2 output",), in_weights("conv2d_2/kernel", lambda w: w.swapaxes(0, 1))
    ),
    Fault("stride", "shapes", ("conv2d isn't",), built_with("Conv2D", "conv2d", strides=3)),
    Fault(
        "pool-size", "shapes", ("max_pooling2d_1 isn't",), built_with("MaxPooling2D", "max_pooling2d_1", pool_size=2)
    ),
    Fault("channels", "shapes", ("conv2d_3 isn't",), built_with("Conv2D", "conv2d_3", filters=383)),
    Fault("tf32-unasked", "layers", ("conv2d output", "TensorFloat-32 explains it"), tf32),
    Fault(
        "bfloat16-unasked",
        "layers",
        ("conv2d output",),
        lambda patch: patch.setitem(precision.PRECISIONS, "float32", ("mixed_bfloat16", False)),
    ),
    Fault("nan-in-one-sample", "learning", ("loss is nan at update 1",), bad_sample(Logits, "call", float("nan"))),
    Fault("inf-in-one-sample", "learning", ("loss is nan at update 1",), bad_sample(Logits, "call", float("inf"))),
    Fault(
        "nan-hidden-by-relu",
        "learning",
        ("isn't finite after 4 updates",),
        bad_sample(classifier_module, "resize_with_pad", float("nan")),
    ),
    Fault(
        "loss-swapped",
        "layers",
        ("normalised_sigmoid loss",),
        lambda patch: patch.setitem(LOSSES, "normalised_sigmoid", LOSSES["softmax"]),
    ),
    Fault(
        "loss-doubled",
        "update",
        ("loss is",),
        in_train_step(lambda owner: on_call(owner, "__init__", 1, twice_the_loss)),
    ),
    Fault(
        "gradient-doubled",
        "update",
        ("2 times as long",),
        before(keras.optimizers.SGD, "update_step", lambda self, gradient, *rest: (self, 2 * gradient, *rest)),
    ),
    Fault(
        "dropout-off-in-training",
        "dropout",
        ("does nothing in training",),
        instead(keras.layers.Dropout, "call", lambda self, x, training=False: x),  # noqa: ARG005
    ),
    Fault(
        "dropout-on-in-evaluation",
        "dropout",
        ("in evaluation",),
        instead(classifier_module.Classifier, "call", dropout_follows_recipe_in_evaluation),
    ),
    Fault(
        "dropout-rate",
        "dropout",
        ("should be 2 and 0.5",),
        before(keras.src.backend.random, "dropout", lambda x, _rate: (x, 0.4)),
    ),
    Fault("images-unscaled", "update", ("loss is",), instead(classifier_module.Classifier, "pixels", unscaled)),
    Fault("learning-rate", "update", ("10 times as long",), after(Recipe, "build_optimizer", ten_times_the_rate)),
    Fault("labels-shuffled", "image_labels", ("don't match their labels",), after(DataLoader, "draw_train", shuffled)),
    Fault(
        "labels-of-one-class",
        "image_labels",
        ("of class 9 have other labels",),
        after(DataLoader, "draw_train", class_9_as_0),
    ),
    Fault("images-mirrored", "image_labels", ("are mirrored",), after(DataLoader, "draw_train", mirrored)),
    Fault("pipeline-stuck", "pipeline", ("stuck", "0.3 s"), stuck_worker),
    Fault(
        "checkpoint-stale",
        "checkpoint",
        ("file is stale",),
        instead(alexnet_repro.training.weights, "Path", type("Stale", (type(Path()),), {"replace": stale})),
    ),
    Fault(
        "gpu-lost",
        "replay",
        ("GPU is lost",),
        raises(Replay, "_step", lambda number, _: number == 3, LOST),
    ),
    Fault(
        "out-of-memory",
        "learning",
        ("ran out of memory", "OOM when allocating"),
        in_train_step(lambda owner: raises(owner, "__call__", lambda _, given: given[0].shape[1] == 20, FULL)),
    ),
    Fault("reduction-order", "replay", ("differs from the first run",), sum_in_another_order_each_time),
    Fault("copy-one-byte", "copies", ("1 of 67108864 bytes",), after(memory, "moved", a_byte_lost)),
]
