"""The classifier: from 28x28 uint8 images to logits, compiled by Keras for training or evaluation."""

from typing import Any, TypedDict, Unpack

import keras

from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.model import LOSSES, logits_model
from alexnet_repro.training.recipe import Recipe


class Classifier(keras.Model):
    """From uint8 images `(n, 28, 28, 1)` to float32 logits, by a model's layers after resizing and scaling."""

    def __init__(self, model: keras.Sequential, *, dropout: bool = True) -> None:
        """Wrap `model`; without `dropout`, its dropout layers are off in training too."""
        super().__init__(dtype="float32", name="network")
        self.logits = logits_model(model)
        self.size = model.input_shape[1:3]
        self.dropout = dropout

    def pixels(self, images: Any) -> Any:
        """Return the first layer's input: float32 `(n, height, width, 1)` in [0, 1].

        Scaling comes after resizing: interpolating integers to 224 pixels is exact in float32, so that the bits don't
        depend on how it is compiled.
        """
        return resize_with_pad(images, *self.size) / 255.0

    def call(self, images: Any, training: bool = False) -> Any:
        """Return logits `(n, classes)`."""
        return self.logits(self.pixels(images), training=training and self.dropout)


class CompileOptions(TypedDict, total=False):
    """Options of a train step."""

    optimizer: keras.optimizers.Optimizer  # instead of the recipe's
    jit_compile: bool | str  # whether XLA compiles the update; by default Keras decides
    metrics: list[Any]  # by default accuracy


def accuracy() -> keras.metrics.Metric:
    """Return the share of images whose largest logit, which is the largest sigmoid, is that of their class."""
    return keras.metrics.SparseCategoricalAccuracy(name="accuracy")


def compiled(classifier: Classifier, loss: str, **options: Unpack[CompileOptions]) -> Classifier:
    """Compile `classifier` in place, with a loss by name and accuracy, and return it."""
    defaults = {"optimizer": None, "metrics": [accuracy()], "auto_scale_loss": False}
    classifier.compile(loss=LOSSES[loss], **{**defaults, **options})
    return classifier


def build_classifier(model: keras.Sequential, recipe: Recipe, **options: Unpack[CompileOptions]) -> Classifier:
    """Return the compiled model that a train step updates, its optimizer built; it shares `model`'s layers."""
    options["optimizer"] = options.get("optimizer") or recipe.build_optimizer()
    if model.dtype_policy.name == "mixed_float16":
        options["optimizer"] = keras.optimizers.LossScaleOptimizer(options["optimizer"])
    classifier = compiled(Classifier(model, dropout=recipe.dropout), recipe.loss, **options)
    classifier.optimizer.build(classifier.trainable_variables)
    return classifier
