"""Small patches around the real code path, for the catalogue: each takes pytest's `monkeypatch` and does its harm."""

import functools

import keras
import numpy as np
from keras import ops

from alexnet_repro.backend import cpu_layers, xla_layers


def before(owner, name, change):
    """Change the arguments of a function or method: `change` takes and returns them."""

    def inject(patch):
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *arguments, **options: original(*change(*arguments), **options))

    return inject


def after(owner, name, change):
    """Change what a function or method returns."""

    def inject(patch):
        original = getattr(owner, name)
        patch.setattr(owner, name, lambda *arguments, **options: change(original(*arguments, **options)))

    return inject


def instead(owner, name, replacement):
    """Put something else in its place."""
    return lambda patch: patch.setattr(owner, name, replacement)


def in_layer(name, fault):
    """Change what one layer of every model computes: `fault` takes the layer's own call, and its input."""

    def inject(patch):
        layers = keras.layers
        calls = [(kind, "call") for kind in (layers.Conv2D, layers.Dense, layers.MaxPooling2D, layers.Dropout)]
        ours = [(xla_layers, "_rectified_convolution"), (xla_layers, "_max_pooling"), (cpu_layers, "_dense")]
        for owner, place in (*calls, *ours):
            original = getattr(owner, place)

            @functools.wraps(original)  # Keras gives `training` only where a signature has it
            def call(self, x, *arguments, original=original, **options):
                def own(x):
                    return original(self, x, *arguments, **options)

                return fault(own, x) if self.name == name else own(x)

            patch.setattr(owner, place, call)

    return inject


def in_weights(path, change):
    """Change one weight array between the host and the device: `change` takes and returns it."""

    def inject(patch):
        original = keras.Model.set_weights

        def set_weights(self, weights):
            original(self, weights)
            for variable in self.trainable_variables:
                if variable.path.endswith(path):
                    variable.assign(change(np.array(ops.convert_to_numpy(variable.value))))

        patch.setattr(keras.Model, "set_weights", set_weights)

    return inject


def built_with(kind, name, **changes):
    """Build one layer of every model with other arguments."""

    def inject(patch):
        original = getattr(keras.layers, kind)

        def build(*arguments, **options):
            if options["name"] == name:
                given = dict(
                    zip(("filters", "kernel_size") if kind == "Conv2D" else ("pool_size",), arguments, strict=False)
                )
                return original(**{**given, **options, **changes})
            return original(*arguments, **options)

        patch.setattr(keras.layers, kind, build)

    return inject


def on_call(owner, name, number, harm):
    """Do harm once, when a method is called for the given time: `harm` takes the method's `self`."""

    def inject(patch):
        original, calls = getattr(owner, name), []

        def counted(self, *arguments, **options):
            calls.append(self)
            result = original(self, *arguments, **options)
            if len(calls) == number:
                harm(self)
            return result

        patch.setattr(owner, name, counted)

    return inject


def flip(array, bit, place=None):
    """Return float32 values with one bit flipped: at a place, or else in the value of middling size."""
    flat = np.ascontiguousarray(array, np.float32).ravel().copy()
    place = int(np.argsort(np.abs(flat))[flat.size // 2]) if place is None else place
    flat.view(np.uint32)[place] ^= np.uint32(1 << bit)
    return flat.reshape(array.shape)


def flipped(bit):
    """Return a layer's fault that flips one bit of the largest value of its output; gradients pass as they are."""

    def fault(call, x):
        y = call(x)
        return y + ops.stop_gradient(_flip_largest(y, bit) - y)

    return fault


def _flip_largest(y, bit):
    flat = ops.reshape(ops.stop_gradient(y), (-1,))
    mask = ops.cast(ops.equal(ops.arange(flat.shape[0]), ops.argmax(flat)), "int32")
    pattern = np.array(1 << bit, np.uint32).astype(np.int32)
    return ops.reshape(ops.view(ops.bitwise_xor(ops.view(flat, "int32"), mask * pattern), "float32"), y.shape)


def gradient_times(factor):
    """Return a layer's fault that leaves its values and multiplies one element's gradient by its input.

    By -1 it is a flipped sign, by a power of two flipped exponent bits.
    """

    def fault(call, x):
        wrong = np.zeros(x.shape, np.float32)
        wrong[-1, ..., 3] = factor - 1
        return call(x + wrong * (x - ops.stop_gradient(x)))

    return fault


def output_gradient_times(factor):
    """Return a layer's fault that leaves its values and multiplies the gradient by its output."""

    def fault(call, x):
        y = call(x)
        return y + (factor - 1) * (y - ops.stop_gradient(y))

    return fault


def when_compiled(fault):
    """Return a layer's fault that is there in what XLA compiles alone."""

    def compiled(call, x):
        import tensorflow as tf
        from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

        return fault(call, x) if GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()) else call(x)

    return compiled


def plus(delta):
    """Return a layer's fault that adds something to one element of its output."""

    def fault(call, x):
        y = call(x)
        wrong = np.zeros(y.shape, np.float32)
        wrong[(1,) + (-1,) * (len(y.shape) - 2) + (5,)] = delta
        return y + wrong

    return fault


def shifted(call, x):
    """Pad one pixel too far up."""
    return call(ops.pad(x, [(0, 0), (1, 0), (0, 0), (0, 0)])[:, :-1])


def eleven_bits(x):
    """Return float32 values rounded to 11 bits (Veltkamp), as TensorFloat-32 does."""
    large = x * np.float32(2**13 + 1)
    return large - (large - x)


def average_gradient(call, x):
    """Pool so that gradients are spread over the window, not routed to the largest."""
    average = ops.average_pool(x, 3, 2, data_format="channels_last")
    return call(ops.stop_gradient(x)) + (average - ops.stop_gradient(average))


def sum_in_another_order_each_time(patch):
    """Have a dense layer add its sum in eight parts, in an order that moves on with each call."""
    turn = keras.Variable(0, dtype="int32", trainable=False)
    for owner, place in ((keras.layers.Dense, "call"), (cpu_layers, "_dense")):
        original = getattr(owner, place)

        def call(self, x, *arguments, original=original, **options):
            if self.name != "dense_1":
                return original(self, x, *arguments, **options)
            turn.assign(turn + 1)
            parts = ops.roll(ops.stack([ops.matmul(x[:, i::8], self.kernel[i::8]) for i in range(8)]), turn, axis=0)
            total = parts[0]
            for i in range(1, 8):
                total = total + parts[i]
            return self.activation(total + self.bias)

        patch.setattr(owner, place, call)
