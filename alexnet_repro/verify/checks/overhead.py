"""What do determinism, each precision and XLA cost? A train step's time in one cell, or why there is none."""

import dataclasses
import statistics
import time
import warnings

from keras import ops

from alexnet_repro.backend.devices import synchronize
from alexnet_repro.backend.dispatch import updater
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE
from alexnet_repro.verify.finding import Finding

BATCH = {"cpu": 8, "gpu": 512}
WARM_UP, ROWS = 2, 3
IN_A_ROW = {"cpu": 2, "gpu": 10}  # steps, waited for once: launching one isn't what is asked
NO_XLA = (
    "not supported: with determinism on Keras turns XLA off, which has no deterministic gradient of max pooling "
    "(github.com/tensorflow/tensorflow/issues/69417)"
)


def step_time(config: CheckConfig, *, xla: bool) -> Finding:
    """Return a train step's time, in seconds, as `number`: the median of rows; None where there is no such step."""
    kind = config.device.partition(":")[0]
    batch, length = BATCH[kind], IN_A_ROW[kind]
    images, labels = map(ops.convert_to_tensor, dataclasses.replace(config, batch=batch).draw())
    with config.running():
        model, _ = config.model(for_xla=xla)
        with warnings.catch_warnings(action="ignore"):  # Keras says that it won't compile; so does the finding
            network = build_classifier(model, LEARNABLE, jit_compile=xla)
        if network.jit_compile != xla:
            return Finding("price", "PASS", NO_XLA)
        update, seconds = updater(network), []
        for _ in range(WARM_UP):
            synchronize(update(images, labels))
        for _ in range(ROWS):
            start = time.perf_counter()
            for _ in range(length):
                loss = update(images, labels)
            synchronize(loss)
            seconds.append((time.perf_counter() - start) / length)
    median = statistics.median(seconds)
    return Finding("price", "PASS", f"{median * 1e3:.1f} ms a step of {batch}", number=median, data={"batch": batch})


def step_time_without_xla(config: CheckConfig) -> Finding:
    """Return that of the graph's own kernels."""
    return step_time(config, xla=False)


def step_time_with_xla(config: CheckConfig) -> Finding:
    """Return that of what XLA compiles."""
    return step_time(config, xla=True)
