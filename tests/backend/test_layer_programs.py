"""A layer's programs compute what the layer, its pullback and its optimizer do."""

import keras
import numpy as np
import pytest
from keras import ops

from alexnet_repro.backend import layer_programs
from alexnet_repro.backend.gradients import with_pullback
from alexnet_repro.backend.layer_programs import both_ways, one_way, update_program


@pytest.fixture
def layer():
    """A dense layer with ReLU, of five inputs and three outputs."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(3, "relu")
    layer.build((None, 5))
    return layer


def inputs():
    """Return two inputs."""
    return ops.convert_to_tensor(np.random.default_rng(0).standard_normal((2, 5)).astype("float32"))


def numpy_of(values):
    """Return every array, in order."""
    return [np.asarray(ops.convert_to_numpy(each)) for each in keras.tree.flatten(values)]


@pytest.mark.parametrize("xla", [False, True])
def test_forward(layer, xla):
    """Its output, at once and by each call."""
    program, output = one_way(layer, layer.trainable_variables, inputs(), xla=xla)
    expected = np.maximum(numpy_of(inputs())[0] @ numpy_of(layer.kernel)[0], 0)
    for found in (output, program()):
        np.testing.assert_allclose(numpy_of(found.detach() if hasattr(found, "detach") else found)[0], expected, 1e-5)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("by_input", [False, True])
def test_gradients(layer, xla, by_input):
    """Those of kernel and bias for an incoming gradient of ones, and where it is wanted that of the input."""
    x = inputs()
    y, pullback = with_pullback(layer, x)
    dx, by_weights = pullback(ops.ones_like(y))
    program = both_ways(layer, layer.trainable_variables, x, y, xla=xla, by_input=by_input)
    output, found = program()
    found = numpy_of(found)
    expected = numpy_of([*([dx] if by_input else []), *by_weights])
    assert len(found) == len(expected) == 2 + by_input
    for one in expected:  # in an order of the backend's own
        assert any(each.shape == one.shape and np.allclose(each, one, 1e-5, 1e-6) for each in found)
    np.testing.assert_allclose(
        numpy_of(output.detach() if hasattr(output, "detach") else output)[0], numpy_of(y)[0], 1e-5
    )


@pytest.mark.parametrize("xla", [False, True])
def test_update_leaves_weights(layer, xla):
    """By gradients of zero weights stay as they are, however often."""
    before = numpy_of([each.value for each in layer.trainable_variables])
    program = update_program(keras.optimizers.SGD(0.1), layer.trainable_variables, xla=xla)
    for _ in range(3):
        program()
    for old, new in zip(before, numpy_of([each.value for each in layer.trainable_variables]), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its own kernels: KERAS_BACKEND isn't tensorflow")
@pytest.mark.parametrize(("xla", "fused"), [(False, True), (True, False)])
def test_update_is_trainings(monkeypatch, layer, xla, fused):
    """On a CPU without XLA training updates by TensorFlow's kernel, and so does the program; with XLA neither does."""
    optimizer, graphs = keras.optimizers.SGD(0.1), []
    make = layer_programs._graph
    monkeypatch.setattr(
        layer_programs, "_graph", lambda *given, **named: graphs.append(make(*given, **named)) or graphs[0]
    )
    update_program(optimizer, layer.trainable_variables, xla=xla)()
    kinds = {each.type for each in graphs[0].get_concrete_function().graph.get_operations()}
    assert ("ResourceApplyGradientDescent" in kinds) == fused


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="of its compiler: KERAS_BACKEND isn't jax")
def test_update_has_no_constants(monkeypatch, layer):
    """What JAX compiles is given the gradients: as constants of a program those of a large layer take 100 MB."""
    import jax

    closed_over, jit = [], jax.jit

    def spy(function, **options):
        def call(*given):
            closed_over.extend(jax.make_jaxpr(function)(*given).consts)
            return jit(function, **options)(*given)

        return call

    monkeypatch.setattr(jax, "jit", spy)
    update_program(keras.optimizers.SGD(0.1), layer.trainable_variables, xla=True)()
    assert [each.shape for each in closed_over if each.size > 1] == []
