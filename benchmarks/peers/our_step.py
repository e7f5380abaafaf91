"""This package's own throughput in the peers' form, on a GPU if there is one, else on the CPU.

    KERAS_BACKEND=tensorflow python -m benchmarks.peers.our_step [--what "train step"] [--batch 128 512]
        [--precision mixed_bfloat16] [--xla auto off]

Prints one line of JSON per case, on Keras's JAX and PyTorch backends too. XLA `auto` is as Keras decides. Memory is the
device's, at its peak; on JAX, and on a CPU, that of all cases so far, which one case alone doesn't share. Forward takes
images at the network's own size. The train step, the one that `train` uses, takes 28x28 images by their indices,
resizes them and reports accuracy, which PyTorch's here doesn't.
"""

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro import DataLoader, Recipe, best_train_step, build_alexnet, synthetic_fashion, train
from alexnet_repro.backend.devices import gpu_names, predictor, synchronize
from alexnet_repro.backend.memory import enable_memory_growth, free_memory, peak_memory, reset_peak_memory
from alexnet_repro.backend.precision import PRECISIONS
from alexnet_repro.backend.precision import precision as numerics
from alexnet_repro.verify.benchmark.calibration import PRODUCTS, matmul_rate
from alexnet_repro.verify.checks.memory import is_out_of_memory
from benchmarks.peers.timed import Rows, cases, reason, say, step_seconds

XLA: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}
DEVICE = (*enable_memory_growth(), "cpu:0")[0]
KIND, BACKEND = DEVICE.partition(":")[0], keras.backend.backend()
LOADER = DataLoader.from_arrays(*synthetic_fashion(), seed=0)  # speed doesn't depend on what images show
CASE = {
    "device": gpu_names()[0] if KIND == "gpu" else "cpu",
    "backend": BACKEND,
    BACKEND: sys.modules[BACKEND].__version__,
    "keras": keras.__version__,
    "python": platform.python_version(),
}
Timed = Iterator[tuple[str, str, list[float]]]
"""What was timed, its configuration, and the seconds of each round."""


def recipe(batch: int, updates: int = 1) -> Recipe:
    """Return the documented recipe, as `updates` of one batch size."""
    documented = dataclasses.replace(Recipe.documented(), epochs=1, preliminary_draws=0, save_every=None)
    return dataclasses.replace(documented, draw_size=batch, batch_size=batch, draws_per_epoch=updates)


def in_turns(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of each round of both, after two that warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(2 + rounds):
        for work, each in zip((first, second), seconds, strict=True):
            start = time.perf_counter()
            synchronize(work())
            each.append(time.perf_counter() - start)
    return seconds[0][2:], seconds[1][2:]


def forward(batch: int, xla: bool | str, rows: Rows) -> Timed:
    """Time inference."""
    model = build_alexnet(for_xla=None if xla == "auto" else bool(xla))
    if xla != "auto":
        model.jit_compile = xla
    predict, images = predictor(model), ops.convert_to_tensor(LOADER.get_batch_train(batch)[0])
    seconds = step_seconds(lambda: predict(images), synchronize, rows)
    yield "forward", f"Keras, XLA {'on' if model.jit_compile else 'off'}", seconds


def train_step(batch: int, xla: bool | str, rows: Rows) -> Timed:
    """Time the train step that `train` uses, on the same batches each time."""
    model = build_alexnet(for_xla=None if xla == "auto" else bool(xla))
    step = best_train_step(model, LOADER, recipe(batch), jit_compile=xla)
    updates = step.updates_per_call
    indices = LOADER.draw_train_indices(updates * batch).reshape(updates, batch)
    seconds = step_seconds(lambda: step(indices), synchronize, rows, updates)
    if not np.isfinite(step(indices)[0][-1]):
        raise ValueError("the loss isn't finite")
    yield "train step", f"Keras, XLA {'on' if step.classifier.jit_compile else 'off'}, {updates} per call", seconds


def loop(batch: int, _: bool | str, rows: Rows) -> Timed:
    """Time `train` and its own train step on fixed batches, in turns: as many updates each as one call makes."""
    model = build_alexnet()
    step = best_train_step(model, LOADER, recipe(batch))
    updates = step.updates_per_call
    several = recipe(batch, updates)
    indices = LOADER.draw_train_indices(updates * batch).reshape(updates, batch)
    found = in_turns(
        lambda: train(model, LOADER, several, step=step, progress=False).losses, lambda: step(indices), 2 * rows.rounds
    )
    for what, seconds in zip(("training loop, per update", "bare step in turns with it"), found, strict=True):
        yield what, f"{updates} per call", [each / updates for each in seconds]


def four(batch: int, _: bool | str, rows: Rows) -> Timed:
    """Time what the document's own loop does with 128 images: four updates of 32."""
    model, documented = build_alexnet(), dataclasses.replace(recipe(batch), batch_size=32)
    step, rows = best_train_step(model, LOADER, documented), rows._replace(steps=1)
    seconds = step_seconds(
        lambda: train(model, LOADER, documented, step=step, progress=False).losses, synchronize, rows
    )
    yield f"training loop, {batch // 32} updates of 32", "", seconds


def drawing(batch: int, _: bool | str, rows: Rows) -> Timed:
    """Time a resized batch on the device and the document's own, in turns; on TensorFlow."""
    import tensorflow as tf

    from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

    step = TensorFlowTrainStep(build_alexnet(kernel_initializer="zeros"), LOADER, Recipe.documented())
    train_images = LOADER.train_images

    def as_in_the_document() -> Any:
        index = np.random.randint(0, LOADER.num_train, batch)  # noqa: NPY002 - as documented
        return tf.image.resize_with_pad(train_images[index], 224, 224).numpy()

    theirs, ours = in_turns(as_in_the_document, lambda: step.batch(LOADER.draw_train_indices(batch)), 4 * rows.rounds)
    yield "the document's get_batch_train, in turns with the next", "", theirs
    yield "a resized batch on the device, as training makes it", "", ours


WORK = {"forward": forward, "train step": train_step, "loop": loop, "four": four, "drawing": drawing}


def measure(batch: int, what: str, precision: str, xla: str, rows: Rows) -> None:
    """Print a case, or why it failed; all but forward and the train step only as Keras decides about XLA."""
    if xla != "auto" and what not in {"forward", "train step"}:
        return
    if what == "drawing" and (precision != "float32" or BACKEND != "tensorflow"):
        return
    failed = None
    with numerics(precision):
        keras.utils.set_random_seed(0)
        reset_peak_memory(DEVICE)
        try:
            if what == "product":
                rate = max(matmul_rate(DEVICE, precision, shape) for shape in PRODUCTS[KIND])
                say(what, 1, [], precision=precision, **CASE, rate=rate)
                return
            for name, configuration, seconds in WORK[what](batch, XLA[xla], rows):
                memory = {"peak memory, bytes": peak_memory(DEVICE)}
                say(name, batch, seconds, precision=precision, configuration=configuration, **CASE, **memory)
        except Exception as error:  # noqa: BLE001 - the other cases still run
            failed = "doesn't fit into the device's memory" if is_out_of_memory(error) else reason(error)
    if failed:
        say(what, batch, [], precision=precision, configuration=f"{what}, XLA {xla}", **CASE, failed=failed)
    free_memory()


def main() -> None:
    """Measure the cases of the command line."""
    precisions, work = ("float32", "mixed_bfloat16"), (*WORK, "product")
    chosen = cases(__doc__, KIND, what=(work, work), precision=(PRECISIONS, precisions), xla=(XLA, ("auto",)))
    for batch, what, precision, xla, rows in chosen:
        measure(batch, what, precision, xla, rows)


if __name__ == "__main__":
    main()
