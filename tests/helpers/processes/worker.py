"""One worker of a distributed training: `python worker.py SETTINGS ARGUMENTS…`, the command line on small images.

SETTINGS is JSON: `recipe`, what differs from the quick recipe; `images`, the seed of the images; `out`, where weights
and losses go; `hang`, the draw in which the main thread sleeps for ever; `pace`, extra seconds per update; `resident`,
whether the images are on the device. It says that it is ready, and waits for a line; then it prints one at the start of
each update.
"""

import dataclasses
import functools
import json
import sys
import time

import numpy as np

import alexnet_repro.model
from alexnet_repro import Recipe
from alexnet_repro.cli.parser import main
from alexnet_repro.training.tensorflow_step import TensorFlowTrainStep

TINY = {"draw_size": 12, "batch_size": 12, "draws_per_epoch": 6, "warmup_updates": 0, "learning_rate": 1e-4}


def prepare(settings):
    """Have the command line train a small, narrow model on few images, and print its progress."""
    alexnet_repro.model.HIDDEN_UNITS = 512  # as `narrow_layers` has it
    recipe = dataclasses.replace(Recipe.quick(), **{**TINY, **settings.get("recipe", {})})
    Recipe.quick = classmethod(lambda _: recipe)
    images, build, train = alexnet_repro.synthetic_fashion, alexnet_repro.build_alexnet, alexnet_repro.train
    alexnet_repro.synthetic_fashion = lambda: images(64, 40, seed=settings.get("images", 0))
    alexnet_repro.build_alexnet = functools.partial(build, (67, 67, 1))

    def kept(model, loader, *arguments, **options):
        draw, draws = loader.draw_train_indices, iter(range(10**9))

        def hanging(size):
            if next(draws) == settings.get("hang"):
                print("hangs", flush=True)
                time.sleep(10**6)
            return draw(size)

        loader.draw_train_indices = hanging
        first = {f"first-{number:02}": each for number, each in enumerate(model.get_weights())}
        history = train(model, loader, *arguments, **options)
        evaluations = [[after, each.loss, each.accuracy, each.num_samples] for after, each in history.evaluations]
        if "out" in settings:
            weights = {f"last-{number:02}": each for number, each in enumerate(model.get_weights())}
            np.savez(settings["out"], losses=history.losses, accuracies=history.accuracies,
                     evaluations=np.array(evaluations), **first, **weights)  # fmt: skip
        return history

    alexnet_repro.train = kept
    update, begin = TensorFlowTrainStep.__call__, TensorFlowTrainStep.__init__

    def printing(self, indices):
        print("update", flush=True)
        time.sleep(settings.get("pace", 0))
        return update(self, indices)

    TensorFlowTrainStep.__call__ = printing
    if "resident" in settings:
        TensorFlowTrainStep.__init__ = functools.partialmethod(begin, resident=settings["resident"])


if __name__ == "__main__":
    prepare(json.loads(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    sys.exit(main(["train", "--synthetic", *sys.argv[2:]]))
