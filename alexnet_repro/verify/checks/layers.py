"""Checks of the model: it is the documented one, and the device computes each of its layers right, compiled or not."""

from dataclasses import replace
from itertools import zip_longest

from keras import ops

from alexnet_repro import documented
from alexnet_repro.data.resize import resize_with_pad
from alexnet_repro.model import SMALLEST_SIDE, build_alexnet, layer_rows
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.numerics.layers import layer_comparisons


def shapes(config: CheckConfig) -> Finding:
    """Each layer has the documented name, output shape, parameters and multiply-accumulates, at the full size."""
    with config.running():
        built = list(layer_rows(build_alexnet(kernel_initializer="zeros")))
    for found, right in zip_longest(built, documented.LAYERS):
        if found != right:
            name = next(row.name for row in (right, found) if row)
            built_as, documented_as = (
                f"{row.output_shape}, {row.parameters:,} parameters, {row.macs:,} MACs" if row else "not at all"
                for row in (found, right)
            )
            evidence = f"built {built_as}, documented {documented_as}"
            fix = "pip install --force-reinstall alexnet-repro"
            return Finding("shapes", "FAIL", f"{name} isn't the documented layer", evidence, fix)
    parameters = sum(row.parameters for row in built)
    return Finding("shapes", "PASS", f"all {len(built)} layers", number=parameters, bound=documented.TOTAL_PARAMETERS)


def layers(config: CheckConfig) -> Finding:
    """Every layer's output and gradients are the float64 oracle's, within rounding; on TensorFlow uncompiled."""
    return _compared(config, "layers", compiled=False)


def compiled_layers(config: CheckConfig) -> Finding:
    """So are those of a layer that XLA compiles, both directions as one program, from the operations it trains with.

    On a CPU, where nothing else is compiled on TensorFlow, images are small.
    """
    if config.device.startswith("cpu"):
        config = replace(config, side=SMALLEST_SIDE)
    return _compared(config, "compiled_layers", compiled=True)


def _compared(config: CheckConfig, check: str, *, compiled: bool) -> Finding:
    images, labels = config.loader().draw_train(config.batch)
    with config.running():
        model, weights = config.model(for_xla=compiled or None)
        pixels = ops.convert_to_numpy(resize_with_pad(images.astype("float32") / 255, config.side, config.side))
        rows = []
        found = layer_comparisons(
            *(model, weights, pixels, labels), precision=config.precision, device=config.device, compiled=compiled
        )
        for row in found:
            if not row.ok:
                return Finding(check, "FAIL", str(row), fix=row.fix, number=row.error, bound=row.bound)
            rows.append(row)
    # Of the sums: rounding a result alone often reaches its bound, and says less.
    closest = max((row for row in rows if row.terms), key=lambda row: row.ratio)
    message = f"{len(rows)} arrays within their bounds; the closest sum, at {closest.ratio:.0%}: {closest}"
    return Finding(check, "PASS", message, number=closest.error, bound=closest.bound)
