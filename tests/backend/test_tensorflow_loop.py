"""TensorFlow's loop: results in order, stacked."""

import keras
import numpy as np
import pytest


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
@pytest.mark.parametrize("count", [1, 3])
def test_results_in_order(count):
    """Each result is stacked by itself, in the order of the numbers."""
    import tensorflow as tf

    from alexnet_repro.backend.tensorflow_loop import mapped

    def squares(number):
        number = tf.cast(number, tf.float32)
        return number**2, tf.stack([number, -number])

    one, two = tf.function(lambda many: mapped(squares, many, results=2))(tf.constant(count))
    np.testing.assert_array_equal(one, [0.0, 1.0, 4.0][:count])
    np.testing.assert_array_equal(two, [[0.0, 0.0], [1.0, -1.0], [2.0, -2.0]][:count])
