"""A training that tests kill, in processes that are forked from one that has imported everything."""

import dataclasses
import hashlib
import os

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


def begin(folder, updates, log, sender):
    """Train in a process of its own: stderr goes into the file `log`, the digest to `sender`."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    sender.send("begins")
    sender.send(live(folder, updates))
