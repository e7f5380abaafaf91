"""How much memory training takes beyond its compiled step: peak resident memory, each in a fresh process, in turns.

    python -m benchmarks.peers.memory [TIMES] [BATCH]

`train` with 60,000 images loaded, against the compiled step alone on one resident batch: five updates each. Prints a
line of JSON a precision: the peaks in MB (1e6 bytes), and the ratio of their medians.
"""

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

PRECISIONS = ("float32", "mixed_bfloat16")
UPDATES = 5


def work(what: str, precision: str, batch: int) -> int:
    """Make the updates, in this process, and return its peak resident memory in bytes."""
    import keras
    from keras import ops

    from alexnet_repro import DataLoader, Recipe, build_alexnet, synthetic_fashion, train
    from alexnet_repro.backend.precision import precision as numerics
    from alexnet_repro.training.classifier import build_classifier

    recipe = dataclasses.replace(
        Recipe.documented(),
        draw_size=batch,
        batch_size=batch,
        epochs=1,
        draws_per_epoch=UPDATES,
        preliminary_draws=0,
        save_every=None,
    )
    keras.utils.set_random_seed(0)
    with numerics(precision):
        model = build_alexnet()
        if what == "training":
            train(model, DataLoader.from_arrays(*synthetic_fashion(), seed=0), recipe, progress=False)
        else:
            few = DataLoader.from_arrays(*synthetic_fashion(batch, 1), seed=0)
            images, labels = map(ops.convert_to_tensor, few.draw_train(batch))
            network = build_classifier(model, recipe)
            for _ in range(UPDATES):
                network.train_on_batch(images, labels)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak(what: str, precision: str, batch: int) -> float:
    """Return the peak of a fresh process, in MB."""
    command = [sys.executable, "-m", "benchmarks.peers.memory", "--in-this-process", what, precision, str(batch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - this very file
    return int(done.stdout.splitlines()[-1]) / 1e6


def main(times: int, batch: int) -> None:
    """Print each precision's peaks."""
    for precision in PRECISIONS:
        peaks: dict[str, list[float]] = {"training": [], "step": []}
        for _ in range(times):
            for what, found in peaks.items():
                found.append(peak(what, precision, batch))
        ratio = statistics.median(peaks["training"]) / statistics.median(peaks["step"])
        said = {"what": "peak resident memory, MB", "precision": precision, "batch": batch, "updates": UPDATES}
        print(json.dumps({**said, **peaks, "ratio": round(ratio, 3)}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-this-process"]:
        print(work(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main(*(int(text) for text in (*sys.argv[1:], *("3", "128")[len(sys.argv) - 1 :])))
