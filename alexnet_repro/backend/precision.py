"""The precisions of a run, and the switches for them on each backend."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras

# Keras dtype policy, and whether float32 products may use TensorFloat-32 on a GPU.
PRECISIONS = {
    "float32": ("float32", False),
    "tf32": ("float32", True),
    "mixed_bfloat16": ("mixed_bfloat16", False),
    "mixed_float16": ("mixed_float16", False),
}


@contextmanager
def precision(name: str) -> Iterator[None]:
    """Build and run models in the named precision, and restore what was set before.

    `float32` means all 24 bits: TensorFlow and PyTorch allow TensorFloat-32 (11 bits) in
    convolutions by default, which only `tf32` does here.

    Raises:
        ValueError: `name` is none of `PRECISIONS`.
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {name!r}")
    policy, tf32 = PRECISIONS[name]
    policy_before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    restore_tf32 = _set_tf32(tf32)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy_before)
        restore_tf32()


def _set_tf32(allowed: bool) -> Callable[[], object]:
    """Allow TensorFloat-32 products or not, and return what restores the setting."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        enabled = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(allowed)
        return lambda: tf.config.experimental.enable_tensor_float_32_execution(enabled)
    if keras.backend.backend() == "jax":
        import jax

        before = jax.config.jax_default_matmul_precision
        jax.config.update("jax_default_matmul_precision", "tensorfloat32" if allowed else "highest")
        return lambda: jax.config.update("jax_default_matmul_precision", before)
    from torch.backends import cuda, cudnn

    def allow(in_cudnn: bool, in_matmul: bool) -> None:
        cudnn.allow_tf32, cuda.matmul.allow_tf32 = in_cudnn, in_matmul

    allowed_before = cudnn.allow_tf32, cuda.matmul.allow_tf32
    allow(allowed, allowed)
    return lambda: allow(*allowed_before)
