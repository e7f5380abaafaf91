"""Every train step makes the same updates: Keras's own, and TensorFlow's, which loops over batches by itself."""

import dataclasses
from itertools import product
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from alexnet_repro import DataLoader, KerasTrainStep, Recipe, best_train_step, build_alexnet, synthetic_fashion
from alexnet_repro.backend.precision import precision as numerics

pytestmark = pytest.mark.usefixtures("narrow")


def made(kind, precision, recipe, parts):
    """Return losses and accuracies of five updates, made in `parts` calls, and every variable after them.

    On sides of 112 pixels: four times 28, so that resizing is exact.
    """
    batch = 1 if precision == "mixed_float16" else 8  # whose convolutions take a CPU seconds an image
    recipe = dataclasses.replace(getattr(Recipe, recipe)(), draw_size=batch, batch_size=batch, dropout=True)
    loader = DataLoader.from_arrays(*synthetic_fashion(64, 1, seed=0), seed=0)
    with numerics(precision):
        keras.utils.set_random_seed(0)
        step = kind(build_alexnet((112, 112, 1)), loader, recipe)
        drawn = np.stack([loader.draw_train_indices(batch) for _ in range(5)])
        results = [np.asarray(step(part), np.float32) for part in np.array_split(drawn, parts)]
    return np.concatenate(results, axis=1), [keras.ops.convert_to_numpy(each) for each in step.variables]


def resident(model, loader, recipe):
    """Return the step that keeps the data set on the device, as it does by default on GPUs alone."""
    if keras.backend.backend() != "tensorflow":
        return best_train_step(model, loader, recipe)
    from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

    return TensorFlowTrainStep(model, loader, recipe, resident=True)


@pytest.mark.parametrize(
    ("kind", "precision", "recipe"),
    [
        (resident, "float32", "quick"),
        (best_train_step, "float32", "documented"),
        *(
            pytest.param(
                best_train_step,
                *each,
                id=f"kind=best_train_step-precision={each[0]}-recipe={each[1]}",
                marks=pytest.mark.slow,
            )
            for each in product(("float32", "mixed_bfloat16", "mixed_float16"), ("quick", "documented"))
            if each != ("float32", "documented")
        ),
    ],
    ids=lambda value: f"kind={value.__name__}" if callable(value) else None,
)
def test_every_step_is_kerass(kind, precision, recipe):
    """Each step gives what Keras's own gives, bit for bit, weights, optimizer and dropout included."""
    (losses, accuracies), variables = made(KerasTrainStep, precision, recipe, 5)
    (same_losses, same_accuracies), same_variables = made(kind, precision, recipe, 2)
    np.testing.assert_array_equal(losses, same_losses)
    np.testing.assert_array_equal(accuracies, same_accuracies)
    for one, other in zip(variables, same_variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({*losses}) == 5


@pytest.mark.parametrize("kind", [KerasTrainStep, best_train_step], ids=lambda kind: f"kind={kind.__name__}")
def test_options(kind):
    """A train step takes an optimizer instead of the recipe's, and whether XLA compiles it."""
    loader = DataLoader.from_arrays(*synthetic_fashion(8, 1, seed=0), seed=0)
    model, optimizer = build_alexnet((67, 67, 1), kernel_initializer="zeros"), keras.optimizers.SGD(0.5)
    step = kind(model, loader, Recipe.quick(), optimizer=optimizer, jit_compile=False)
    assert step.classifier.optimizer is optimizer
    assert step.classifier.jit_compile is False


@pytest.mark.parametrize("kind", [KerasTrainStep, best_train_step], ids=lambda kind: f"kind={kind.__name__}")
def test_all_that_changes_is_kept(kind):
    """What checkpoints keep of a step: weights, dropout's generators, and the optimizer's state."""
    loader = DataLoader.from_arrays(*synthetic_fashion(8, 1, seed=0), seed=0)
    recipe = dataclasses.replace(Recipe.documented(), optimizer_arguments={"momentum": 0.9})
    step = kind(build_alexnet((67, 67, 1), kernel_initializer="zeros"), loader, recipe)
    names = [each.name for each in step.variables]
    counts = {name: names.count(name) for name in ("kernel", "bias", "seed_generator_state", "iteration")}
    assert counts == {"kernel": 8, "bias": 8, "seed_generator_state": 2, "iteration": 1}
    assert sum("momentum" in name for name in names) == 16


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
def test_each_replica_takes_its_part(monkeypatch):
    """Of a batch of eight, four replicas take two images each, in their order."""
    import tensorflow as tf

    loader = DataLoader.from_arrays(*synthetic_fashion(8, 1, seed=0), seed=0)
    recipe = dataclasses.replace(Recipe.quick(), draw_size=8, batch_size=8)
    step, taken = best_train_step(build_alexnet((67, 67, 1), kernel_initializer="zeros"), loader, recipe), []
    monkeypatch.setattr(step, "_replicas", 4)
    monkeypatch.setattr(step, "_compiled_preprocess", lambda _, labels: taken.append(labels.tolist()) or 1 / 0)
    for replica in range(4):
        context = SimpleNamespace(replica_id_in_sync_group=replica)
        monkeypatch.setattr(tf.distribute, "get_replica_context", lambda context=context: context)
        with pytest.raises(ZeroDivisionError):
            step._update_replica(np.zeros((8, 28, 28, 1), np.uint8), np.arange(8))
    assert taken == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow")
def test_no_variable_of_int32():
    """TensorFlow keeps variables of int32 on the host, where what XLA compiles for a GPU can't read them: none is."""
    loader = DataLoader.from_arrays(*synthetic_fashion(8, 1, seed=0), seed=0)
    step = resident(build_alexnet((67, 67, 1), kernel_initializer="zeros"), loader, Recipe.quick())
    assert (step._images.dtype.name, step._labels.dtype.name) == ("uint8", "int64")
    images, labels = step._gather(np.array([3, 0]))
    assert labels.dtype.name == "int32"
    np.testing.assert_array_equal(labels, loader.train_labels[[3, 0]])
    np.testing.assert_array_equal(images, loader.all_train()[0][[3, 0]])


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the other backends' steps don't loop by themselves"
)
def test_no_update_waits_for_the_one_before():
    """Whether another update follows is one comparison of integers, which are on the host: no wait for a GPU."""
    loader = DataLoader.from_arrays(*synthetic_fashion(8, 1, seed=0), seed=0)
    model = build_alexnet((67, 67, 1), kernel_initializer="zeros")
    step = resident(model, loader, dataclasses.replace(Recipe.quick(), draw_size=2, batch_size=2))
    graph = step._compiled_updates.get_concrete_function().graph
    (loop,) = (each for each in graph.get_operations() if "While" in each.type)
    functions = {each.signature.name: each for each in graph.as_graph_def().library.function}
    condition = functions[loop.get_attr("cond").name]
    (comparison,) = (each for each in condition.node_def if each.op != "Identity")
    assert (comparison.op, comparison.attr["T"].type) == ("Less", 3)  # int32
