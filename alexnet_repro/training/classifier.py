"""What is trained and evaluated: from 28x28 uint8 images to logits, compiled by Keras."""

from typing import Any

import keras

from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.model import LOSSES, logits_model
from alexnet_repro.training.recipe import Recipe


class Classifier(keras.Model):
    """From uint8 images `(n, 28, 28, 1)` to float32 logits, scaling and resizing included, sharing a model's layers."""

    def __init__(self, model: keras.Sequential, *, dropout: bool = True) -> None:
        """Wrap `model`; without `dropout` its dropout layers don't act in training either."""
        super().__init__(dtype="float32", name="network")
        self.logits = logits_model(model)
        self.size = model.input_shape[1:3]
        self.dropout = dropout

    def pixels(self, images: Any) -> Any:
        """Return what the first layer sees: float32 `(n, height, width, 1)` in [0, 1].

        Scaled after resizing: interpolating whole numbers to 224 pixels is exact in float32, so that it
        gives the same bits however it is compiled.
        """
        return resize_with_pad(images, *self.size) / 255.0

    def call(self, images: Any, training: bool = False) -> Any:
        """Return logits `(n, classes)`."""
        return self.logits(self.pixels(images), training=training and self.dropout)


def compiled(
    network: Classifier,
    loss: str,
    optimizer: keras.optimizers.Optimizer | None = None,
    jit_compile: bool | str = "auto",
) -> Classifier:
    """Compile `network` in place, with a loss by name and accuracy, and return it."""
    network.compile(
        optimizer=optimizer,
        loss=LOSSES[loss],
        # The largest logit is the largest sigmoid output.
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        auto_scale_loss=False,
        jit_compile=jit_compile,
    )
    return network


def build_classifier(
    model: keras.Sequential,
    recipe: Recipe,
    optimizer: keras.optimizers.Optimizer | None = None,
    *,
    jit_compile: bool | str = "auto",
) -> Classifier:
    """Return what a training step updates: a compiled model from uint8 images `(n, 28, 28, 1)` to float32 logits.

    It shares `model`'s layers. Without an `optimizer`, the recipe's own. `jit_compile` is whether XLA
    compiles it; by default Keras decides.
    """
    optimizer = optimizer or recipe.build_optimizer()
    if model.dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return compiled(Classifier(model, dropout=recipe.dropout), recipe.loss, optimizer, jit_compile)
