"""The overhead of determinism, each precision and XLA: the time of the train step in one combination of them."""

import dataclasses
import math
import statistics
import time
import warnings

import numpy as np

from alexnet_repro.backend.devices import synchronize
from alexnet_repro.training.train_step import best_train_step
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE
from alexnet_repro.verify.finding import Finding

BATCH = {"cpu": 8, "gpu": 512}
MIN_UPDATES = {"cpu": 2, "gpu": 10}  # per round, waited for once: launching isn't what is measured
NO_XLA = (
    "not supported: with determinism on Keras turns XLA off, which has no deterministic gradient of max pooling "
    "(github.com/tensorflow/tensorflow/issues/69417)"
)


def step_time(config: CheckConfig, *, xla: bool) -> Finding:
    """Return an update's time, in seconds, as `number`: the median of rounds; None where there is no such step."""
    kind = config.device.partition(":")[0]
    batch, loader = BATCH[kind], config.loader()
    recipe = dataclasses.replace(LEARNABLE, draw_size=batch, batch_size=batch)
    with config.running():
        model, _ = config.model(for_xla=xla)
        with warnings.catch_warnings(action="ignore"):  # Keras warns that it won't compile; so does the finding
            step = best_train_step(model, loader, recipe, jit_compile=xla)
        if step.classifier.jit_compile != xla:
            return Finding("overhead", "PASS", NO_XLA)
        indices = np.tile(loader.draw_train_indices(batch), (step.updates_per_call, 1))
        calls, seconds = math.ceil(MIN_UPDATES[kind] / len(indices)), []
        for _ in range(2):
            synchronize(step(indices))
        for _ in range(3):
            start = time.perf_counter()
            for _ in range(calls):
                losses = step(indices)
            synchronize(losses)
            seconds.append((time.perf_counter() - start) / (calls * len(indices)))
    median = statistics.median(seconds)
    message = f"{median * 1e3:.1f} ms per update of {batch}"
    return Finding("overhead", "PASS", message, number=median, data={"batch": batch})
