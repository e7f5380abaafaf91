"""The recipe of a training run, as data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import keras

from alexnet_repro.model import LOSSES


@dataclass(frozen=True)
class Recipe:
    """A training run: `preliminary_draws` draws, then `epochs` times `draws_per_epoch` draws.

    Each draw takes `draw_size` images with replacement and makes `draw_size / batch_size` updates. The defaults are
    the document's.
    """

    name: str = "documented"
    loss: str = "normalised_sigmoid"  # a name in `alexnet_repro.model.LOSSES`
    optimizer: str = "sgd"  # a Keras optimizer's name
    optimizer_arguments: Mapping[str, float] = field(default_factory=dict)  # beside the rate; others are its defaults
    learning_rate: float = 0.01  # at its peak
    warmup_updates: int = 0  # updates over which the learning rate rises linearly from 0
    cosine_decay: bool = False  # whether it then falls to 0 along half a cosine, or stays
    draw_size: int = 128
    batch_size: int = 32
    draws_per_epoch: int = 468
    epochs: int = 5
    preliminary_draws: int = 1
    kernel_initializer: str = "glorot_uniform"
    dropout: bool = True  # whether the dropout layers act in training
    save_every: int | None = 20  # weights are saved after draws 0, 20, 40 … of an epoch; None: once, at the end

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ValueError: the run isn't possible; the message names the field and its value.
        """
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}")
        for name, least in (("batch_size", 1), ("draws_per_epoch", 1), ("epochs", 1), ("preliminary_draws", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}; got {value}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be positive; got {self.learning_rate}")
        if self.draw_size < 1 or self.draw_size % self.batch_size:
            raise ValueError(f"draw_size must be a multiple of batch_size {self.batch_size}; got {self.draw_size}")
        if not 0 <= self.warmup_updates < self.num_updates:
            warmup = f"warmup_updates must be less than the {self.num_updates} updates"
            raise ValueError(f"{warmup}; got {self.warmup_updates}")
        if self.save_every is not None and self.save_every < 1:
            raise ValueError(f"save_every must be at least 1 or None; got {self.save_every}")

    @classmethod
    def documented(cls) -> Self:
        """Exactly the document's run: 5 epochs of 468 draws of 128, each draw four SGD updates of 32.

        `fit` is called there on each draw without a batch size, and its default is 32. One draw of the same kind comes
        first, to show the progress line: 9,364 updates in all. The order that `fit` shuffles a draw into isn't
        reproduced: the draws are independent, so any order is equally likely.

        Source: "Dive into Deep Learning", TensorFlow 2 edition, section 5.6.
        """
        return cls()

    @classmethod
    def quick(cls) -> Self:
        """The shortest run found that reliably passes 0.8 on the real test set; for CI."""
        return cls(
            name="quick",
            loss="softmax",
            optimizer="adam",
            # 1 - 1/8, 1 - 1/64: exact in float32, so that on a CPU one kernel updates (`backend.tensorflow_updates`).
            optimizer_arguments={"beta_1": 0.875, "beta_2": 0.984375},
            learning_rate=2e-4,
            warmup_updates=16,
            cosine_decay=True,
            draw_size=32,
            batch_size=32,
            draws_per_epoch=160,
            epochs=1,
            preliminary_draws=0,
            kernel_initializer="he_normal",
            dropout=False,
            save_every=None,
        )

    @property
    def num_draws(self) -> int:
        """Draws in the whole run."""
        return self.preliminary_draws + self.epochs * self.draws_per_epoch

    @property
    def updates_per_draw(self) -> int:
        """Updates per draw."""
        return self.draw_size // self.batch_size

    @property
    def num_updates(self) -> int:
        """Updates in the whole run."""
        return self.num_draws * self.updates_per_draw

    def as_data(self) -> dict[str, Any]:
        """Return the fields by name, as JSON takes them."""
        return {**vars(self), "optimizer_arguments": dict(self.optimizer_arguments)}

    def build_optimizer(self) -> keras.optimizers.Optimizer:
        """Return the optimizer, with its learning rate schedule."""
        rate: float | keras.optimizers.schedules.LearningRateSchedule = self.learning_rate
        if self.cosine_decay or self.warmup_updates:
            rate = keras.optimizers.schedules.CosineDecay(
                0.0 if self.warmup_updates else self.learning_rate,
                self.num_updates - self.warmup_updates,
                alpha=0.0 if self.cosine_decay else 1.0,  # the fraction it falls to
                warmup_target=self.learning_rate if self.warmup_updates else None,
                warmup_steps=self.warmup_updates,
            )
        config = {"learning_rate": rate, **self.optimizer_arguments}
        return keras.optimizers.get({"class_name": self.optimizer, "config": config})
