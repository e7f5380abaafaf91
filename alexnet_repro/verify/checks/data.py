"""Checks of the data's way: images reach the device whole, in time, upright and with their labels; weights the disk."""

import multiprocessing
import tempfile
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
from keras import ops

from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.data.synthetic import CYCLES, NUM_CLASSES, ORIENTATIONS
from alexnet_repro.layout import reinstallation
from alexnet_repro.model import build_alexnet
from alexnet_repro.training.weights import save_weights
from alexnet_repro.verify.checks.config import RERUN_FIX, CheckConfig
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics import error_bounds, oracle

DRAWN = 200
MIN_RECOGNISED = 0.9  # of the images of each class, by their stripes; correct devices: 1.0
MAX_DRAW_SECONDS = 30.0  # for a batch of 200, which takes a millisecond
# Square, wide and tall, with an even and an odd number of rows or columns to pad; all fit exactly.
RESIZED_SHAPES = ((28, 28), (14, 28), (28, 7), (27, 32), (32, 27))


def image_labels(config: CheckConfig) -> Finding:
    """Images drawn for training are upright and have their own labels, by the stripes that each class has."""
    images, labels = config.loader().draw_train(DRAWN)
    with config.running():
        seen = ops.convert_to_numpy(ops.convert_to_tensor(images))[..., 0]
    by_class, as_mirrored = (_recognised(each, labels) for each in (seen, seen[:, :, ::-1]))
    least, bound = float(by_class.min()), MIN_RECOGNISED
    evidence = f"of a class at least {least:.1%} of {DRAWN} match their labels, {as_mirrored.min():.1%} if mirrored"
    if least >= bound:
        return Finding("image_labels", "PASS", evidence, number=least, bound=bound)
    wrong = np.flatnonzero(~(by_class >= bound))
    if as_mirrored.min() >= bound:
        how = "are mirrored"
    elif len(wrong) <= NUM_CLASSES / 2:
        how = f"of class {', '.join(map(str, wrong))} have other labels"
    else:
        how = "don't match their labels: shuffled, or damaged"
    fix = f"{reinstallation()} # if the loader was changed; if not: python -m alexnet_repro doctor"
    return Finding("image_labels", "FAIL", f"the images drawn {how}", evidence, fix, number=least, bound=bound)


def pipeline(config: CheckConfig) -> Finding:
    """A batch is drawn within the deadline."""
    loader, start, bound = config.loader(), time.monotonic(), MAX_DRAW_SECONDS
    threads = ThreadPool(1)  # not an executor's, which Python would wait for at its end
    try:
        drawn = threads.apply_async(loader.draw_train, (DRAWN,))
        threads.close()
        drawn.get(bound)
    except multiprocessing.TimeoutError:
        message = f"the input pipeline is stuck: no batch in {bound:g} s"
        fix = "py-spy dump --pid PID # of a run that is stuck, for the stack"
        return Finding("pipeline", "FAIL", message, fix=fix, number=bound, bound=bound)
    seconds = time.monotonic() - start
    return Finding("pipeline", "PASS", f"{DRAWN} images in {seconds * 1e3:.1f} ms", number=seconds, bound=bound)


def resize(config: CheckConfig) -> Finding:
    """Images of every shape are resized and padded as defined, to the pixel; the loader's batches, and to [0, 1]."""
    worst, bound = 0.0, 0.0
    for height, width in RESIZED_SHAPES:
        images = np.random.default_rng(config.seed).integers(0, 256, (2, height, width, 1), np.uint8)
        with config.running():
            found = ops.convert_to_numpy(resize_with_pad(images)).astype(np.float64)
        right = oracle.resize_exactly(images, 224, 224)
        # A source position is off by rounding, at most of the side; two interpolations follow.
        bound = 255 * error_bounds.FLOAT32 * (4 * max(height, width) + 8)
        error = np.abs(found - right) if found.shape == right.shape else np.full(right.shape, np.inf)
        index = tuple(map(int, np.unravel_index(int(np.nan_to_num(error, nan=np.inf).argmax()), error.shape)))
        worst = float(error[index])
        if not worst <= bound:
            message = f"resizing {height}x{width} images is off by {worst:.1e} of 255 at {index}, allowed {bound:.1e}"
            evidence = f"of {error.size} values {int((~(error <= bound)).sum())} are off"
            return Finding("resize", "FAIL", message, evidence, RERUN_FIX, number=worst, bound=bound)
    with config.running():
        batch, _ = config.loader().get_batch_train(2)
    images, _ = config.loader().draw_train(2)  # the same
    off = float(np.abs(255 * batch - oracle.resize_exactly(images, 224, 224)).max())
    if not off <= bound:
        message = f"the loader's batch isn't the images drawn, resized and over 255: off by {off:.1e} of 255"
        return Finding("resize", "FAIL", message, fix=RERUN_FIX, number=off, bound=bound)
    message = f"{len(RESIZED_SHAPES)} shapes and a batch within rounding"
    return Finding("resize", "PASS", message, number=max(worst, off), bound=bound)


def checkpoint(config: CheckConfig) -> Finding:
    """Weights that were saved are those that are loaded, and an older file is replaced."""
    with tempfile.TemporaryDirectory() as folder, config.running():
        path = Path(folder) / "check.weights.h5"
        model, weights = config.model()
        save_weights(model, path)
        newer = [weight + np.float32(1) for weight in weights]
        model.set_weights(newer)
        save_weights(model, path)
        other = build_alexnet((config.side, config.side, 1), kernel_initializer="zeros")
        other.load_weights(path)
        loaded = other.get_weights()
    for variable, new, old, found in zip(model.weights, newer, weights, loaded, strict=False):
        if wrong := int((new != found).sum()):
            what = "those of an earlier save: the file is stale" if np.array_equal(old, found) else "others"
            message = f"the weights loaded for {variable.path} are {what}"
            fix = f"df -h {tempfile.gettempdir()}; sudo dmesg | tail # for errors of the disk"
            return Finding("checkpoint", "FAIL", message, f"{wrong} of {new.size} differ", fix, number=wrong, bound=0)
    return Finding("checkpoint", "PASS", f"{len(newer)} weights saved twice and loaded, bit for bit", number=0, bound=0)


def _recognised(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return, by class, the share of its images, `(n, 28, 28)`, whose label is that class; NaN where there is none."""
    shown = _stripes(images)
    shares = [
        (labels[shown == number] == number).mean() if number in shown else np.nan for number in range(NUM_CLASSES)
    ]
    return np.array(shares)


def _stripes(images: np.ndarray) -> np.ndarray:
    """Return the class of each generated image, `(n, 28, 28)`: that of the strongest stripes."""
    y, x = np.meshgrid(*[np.linspace(-0.5, 0.5, 28)] * 2, indexing="ij")
    angles = np.arange(ORIENTATIONS * len(CYCLES)) % ORIENTATIONS * np.pi / ORIENTATIONS
    cycles = np.repeat(CYCLES, ORIENTATIONS)
    turns = cycles[:, None, None] * (x * np.cos(angles)[:, None, None] + y * np.sin(angles)[:, None, None])
    grey = images.astype(np.float64) - images.mean(axis=(1, 2), keepdims=True)
    return np.asarray(np.abs(np.einsum("nij,cij->nc", grey, np.exp(2j * np.pi * turns))).argmax(axis=1))
