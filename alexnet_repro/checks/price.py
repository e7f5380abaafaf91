"""What do determinism, each precision and XLA cost? A train step's time in one cell, or why there is none."""

import dataclasses
import statistics
import time
import warnings

from keras import ops

from alexnet_repro.checks.learning import LEARNABLE
from alexnet_repro.checks.subject import Subject
from alexnet_repro.hardware.devices import synchronise
from alexnet_repro.hardware.finding import Finding
from alexnet_repro.network import compiled_network

BATCH = {"cpu": 8, "gpu": 128}
WARM_UP, TIMED = 2, 5
NO_XLA = (
    "not supported: with determinism on Keras turns XLA off, which has no deterministic gradient of max pooling "
    "(github.com/tensorflow/tensorflow/issues/69417)"
)


def step_time(subject: Subject, *, xla: bool) -> Finding:
    """Return the median time of a train step, in seconds a step, as `number`; None where there is no such step."""
    batch = BATCH[subject.device.partition(":")[0]]
    images, labels = map(ops.convert_to_tensor, dataclasses.replace(subject, batch=batch).draw())
    with subject.running():
        model, _ = subject.model()
        with warnings.catch_warnings(action="ignore"):  # Keras says that it won't compile; so does the finding
            network = compiled_network(model, LEARNABLE, jit_compile=xla)
        if network.jit_compile != xla:
            return Finding("price", "PASS", NO_XLA)
        seconds = []
        for _ in range(WARM_UP + TIMED):
            start = time.perf_counter()
            network.train_on_batch(images, labels)
            synchronise()
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds[WARM_UP:])
    return Finding("price", "PASS", f"{median * 1e3:.1f} ms a step of {batch}", number=median, data={"batch": batch})


def step_time_without_xla(subject: Subject) -> Finding:
    """Return that of the graph's own kernels."""
    return step_time(subject, xla=False)


def step_time_with_xla(subject: Subject) -> Finding:
    """Return that of what XLA compiles."""
    return step_time(subject, xla=True)
