"""A training that tests kill: `python training.py FOLDER UPDATES`; it begins when it reads a line.

Prints a line when it has imported everything, one when training is about to begin, and at its end a digest of losses
and weights.
"""

import dataclasses
import hashlib
import sys
from pathlib import Path

import keras

from alexnet_repro import Checkpoints, DataLoader, Recipe, build_alexnet, synthetic_fashion, train

BATCH, EVERY = 4, 3


def live(folder, updates):
    """Train, from the newest checkpoint on if there is one, and return the digest."""
    recipe = dataclasses.replace(
        Recipe.documented(), draw_size=BATCH, batch_size=BATCH, draws_per_epoch=updates, epochs=1, preliminary_draws=0
    )
    keras.utils.set_random_seed(0)
    model = build_alexnet((67, 67, 1), kernel_initializer="he_normal")
    loader = DataLoader.from_arrays(*synthetic_fashion(64, 1, seed=0), seed=0)
    history = train(model, loader, recipe, checkpoints=Checkpoints(folder, EVERY), resume=True, progress=False)
    digest = hashlib.sha256(history.losses.tobytes())
    for weights in model.get_weights():
        digest.update(weights.tobytes())
    return f"{len({*history.losses})} losses {digest.hexdigest()}"


if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    print("begins", flush=True)
    print(live(Path(sys.argv[1]), int(sys.argv[2])), flush=True)
