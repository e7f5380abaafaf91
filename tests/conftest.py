"""What the tests share: the documented model, real data where there is some, and gradients on any backend."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import hypothesis
import keras
import numpy as np
import pytest

from alexnet_repro import MissingDataError, build_alexnet, load_fashion_mnist
from alexnet_repro.hardware.precision import precision

# No deadline: the first call for a new shape compiles; on JAX it compiles each operation, so there are fewer examples.
# On CI the same examples every time.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    max_examples=5 if keras.backend.backend() == "jax" else 50,
    derandomize=bool(os.environ.get("CI")),
    print_blob=True,
)
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _full_float32() -> Iterator[None]:
    """Correctness is checked with all 24 bits: TensorFloat-32 off."""
    with precision("float32"):
        yield


@pytest.fixture(scope="session")
def alexnet() -> keras.Sequential:
    """The documented model, for tests that don't change its weights."""
    return build_alexnet()


@pytest.fixture(scope="session")
def fashion_mnist() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The real images; a test that has none is skipped, and says what would make it run."""
    try:
        return load_fashion_mnist()
    except MissingDataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def value_and_gradients() -> Callable[..., tuple[float, list[np.ndarray]]]:
    """A function that takes a scalar function of tensors and its arguments, and returns value and gradients."""
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]


def _tensorflow(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[float, list[np.ndarray]]:
    import tensorflow as tf

    tensors = [tf.convert_to_tensor(argument) for argument in arguments]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = function(*tensors)
    return float(value), [gradient.numpy() for gradient in tape.gradient(value, tensors)]


def _jax(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[float, list[np.ndarray]]:
    import jax

    tensors = [keras.ops.convert_to_tensor(argument) for argument in arguments]
    value, gradients = jax.value_and_grad(function, argnums=tuple(range(len(tensors))))(*tensors)
    return float(value), [np.asarray(gradient) for gradient in gradients]


def _torch(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[float, list[np.ndarray]]:
    tensors = [keras.ops.convert_to_tensor(argument).detach().clone().requires_grad_() for argument in arguments]
    value = function(*tensors)
    value.backward()
    return float(value.detach()), [tensor.grad.cpu().numpy() for tensor in tensors]
