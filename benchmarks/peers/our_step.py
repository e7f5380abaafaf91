"""This package's own figures in the same form: forward, train step, the training loop, drawing, and the matmul rate.

    KERAS_BACKEND=tensorflow python benchmarks/peers/our_step.py [ROUNDS] [BATCH]

Prints the seconds of each round as JSON, a line a case. On Keras's JAX and PyTorch backends too.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro import DataLoader, Recipe, best_step, build_alexnet, synthetic_fashion, train
from alexnet_repro.hardware.calibrate import matmul_rate
from alexnet_repro.hardware.devices import free_memory, synchronise
from alexnet_repro.hardware.precision import precision as numerics
from alexnet_repro.network import compiled_network

ROUNDS, BATCH = (int(text) for text in (*sys.argv[1:], *("5", "128")[len(sys.argv) - 1 :]))
LOADER = DataLoader.from_arrays(*synthetic_fashion(), seed=0)


def timed(work: Callable[[], Any], rounds: int = ROUNDS) -> list[float]:
    """Return the seconds of each round but the first two."""
    seconds = []
    for _ in range(2 + rounds):
        start = time.perf_counter()
        synchronise(work())
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def say(what: str, seconds: list[float], **more: object) -> None:
    """Print a case."""
    case = {"backend": keras.backend.backend(), "keras": keras.__version__, "batch": BATCH}
    print(json.dumps({"what": what, **case, **more, "seconds": seconds}), flush=True)


def measure(precision: str) -> None:
    """Time everything in one precision."""
    documented = Recipe.documented()
    step_of_batch = dataclasses.replace(documented, draw_size=BATCH, batch_size=BATCH)
    model = build_alexnet()
    images = ops.convert_to_tensor(LOADER.get_batch_train(BATCH)[0])
    say("forward", timed(lambda: model.predict_on_batch(images)), precision=precision)
    network = compiled_network(model, step_of_batch)
    batch = [ops.convert_to_tensor(array) for array in LOADER.draw_train(BATCH)]
    say("train step", timed(lambda: network.train_on_batch(*batch)), precision=precision)

    # The training loop against the bare step on resident data, in turns: each turn is one of either.
    recipe = dataclasses.replace(step_of_batch, epochs=1, draws_per_epoch=1, preliminary_draws=0, save_every=None)

    step = best_step(model, LOADER, recipe)
    train(model, LOADER, recipe, step=step, progress=False)  # compiles
    loops, bare = [], []
    for _ in range(2 * ROUNDS):
        start = time.perf_counter()
        train(model, LOADER, recipe, step=step, progress=False)
        synchronise()
        loops.append(time.perf_counter() - start)
        start = time.perf_counter()
        network.train_on_batch(*batch)
        synchronise()
        bare.append(time.perf_counter() - start)
    say("training loop, an update", loops, precision=precision)
    say("bare step in turns with it", bare, precision=precision)

    four = dataclasses.replace(documented, epochs=1, draws_per_epoch=1, preliminary_draws=0, save_every=None)
    updates = best_step(model, LOADER, four)
    say(
        "training loop, four updates of 32",
        timed(lambda: train(model, LOADER, four, step=updates, progress=False).images),
        precision=precision,
    )
    rate = matmul_rate("cpu:0", precision, (4096, 4096, 4096))
    say("product of 4096 x 4096", [2 * 4096**3 / rate], precision=precision)


for name in ("float32", "mixed_bfloat16"):
    with numerics(name):
        keras.utils.set_random_seed(0)
        measure(name)
    free_memory()
say("get_batch_train as documented", timed(lambda: LOADER.get_batch_train(BATCH)[1]))
say("draw_train, as training takes it", timed(lambda: LOADER.draw_train(BATCH)[1]))
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    from alexnet_repro.distributed import TensorFlowStep

    step = TensorFlowStep(build_alexnet(kernel_initializer="zeros"), LOADER, Recipe.documented())
    train_images = LOADER.train_images

    def as_in_the_document() -> Any:
        """Return a resized batch as the document's own `get_batch_train` makes it."""
        index = np.random.randint(0, LOADER.num_train, BATCH)  # noqa: NPY002 - as documented
        return tf.image.resize_with_pad(train_images[index], 224, 224).numpy()

    def as_training_does() -> Any:
        """Return a resized batch on the device."""
        return step.batch(LOADER.draw_train_indices(BATCH))

    rounds = [(timed(as_in_the_document, 1), timed(as_training_does, 1)) for _ in range(4 * ROUNDS)]
    say("the document's get_batch_train, in turns with the next", [one for (one,), _ in rounds])
    say("a resized batch on the device, as training makes it", [one for _, (one,) in rounds])
