"""How much memory training takes beyond its compiled step: the peak, each in a fresh process, in turns.

    python -m benchmarks.peers.memory [TIMES] [BATCH]

`train` with 60,000 images loaded, compared with its train step alone on a data set of one batch: five updates each.
Prints a line of JSON per precision: the peaks in MB (1e6 bytes), and the ratio of their medians. On a GPU they are of
its memory, as the backend counts it; on a CPU of all that is resident of the process, the data set included. There
`in use` has what TensorFlow's allocator had given out at most: tensors alone, without what it keeps for later ones, of
which the order of threads decides (tens of MB, another number each time).
"""

import argparse
import dataclasses
import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported

PRECISIONS = ("float32", "mixed_bfloat16")
UPDATES = 5


def peak(what: str, precision: str, batch: int) -> tuple[str, int, int]:
    """Make the updates of `training` or of the `step`; return their device, its peak memory, and that of its tensors.

    In bytes; the latter is 0 where the backend doesn't count it.
    """
    import keras
    import numpy as np

    from alexnet_repro import DataLoader, Recipe, best_train_step, build_alexnet, synthetic_fashion, train
    from alexnet_repro.backend.memory import enable_memory_growth, peak_memory
    from alexnet_repro.backend.precision import precision as numerics

    device = (*enable_memory_growth(), "cpu:0")[0]
    one_epoch = {"epochs": 1, "draws_per_epoch": UPDATES, "preliminary_draws": 0, "save_every": None}
    recipe = dataclasses.replace(Recipe.documented(), draw_size=batch, batch_size=batch, **one_epoch)
    keras.utils.set_random_seed(0)
    with numerics(precision):
        model = build_alexnet()
        if what == "training":
            train(model, DataLoader.from_arrays(*synthetic_fashion(), seed=0), recipe, progress=False)
        else:
            step = best_train_step(model, DataLoader.from_arrays(*synthetic_fashion(batch, 1), seed=0), recipe)
            for _ in range(UPDATES):
                step(np.arange(batch).reshape(1, batch))
    return device, peak_memory(device), tensors_peak(device)


def tensors_peak(device: str) -> int:
    """Return the most bytes that TensorFlow's allocator had given out, or 0 on another backend."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    return int(tf.config.experimental.get_memory_info(device.upper())["peak"])


def main() -> None:
    """Print each precision's peaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("times", type=int, nargs="?", default=3)
    parser.add_argument("batch", type=int, nargs="?", default=128)
    options = parser.parse_args()
    for precision in PRECISIONS:
        peaks: dict[str, list[float]] = {"training": [], "step": []}
        in_use: dict[str, list[float]] = {"training": [], "step": []}
        for what in options.times * tuple(peaks):
            with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
                device, found, tensors = fresh.submit(peak, what, precision, options.batch).result()
            peaks[what].append(found / 1e6)
            in_use[what].append(tensors / 1e6)
        ratio = statistics.median(peaks["training"]) / statistics.median(peaks["step"])
        case = {
            "what": "peak memory, MB",
            "device": device,
            "precision": precision,
            "batch": options.batch,
            "updates": UPDATES,
        }
        print(json.dumps({**case, **peaks, "ratio": round(ratio, 3), "in use": in_use}), flush=True)


if __name__ == "__main__":
    main()
