"""`tf.image.resize_with_pad` as TensorFlow 2.0.0 computed it, for every size, on every Keras backend."""

from typing import Any, NamedTuple

import numpy as np
from keras import backend, ops


def resize_with_pad(images: Any, height: int = 224, width: int = 224) -> Any:
    """Resize to fit inside `height` rows by `width` columns with the aspect ratio kept, and pad with zeros around it.

    Bilinear, half-pixel centres, no antialiasing. The content's place is computed in float64, as
    TensorFlow 2.0.0 did; later versions use float32 and are a pixel off for many sizes. Odd
    padding puts the extra row or column at the bottom or right. An image too thin to keep a whole
    row or column keeps one.

    From images `(n, h, w, c)` or `(h, w, c)` of any integer or float dtype to a float32 tensor `(n, height, width, c)`
    or `(height, width, c)` in their range. In a compiled TensorFlow function `n`, `h` and `w` may be unknown.

    Raises:
        ValueError: `images` has another rank or an unknown one, a side of no pixels, no channels, or a dtype that is
            neither integer nor float; or `height` or `width` is not a positive integer.

    Source: TensorFlow 2.0.0, `_resize_image_with_pad_common` in `python/ops/image_ops_impl.py` and
    `core/kernels/resize_bilinear_op.cc`.
    """
    for name, side in (("height", height), ("width", width)):
        if not isinstance(side, int | np.integer) or isinstance(side, bool) or side <= 0:
            raise ValueError(f"{name} must be a positive integer; got {name}={side!r}")
    images = ops.convert_to_tensor(images)
    try:
        shape = tuple(images.shape)
    except ValueError as error:  # in a compiled TensorFlow function
        known = "tf.io.decode_image(…, expand_animations=False) gives them one, and so does images.set_shape"
        raise ValueError(f"images must be (n, h, w, c) or (h, w, c); got images of unknown rank: {known}") from error
    if len(shape) not in (3, 4):
        raise ValueError(f"images must be (n, h, w, c) or (h, w, c); got images of shape {shape}")
    if 0 in shape[-3:]:
        raise ValueError(f"images must have at least one row, column and channel; got images of shape {shape}")
    dtype = backend.standardize_dtype(images.dtype)
    if "int" not in dtype and "float" not in dtype:
        raise ValueError(f"images must be integer or float; got images of shape {shape}, dtype {dtype}")

    images = ops.cast(images, "float32")
    image_height, image_width = ops.shape(images)[-3:-1]
    rows, columns = _axes(image_height, image_width, int(height), int(width))
    # Columns first, as the kernel does: then the large gather copies whole rows.
    content = _interpolate(_interpolate(images, columns, axis=-2), rows, axis=-3)
    inside = np.logical_and if isinstance(rows.inside, np.ndarray) else ops.logical_and
    return ops.where(inside(rows.inside[:, None, None], columns.inside[:, None]), content, 0.0)


class _Axis(NamedTuple):
    """For each position along one axis of the result: its two source pixels, the second's weight, is it content."""

    first: Any
    second: Any
    weight: Any
    inside: Any


def _axes(image_height: Any, image_width: Any, height: int, width: int) -> tuple[_Axis, _Axis]:
    """Return where rows and columns of the result come from.

    NumPy for known sizes; tensors for sizes known only when a compiled function runs, where an
    unknown `h > 0` keeps graph optimisers from turning a division by the target into a
    multiplication by its reciprocal, which rounds differently.
    """
    xp: Any
    if isinstance(image_height, int) and isinstance(image_width, int):
        xp, cast = np, np.asarray
        h, w, target_height, target_width = (np.float64(n) for n in (image_height, image_width, height, width))
    else:
        xp, cast = ops, ops.cast
        h, w = (ops.cast(n, "float64") for n in (image_height, image_width))
        target_height, target_width = ops.where(h > 0, float(height), h), ops.where(h > 0, float(width), h)

    ratio = xp.maximum(w / target_width, h / target_height)

    def axis(image_side: Any, length: int) -> _Axis:
        exact = image_side / ratio
        content = xp.maximum(1.0, xp.floor(exact))
        offset = xp.maximum(0.0, xp.floor((length - exact) / 2))
        index = xp.arange(length, dtype="float32") - cast(offset, "float32")
        # From here on in float32, like the kernel.
        scale = cast(image_side, "float32") / cast(content, "float32")
        last = cast(image_side - 1, "float32")
        source = xp.minimum(xp.maximum((index + np.float32(0.5)) * scale - np.float32(0.5), np.float32(0)), last)
        first = xp.floor(source)
        return _Axis(
            cast(first, "int32"),
            cast(xp.minimum(first + 1, last), "int32"),
            source - first,
            xp.logical_and(index >= 0, index < cast(content, "float32")),
        )

    return axis(h, height), axis(w, width)


def _interpolate(images: Any, axis_map: _Axis, axis: int) -> Any:
    first, second = ops.take(images, axis_map.first, axis=axis), ops.take(images, axis_map.second, axis=axis)
    weight = ops.convert_to_tensor(axis_map.weight[(...,) + (None,) * (-axis - 1)])
    return first + (second - first) * weight
