"""This package's own throughput in the peers' form, on a GPU if there is one, else on the CPU.

    KERAS_BACKEND=tensorflow python -m benchmarks.peers.our_step [--what "train step"] [--batch 128 512]
        [--precision mixed_bfloat16] [--xla auto off]

Prints one line of JSON per case. On Keras's JAX and PyTorch backends too. Forward takes images at the network's own
size. The train step, the one that `train` uses, takes 28x28 images by their indices, resizes them and reports accuracy,
which PyTorch's here doesn't.
"""

import argparse
import dataclasses
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro import DataLoader, Recipe, best_train_step, build_alexnet, train
from alexnet_repro.backend.devices import gpu_names, predictor, synchronize
from alexnet_repro.backend.memory import enable_memory_growth, free_memory, peak_memory, reset_peak_memory
from alexnet_repro.backend.precision import PRECISIONS
from alexnet_repro.backend.precision import precision as numerics
from alexnet_repro.verify.benchmark.calibration import PRODUCTS, matmul_rate
from alexnet_repro.verify.checks.memory import is_out_of_memory
from benchmarks.peers.timed import Rows, arguments, of_device, say, seconds_a_step

XLA: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}
DEVICE = (*enable_memory_growth(), "cpu:0")[0]
KIND = DEVICE.partition(":")[0]
# Speed doesn't depend on what images show: random ones, as the other side's.
RANDOM = np.random.default_rng(0)
SETS = [
    (RANDOM.integers(0, 256, (n, 28, 28)).astype(np.uint8), RANDOM.integers(0, 10, n).astype(np.uint8))
    for n in (60_000, 10_000)
]
LOADER = DataLoader.from_arrays(*SETS, seed=0)
CASE = {
    "device": gpu_names()[0] if KIND == "gpu" else "cpu",
    "backend": keras.backend.backend(),
    keras.backend.backend(): sys.modules[keras.backend.backend()].__version__,
    "keras": keras.__version__,
    "python": platform.python_version(),
}


def recipe(batch: int, updates: int = 1) -> Recipe:
    """Return the documented recipe, as `updates` of one batch size."""
    documented = dataclasses.replace(Recipe.documented(), epochs=1, preliminary_draws=0, save_every=None)
    return dataclasses.replace(documented, draw_size=batch, batch_size=batch, draws_per_epoch=updates)


def rate(precision: str) -> float:
    """Return the best rate of the device's products, in FLOP/s."""
    return max(matmul_rate(DEVICE, precision, shape) for shape in PRODUCTS[KIND])


def wait(result: Any) -> None:
    """Wait for a result, and for everything else that a GPU is computing."""
    synchronize(result)
    synchronize()


def model_for(xla: bool | str) -> keras.Sequential:
    """Return a model whose layers suit how it will be compiled."""
    return build_alexnet(for_xla=None if xla == "auto" else bool(xla))


def forward(batch: int, precision: str, xla: bool | str, rows: Rows) -> None:
    """Time inference."""
    model = model_for(xla)
    if xla != "auto":
        model.jit_compile = xla
    predict = predictor(model)
    images = ops.convert_to_tensor(LOADER.get_batch_train(batch)[0])
    seconds = seconds_a_step(lambda: predict(images), wait, rows)
    finish("forward", batch, precision, f"Keras, XLA {on(model)}", seconds)


def train_step(batch: int, precision: str, xla: bool | str, rows: Rows) -> None:
    """Time the train step that `train` uses, on the same batches each time."""
    step = best_train_step(model_for(xla), LOADER, recipe(batch), jit_compile=xla)
    updates = step.updates_per_call
    indices = LOADER.draw_train_indices(updates * batch).reshape(updates, batch)
    seconds = seconds_a_step(lambda: step(indices), wait, rows, updates)
    losses, _ = step(indices)
    configuration = f"Keras, XLA {on(step.classifier)}, {updates} per call"
    finish("train step", batch, precision, configuration, seconds, float(losses[-1]))


def loop(batch: int, precision: str, xla: bool | str, rows: Rows) -> None:
    """Time `train` and its own train step on fixed batches, in turns: as many updates each as one call makes."""
    if xla != "auto":
        return
    model = build_alexnet()
    step = best_train_step(model, LOADER, recipe(batch))
    updates = step.updates_per_call
    several = recipe(batch, updates)
    indices = LOADER.draw_train_indices(updates * batch).reshape(updates, batch)

    def loops() -> None:
        train(model, LOADER, several, step=step, progress=False)

    def bare() -> None:
        synchronize(step(indices))

    turns: dict[Callable[[], None], list[float]] = {loops: [], bare: []}
    for _ in range(2 + 2 * rows.rounds):
        for work, seconds in turns.items():
            start = time.perf_counter()
            work()
            seconds.append((time.perf_counter() - start) / updates)
    finish("training loop, per update", batch, precision, f"{updates} per call", turns[loops][2:])
    finish("bare step in turns with it", batch, precision, f"{updates} per call", turns[bare][2:])


def four(_: int, precision: str, xla: bool | str, rows: Rows) -> None:
    """Time what the document's own loop does with 128 images: four updates of 32."""
    if xla != "auto":
        return
    model, documented = build_alexnet(), dataclasses.replace(recipe(128), batch_size=32)
    step = best_train_step(model, LOADER, documented)
    seconds = seconds_a_step(
        lambda: train(model, LOADER, documented, step=step, progress=False).losses, wait, rows._replace(steps=1)
    )
    finish("training loop, four updates of 32", 128, precision, "", seconds)


def product(_: int, precision: str, xla: bool | str, rows: Rows) -> None:  # noqa: ARG001 - as the others
    """Time the fastest of the products that the device is calibrated by."""
    if xla == "auto":
        say("product", 1, [], **CASE, precision=precision, rate=rate(precision))


def drawing(batch: int, precision: str, xla: bool | str, rows: Rows) -> None:
    """Time a resized batch on the device and the document's own, in turns."""
    if xla != "auto" or precision != "float32":
        return
    finish("get_batch_train as documented", batch, "", "", each(lambda: LOADER.get_batch_train(batch)[1], rows))
    finish("draw_train, as training takes it", batch, "", "", each(lambda: LOADER.draw_train(batch)[1], rows))
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

    step = TensorFlowTrainStep(build_alexnet(kernel_initializer="zeros"), LOADER, Recipe.documented())
    train_images = LOADER.train_images

    def as_in_the_document() -> Any:
        """Return a resized batch as the document's own `get_batch_train` makes it."""
        index = np.random.randint(0, LOADER.num_train, batch)  # noqa: NPY002 - as documented
        return tf.image.resize_with_pad(train_images[index], 224, 224).numpy()

    def as_training_does() -> Any:
        """Return a resized batch on the device."""
        return step.batch(LOADER.draw_train_indices(batch))

    one = rows._replace(rounds=1)
    rounds = [(each(as_in_the_document, one)[0], each(as_training_does, one)[0]) for _ in range(4 * rows.rounds)]
    finish("the document's get_batch_train, in turns with the next", batch, "", "", [theirs for theirs, _ in rounds])
    finish("a resized batch on the device, as training makes it", batch, "", "", [ours for _, ours in rounds])


def each(work: Callable[[], Any], rows: Rows) -> list[float]:
    """Return the seconds of each round after the first two, waited for one by one."""
    seconds = []
    for _ in range(2 + rows.rounds):
        start = time.perf_counter()
        synchronize(work())
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def on(model: keras.Model) -> str:
    """Return whether XLA compiles a model."""
    return "on" if model.jit_compile else "off"


def finish(
    what: str, batch: int, precision: str, configuration: str, seconds: list[float], loss: float | None = None
) -> None:
    """Print a case, with its memory."""
    case: dict[str, Any] = {"precision": precision, "configuration": configuration, **CASE}
    if loss is not None and not np.isfinite(loss):
        case["failed"], seconds = "the result isn't finite", []
    say(what, batch, seconds, **case, **{"peak memory, bytes": peak_memory(DEVICE)})


WORK = {
    "forward": forward,
    "train step": train_step,
    "loop": loop,
    "four": four,
    "product": product,
    "drawing": drawing,
}


def measure(what: str, batch: int, precision: str, xla: str, rows: Rows) -> None:
    """Print a case, or why it failed."""
    failed = None
    with numerics(precision):
        keras.utils.set_random_seed(0)
        reset_peak_memory(DEVICE)
        try:
            WORK[what](batch, precision, XLA[xla], rows)
        except Exception as error:  # noqa: BLE001 - the other cases still run
            failed = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            if is_out_of_memory(error):
                failed = "doesn't fit into the device's memory"
    if failed:
        say(what, batch, [], precision=precision, configuration=f"{what}, XLA {xla}", **CASE, failed=failed)
    free_memory()


def main() -> None:
    """Measure the cases of the command line."""
    usual = of_device(KIND)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=WORK, default=tuple(WORK))
    parser.add_argument("--batch", nargs="+", type=int, default=[128])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=("float32", "mixed_bfloat16"))
    parser.add_argument("--xla", nargs="+", choices=XLA, default=("auto",), help="auto: as Keras decides")
    options, rows = arguments(parser, usual)
    for what in options.what:
        for batch in options.batch:
            for precision in options.precision:
                for xla in options.xla:
                    measure(what, batch, precision, xla, rows)


if __name__ == "__main__":
    main()
