"""Replicas in one process: together they compute what one device does, on images that each is given once."""

import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from alexnet_repro import DataLoader, build_alexnet, evaluate, synthetic_fashion
from alexnet_repro.verify.numerics import error_bounds
from tests.helpers.paths import PROCESSES
from tests.helpers.workers import alone, assert_same_training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("narrow"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="KERAS_BACKEND isn't tensorflow"),
]

U, BATCH, RATE = 2.0**-24, 8, 0.5


@pytest.fixture(scope="module", params=[2, 4], ids=lambda replicas: f"replicas={replicas}")
def found(request, tmp_path_factory):
    """What replicas saw and computed, in a process of their own."""
    path = tmp_path_factory.mktemp("replicas") / "found.npz"
    script = PROCESSES / "replicas.py"
    done = subprocess.run(
        [sys.executable, script, str(request.param), path], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(path) as archive:
        return {"replicas": request.param, **archive}


class Expected:
    """One update of the network of one layer, in float64, and how far off float32 may be.

    A sum of K products in any order is off by at most K u times the sum of their sizes (Higham, "Accuracy and
    Stability of Numerical Algorithms", 2002, section 4.2). K is 784, and the bias, the pixel's own rounding and that of
    the product are allowed four more. The loss moves by at most twice what the logits are off by, and is made of ten
    exponentials and eight rows; so does each share p. A gradient is a sum over the batch of pixels times shares.
    """

    def __init__(self, rows):
        from tests.helpers.processes import replicas as replicas_life

        images, labels = replicas_life.data()
        kernel, bias = (each.astype(np.float64) for each in replicas_life.weights())
        x, self.labels = images[rows].reshape(BATCH, -1) / 255, labels[rows]
        self.logits = x @ kernel + bias
        off = (784 + 4) * U * (x @ np.abs(kernel) + np.abs(bias))
        self.logits_off, largest = off, off.max()
        sums = np.log(np.exp(self.logits).sum(axis=1))
        picked = self.logits[np.arange(BATCH), self.labels]
        self.loss = (sums - picked).mean()
        self.loss_off = 2 * largest + (10 + BATCH + 8) * U * (np.abs(self.logits).max() + np.log(10))
        self.accuracy = (self.logits.argmax(axis=1) == self.labels).mean()
        slope = np.exp(self.logits - sums[:, None]) - np.eye(10)[self.labels]
        slope_off = 2 * largest + (10 + 8) * U
        self.kernel = kernel - RATE * x.T @ slope / BATCH
        self.kernel_off = RATE * (x.T @ (slope_off + (BATCH + 8) * U * np.abs(slope))) / BATCH + 2 * U * np.abs(kernel)
        self.bias = bias - RATE * slope.mean(axis=0)
        self.bias_off = RATE * (slope_off + (BATCH + 8) * U) + 2 * U * np.abs(bias)


@pytest.mark.parametrize("images", ["sent", "resident"])
def test_each_image_is_taken_once(found, images):
    """Each replica has an equal part of the batch; each image, with its label, is in exactly one of them."""
    expected, replicas = Expected(found["rows"][0]), found["replicas"]
    logits, labels = found[f"{images}_logits"], found[f"{images}_labels"]
    assert logits.shape == (replicas, 1, BATCH // replicas, 10)
    logits, labels = logits.reshape(BATCH, 10), labels.reshape(BATCH)
    near = (np.abs(logits[:, None] - expected.logits) <= expected.logits_off).all(axis=2)
    assert near.sum(axis=0).tolist() == near.sum(axis=1).tolist() == [1] * BATCH
    np.testing.assert_array_equal(labels, expected.labels[near.argmax(axis=1)])


@pytest.mark.parametrize("images", ["sent", "resident"])
def test_loss_and_accuracy_are_of_the_whole_batch(found, images):
    """What is reported is the mean over all replicas' images."""
    expected = Expected(found["rows"][0])
    assert found[f"{images}_losses"].shape == (1,)
    assert abs(found[f"{images}_losses"][0] - expected.loss) <= expected.loss_off
    assert found[f"{images}_accuracies"].tolist() == [expected.accuracy]


@pytest.mark.parametrize("images", ["sent", "resident"])
def test_update_is_of_the_whole_batch(found, images):
    """The weights move by the gradient of the mean loss over all replicas' images."""
    expected = Expected(found["rows"][0])
    kernel, bias = np.abs(found[f"{images}_kernel"] - expected.kernel), np.abs(found[f"{images}_bias"] - expected.bias)
    assert (kernel <= expected.kernel_off).all()
    assert (bias <= expected.bias_off).all()


def test_each_replica_has_its_own_masks(found):
    """With dropout on, one image eight times in a batch meets eight masks, on all replicas together."""
    assert len(np.unique(found["masked"].reshape(BATCH, 10), axis=0)) == BATCH


def test_overflow_on_one_replica(found):
    """Where a replica's float16 gradients overflow, all leave the update out, and scale losses by half of it."""
    from tests.helpers.processes import replicas as replicas_life

    kernel, bias = replicas_life.weights()
    np.testing.assert_array_equal(found["overflowed_kernel"], kernel)
    np.testing.assert_array_equal(found["overflowed_bias"], bias)
    assert found["overflowed_scale"] == 2.0**15 / 2


def test_batch_that_cannot_be_shared(found):
    """A batch that the replicas can't share equally is refused."""
    assert found["refused"] == f"a batch of 9 can't be shared equally among {found['replicas']} replicas"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all; hundreds of megabytes, which pytest would keep."""
    folder = tmp_path_factory.mktemp("mirrored")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def one_device(folder):
    """What one device makes of the training."""
    return alone(folder / "one")


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_are_one_device(folder, one_device, replicas):
    """`train --distribute=mirrored`, dropout off, ends as one device does; its evaluation is that of its weights."""
    kept = alone(folder / f"mirrored{replicas}", "--distribute=mirrored", f"--replicas={replicas}")
    assert_same_training(kept, one_device)
    model = build_alexnet((67, 67, 1), kernel_initializer="zeros")
    model.set_weights([kept[f"last-{number:02}"] for number in range(16)])
    loader = DataLoader.from_arrays(*synthetic_fashion(64, 40, seed=0), seed=0)
    evaluated = evaluate(model, loader, loss="softmax", progress=False)
    ((updates, loss, accuracy, images),) = kept["evaluations"]
    assert (updates, images) == (6, 40)
    assert abs(loss - evaluated.loss) <= 2 * error_bounds.drift("float32", "cpu:0") * (evaluated.loss + np.log(10))
    assert accuracy == pytest.approx(evaluated.accuracy, abs=1 / 40)  # two classes may be closer than rounding


def test_resumed_on_replicas(folder):
    """A training on one device that was cut short is resumed with replicas as if it were one, but for rounding."""
    at = folder / "resumed"
    whole = alone(at, "--checkpoint-every=2", "--no-evaluate")
    for newest in sorted((at / "a.checkpoints").glob("update-*"))[1:]:
        newest.unlink()
    resumed = alone(at, "--checkpoint-every=2", "--no-evaluate", "--resume", "--distribute=mirrored", "--replicas=2")
    assert_same_training(resumed, whole)
    assert (resumed["losses"][:2] == whole["losses"][:2]).all()
