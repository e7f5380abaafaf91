"""What a child process computes with a backend, on whole numbers: small operations, a product, and convolutions.

Each result is exact in every precision, whatever the order of its sums: numbers up to 64, and halves of them. Only an
algorithm's own rounding is left, as that of a Fourier transform.
"""

from importlib import import_module
from typing import Any

import numpy as np

from alexnet_repro.verify.doctor.device_probe import BACKEND_NAMES

Array = np.ndarray[Any, Any]
Layer = tuple[Array, Array, Array, Array]  # x, kernel, bias and dy

MAX_ERROR = 0.5  # half the distance of two whole numbers
DTYPES = {"float32": "float32", "tf32": "float32", "bfloat16": "bfloat16", "float16": "float16"}
PARTS = ("output", "input's gradient", "kernel's gradient", "bias's gradient")


# Each of these classes imports a backend, and computes on one device, with none to fall back on. `devices` returns the
# product names of the GPUs that it sees, and why there are none if it says so; `operations` a sine, a sum and a gather;
# `matmul` a product in float32; `convolution` relu(convolution + bias), and the gradients of x, kernel and bias for dy.
# `x`, `kernel` and `dy` are as TensorFlow has them (NHWC, HWIO), `bias` one number per channel.


class _TensorFlow:
    """TensorFlow: its own kernels, cuBLAS and cuDNN; or XLA's."""

    def __init__(self, device: str) -> None:
        import tensorflow as tf

        self.tf, self.device = tf, device

    def devices(self) -> dict[str, Any]:
        config = self.tf.config
        gpus = config.list_physical_devices("GPU")
        names = [str(config.experimental.get_device_details(gpu).get("device_name")) for gpu in gpus]
        return {"gpus": names}

    def operations(self, x: Array, indices: Array) -> Any:
        tf = self._only()
        with tf.device(self.device):
            there = tf.constant(x)
            return [each.numpy() for each in (tf.math.sin(there), tf.reduce_sum(there), tf.gather(there, indices))]

    def matmul(self, a: Array, b: Array) -> Any:
        tf = self._only()
        with tf.device(self.device):
            return tf.linalg.matmul(tf.constant(a), tf.constant(b)).numpy()

    def convolution(self, layer: Layer, precision: str, *, xla: bool) -> Any:
        tf = self._only()

        def step(x: Any, kernel: Any, bias: Any, dy: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch((x, kernel, bias))
                y = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + bias)
            return (y, *tape.gradient(y, (x, kernel, bias), dy))

        tf.config.experimental.enable_tensor_float_32_execution(precision == "tf32")
        with tf.device(self.device):
            there = [tf.constant(each, DTYPES[precision]) for each in layer]
            found = tf.function(step, jit_compile=True)(*there) if xla else step(*there)
            return [each.numpy() for each in found]

    def _only(self) -> Any:
        if self.device.startswith("cpu"):
            self.tf.config.set_visible_devices([], "GPU")
        self.tf.config.set_soft_device_placement(False)
        return self.tf


class _Jax:
    """JAX, all of which XLA compiles."""

    def __init__(self, device: str) -> None:
        import jax

        self.jax, self.device = jax, device

    def devices(self) -> dict[str, Any]:
        try:
            return {"gpus": [str(gpu.device_kind) for gpu in self._devices("gpu")]}
        except RuntimeError as error:  # there is no such platform, or it can't be started
            return {"gpus": [], "reason": str(error)}

    def operations(self, x: Array, indices: Array) -> Any:
        jnp = self.jax.numpy
        return self._compiled(lambda x, indices: (jnp.sin(x), jnp.sum(x), jnp.take(x, indices)), x, indices)

    def matmul(self, a: Array, b: Array) -> Any:
        return self._compiled(self.jax.numpy.matmul, a, b)

    def convolution(self, layer: Layer, precision: str, **_: bool) -> Any:
        jax = self.jax

        def forward(x: Any, kernel: Any, bias: Any) -> Any:
            sums = jax.lax.conv_general_dilated(
                *(x, kernel, (1, 1), "SAME"),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision="tensorfloat32" if precision == "tf32" else "highest",
            )
            return jax.nn.relu(sums + bias)

        def step(x: Any, kernel: Any, bias: Any, dy: Any) -> Any:
            y, vjp = jax.vjp(forward, x, kernel, bias)
            return (y, *vjp(dy))

        return self._compiled(step, *(each.astype(jax.numpy.dtype(DTYPES[precision])) for each in layer))

    def _devices(self, kind: str) -> Any:
        try:
            return self.jax.devices(kind)
        except AssertionError:  # JAX's, which says nothing, where none of these platforms is there
            raise RuntimeError(f"Unknown backend: '{kind}', of JAX_PLATFORMS={self.jax.config.jax_platforms}") from None

    def _compiled(self, function: Any, *arrays: Array) -> Any:
        kind = self.device.partition(":")[0]
        there = self.jax.device_put(arrays, self._devices(kind)[0])
        return self.jax.device_get(self.jax.jit(function)(*there))


class _Torch:
    """PyTorch: its own kernels, cuBLAS and cuDNN."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.device = torch, device.replace("gpu", "cuda")

    def devices(self) -> dict[str, Any]:
        cuda = self.torch.cuda
        reason = ""
        if not cuda.is_available():
            try:
                cuda.init()
            except Exception as error:  # noqa: BLE001 - an AssertionError without CUDA, else another
                reason = str(error)
        return {"gpus": [cuda.get_device_name(each) for each in range(cuda.device_count())], "reason": reason}

    def operations(self, x: Array, indices: Array) -> Any:
        there, which = (self.torch.from_numpy(each).to(self.device) for each in (x, indices))
        return [each.cpu().numpy() for each in (there.sin(), there.sum(), there[which])]

    def matmul(self, a: Array, b: Array) -> Any:
        there = (self.torch.from_numpy(each).to(self.device) for each in (a, b))
        return self.torch.matmul(*there).cpu().numpy()

    def convolution(self, layer: Layer, precision: str, **_: bool) -> Any:
        torch = self.torch
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        dtype = getattr(torch, DTYPES[precision])
        x, kernel, bias, dy = layer
        arrays = (x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), bias, dy.transpose(0, 3, 1, 2))
        x_, kernel_, bias_, dy_ = (torch.from_numpy(each.copy()).to(self.device, dtype) for each in arrays)
        wanted = [each.requires_grad_() for each in (x_, kernel_, bias_)]
        y = torch.nn.functional.conv2d(*wanted, padding=1).relu()
        found = [y, *torch.autograd.grad(y, wanted, dy_)]
        y, dx, dkernel, dbias = (each.detach().float().cpu().numpy() for each in found)
        return [y.transpose(0, 2, 3, 1), dx.transpose(0, 2, 3, 1), dkernel.transpose(2, 3, 1, 0), dbias]


CLASSES: dict[str, Any] = {"tensorflow": _TensorFlow, "jax": _Jax, "torch": _Torch}


def run(backend: str, device: str, check: str) -> dict[str, Any]:
    """Run one check of `CHECKS` in this process, and return what is to be known of it.

    Raises:
        ArithmeticError: a result is wrong.
        Exception: whatever the backend raises.
    """
    if check == "import":
        return {"version": import_module(backend).__version__}
    probed = CLASSES[backend](device)
    if check == "devices":
        found: dict[str, Any] = probed.devices()
        if device.startswith("gpu") and not found["gpus"]:
            raise RuntimeError(f"{BACKEND_NAMES[backend]} doesn't see this GPU; {found.get('reason', '')}".strip("; "))
        return found
    if check == "operations":
        _try_operations(probed)
    elif check == "matmul":
        _try_matmul(probed)
    else:
        _try_convolution(probed, device, xla=check == "xla")
    return {}


def _try_operations(probed: Any) -> None:
    x = np.random.default_rng(0).integers(-7, 8, 256).astype("float32")
    indices = np.arange(255, -1, -2)
    sine, total, taken = probed.operations(x, indices)
    _compare("sine", sine, np.sin(x), 1e-3)  # the approximations of GPUs are off by 2**-21 at most
    _compare("sum", total, x.sum())
    _compare("gather", taken, x[indices])


def _try_matmul(probed: Any) -> None:
    a, b = (np.random.default_rng(seed).integers(-7, 8, (256, 256)) for seed in (0, 1))
    product = probed.matmul(a.astype("float32"), b.astype("float32"))  # small whole numbers: exact in every precision
    if wrong := int((product != a @ b).sum()):
        raise ArithmeticError(f"{wrong} of {product.size} products are wrong")


def _try_convolution(probed: Any, device: str, *, xla: bool) -> None:
    """Try a layer and its gradients in every precision that the backend trains in on this device by these kernels."""
    layer = convolution_numbers()
    expected = expected_convolution(*layer)
    precisions = [each for each in DTYPES if each != "tf32" or device.startswith("gpu")]
    if xla and isinstance(probed, _TensorFlow) and device.startswith("cpu"):
        precisions = ["float32"]  # there it trains by its own kernels: is XLA there at all?
    for precision in precisions:
        try:
            for name, got, want in zip(PARTS, probed.convolution(layer, precision, xla=xla), expected, strict=True):
                _compare(name, got, want)
        except Exception as error:
            error.add_note(f"in {precision}")
            raise


def convolution_numbers() -> Layer:
    """Return x, kernel, bias and dy of a layer: whole numbers and halves whose sums stay below 64.

    A bias's half leaves no sum at ReLU's edge.
    """
    random = np.random.default_rng(0)
    x = random.integers(0, 3, (2, 12, 12, 32))
    kernel = random.integers(-1, 2, (3, 3, 32, 32)) * random.integers(0, 2, (3, 3, 32, 32))
    bias = random.integers(-2, 3, 32) + 0.5
    dy = random.integers(0, 8, (2, 12, 12, 32)) == 0
    return tuple(each.astype("float32") for each in (x, kernel, bias, dy))  # type: ignore[return-value]


def expected_convolution(x: Array, kernel: Array, bias: Array, dy: Array) -> tuple[Array, Array, Array, Array]:
    """Return relu(convolution + bias), and the gradients of x, kernel and bias for this dy."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    dpadded, dkernel = np.zeros_like(padded), np.zeros_like(kernel)
    places = {(i, j): np.s_[:, i : i + height, j : j + width] for i in range(3) for j in range(3)}
    sums = bias + sum(padded[place] @ kernel[at] for at, place in places.items())
    dsums = dy * (sums > 0)
    for at, place in places.items():
        dkernel[at] = np.tensordot(padded[place], dsums, ((0, 1, 2), (0, 1, 2)))
        dpadded[place] += dsums @ kernel[at].T
    return np.maximum(sums, 0), dpadded[:, 1:-1, 1:-1], dkernel, dsums.sum((0, 1, 2))


def _compare(name: str, got: Any, expected: Any, limit: float = MAX_ERROR) -> None:
    off = float(np.abs(np.asarray(got, "float32") - expected).max())
    if not off <= limit:  # also for NaN
        raise ArithmeticError(f"{name} is off by {off:g}")
