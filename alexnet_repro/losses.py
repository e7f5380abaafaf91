"""The two objectives that one line of documented code stands for, by name.

The document compiles a **sigmoid** output under `sparse_categorical_crossentropy`, which expects a
distribution. TensorFlow 2.0.0 normalised the sigmoid outputs; Keras 3 on TensorFlow takes the
softmax of the sigmoid's input instead: another number, another gradient, another training run.

Both take labels `(n,)` (any integer or float dtype, values `0 … classes-1`) and float32 logits
`(n, classes)`, and return one float32 loss an image, `(n,)`. They are finite for logits up to ±1e4
and compute the same on every backend, eager or compiled. Other shapes are a `ValueError`.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

Loss = Callable[[Any, Any], Any]

# TensorFlow 2.0.0's `keras.backend.epsilon()`.
EPSILON = 1e-7


def softmax(labels: Any, logits: Any) -> Any:
    """Cross-entropy of the softmax of the logits: what the document's code means under Keras 3 on TensorFlow."""
    labels, logits = ops.convert_to_tensor(labels), ops.cast(logits, "float32")
    if (len(labels.shape), len(logits.shape)) != (1, 2):
        raise ValueError(
            f"labels must be (n,) and logits (n, classes); got shapes {tuple(labels.shape)} and {tuple(logits.shape)}"
        )
    # A one-hot product, not a gather: its gradient is a multiplication, deterministic everywhere.
    picked = ops.one_hot(ops.cast(labels, "int32"), logits.shape[-1], dtype="float32")
    return ops.logsumexp(logits, axis=-1) - ops.sum(picked * logits, axis=-1)


def normalised_sigmoid(labels: Any, logits: Any) -> Any:
    """Cross-entropy of the normalised sigmoid, `-log(p[label] / sum(p))`: what the document trained.

    As in TensorFlow 2.0.0 (`keras.backend.sparse_categorical_crossentropy`), with
    `p = clip(sigmoid(logits), 1e-7, 1 - 1e-7)`. Where the clip acts, the gradient is zero. It is
    written with `where`, for backends disagree about the gradient of `clip` at its ends, which
    float32 sigmoids do reach.
    """
    p = ops.sigmoid(ops.cast(logits, "float32"))
    p = ops.where(p < EPSILON, EPSILON, ops.where(p > 1 - EPSILON, 1 - EPSILON, p))
    return softmax(labels, ops.log(p))


LOSSES: dict[str, Loss] = {"normalised_sigmoid": normalised_sigmoid, "softmax": softmax}
