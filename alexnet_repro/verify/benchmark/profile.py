"""Each layer timed alone, forward, backward and its update, compiled as training compiles them.

Rounds go from layer to layer, so that all of them meet the same conditions.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from alexnet_repro.backend.devices import synchronize
from alexnet_repro.backend.layer_programs import Program, both_ways, one_way, update_program
from alexnet_repro.model import Logits
from alexnet_repro.training.classifier import build_classifier
from alexnet_repro.verify.benchmark.calibration import calibrate
from alexnet_repro.verify.benchmark.layer_timing import LayerTiming
from alexnet_repro.verify.benchmark.roofline import bound, of_layers, train_step
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.learning import LEARNABLE

PROFILED_BATCH = {"cpu": 32, "gpu": 512}
CALLS = {"cpu": 1, "gpu": 10}  # per round, waited for once: launching isn't what is measured
PROFILE_ROUNDS = 10


def layer_timings(device: str, precision: str, seconds: float) -> tuple[list[LayerTiming], list[str]]:
    """Return each layer's timings, in the order of the model, and the layers for which `seconds` didn't suffice."""
    rates, start = calibrate(device, ()), time.perf_counter()  # as for the timings: measured once
    kind = device.partition(":")[0]
    batch, calls = PROFILED_BATCH[kind], CALLS[kind]
    with CheckConfig(device, precision).running():
        programs: dict[tuple[str, str], Program] = {}
        for key, program in _programs(CheckConfig(device, precision), batch):
            _round(program, calls=1)  # compiles
            programs[key] = program
            if time.perf_counter() > start + seconds / 2:
                break
        rounds: dict[tuple[str, str], list[float]] = {}
        for key in PROFILE_ROUNDS * list(programs):
            if time.perf_counter() > start + seconds:
                break
            rounds.setdefault(key, []).append(_round(programs[key], calls))
    found, missing = [], []
    for (layer, direction), work in of_layers(train_step(batch, precision).parts).items():
        if (layer, direction) not in rounds:
            missing.append(layer)
            continue
        taken = min(rounds[layer, direction])
        if direction == "backward":
            taken = _backward(rounds[layer, "backward"], rounds[layer, "forward"])
        least = bound(work, precision, rates)
        limit = "compute" if least.compute > least.memory else "memory"
        found.append(LayerTiming(device, precision, batch, layer, direction, taken, least.seconds, limit))
    return found, list(dict.fromkeys(missing))


def _backward(both: Sequence[float], forward: Sequence[float]) -> float:
    """Return what both ways take beyond forward alone, each at its fastest; 0 if noise could be that much."""
    taken = min(both) - min(forward)
    noise = sum(float(np.quantile(rounds, 0.25)) - min(rounds) for rounds in (both, forward))
    return taken if taken > noise else 0.0


def _programs(config: CheckConfig, batch: int) -> Iterator[tuple[tuple[str, str], Program]]:
    """Yield what computes each layer in each direction, by name; `backward` computes forward as well."""
    model, _ = config.model()
    classifier = build_classifier(model, LEARNABLE)
    xla = bool(classifier.jit_compile)
    images = np.random.default_rng(config.seed).integers(0, 256, (batch, 28, 28, 1), np.uint8)
    program, tensor = one_way(classifier.pixels, [], ops.convert_to_tensor(images), xla=True)  # on TensorFlow always
    yield ("resize", "forward"), program
    *body, head = model.layers
    for number, layer in enumerate((*body, Logits(head))):
        name = head.name if isinstance(layer, Logits) else layer.name
        function = _as_in_training(layer)
        program, output = one_way(function, layer.trainable_variables, tensor, xla=xla)
        yield (name, "forward"), program
        variables = layer.trainable_variables
        yield (name, "backward"), both_ways(function, variables, tensor, output, xla=xla, by_input=number > 0)
        if variables:
            yield (name, "update"), update_program(LEARNABLE.build_optimizer(), variables, xla=xla)
        tensor = output


def _as_in_training(layer: keras.layers.Layer) -> Callable[[Any], Any]:
    if isinstance(layer, keras.layers.Dropout):
        return lambda x: layer(x, training=True)
    return layer  # type: ignore[no-any-return]  # Keras isn't typed


def _round(program: Program, calls: int) -> float:
    """Return the seconds of a call, of several that are waited for once."""
    synchronize()
    start = time.perf_counter()
    for _ in range(calls - 1):
        program()
    synchronize(program())
    return (time.perf_counter() - start) / calls
