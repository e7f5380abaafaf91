"""Made-up records of trainings, with round figures, from which tests make pages."""

from alexnet_repro import Recipe
from benchmarks.records.tools.runs import RUNS

LAYERS = [
    {"name": "conv2d", "kind": "Conv2D", "output_shape": [54, 54, 96], "parameters": 11_712, "filters": 96},
    {"name": "max_pooling2d", "kind": "MaxPooling2D", "output_shape": [26, 26, 96], "parameters": 0},
    {"name": "conv2d_1", "kind": "Conv2D", "output_shape": [26, 26, 256], "parameters": 614_656, "filters": 256},
    {"name": "max_pooling2d_1", "kind": "MaxPooling2D", "output_shape": [12, 12, 256], "parameters": 0},
    {"name": "conv2d_2", "kind": "Conv2D", "output_shape": [12, 12, 384], "parameters": 885_120, "filters": 384},
    {"name": "conv2d_3", "kind": "Conv2D", "output_shape": [12, 12, 384], "parameters": 1_327_488, "filters": 384},
    {"name": "conv2d_4", "kind": "Conv2D", "output_shape": [12, 12, 256], "parameters": 884_992, "filters": 256},
    {"name": "max_pooling2d_2", "kind": "MaxPooling2D", "output_shape": [5, 5, 256], "parameters": 0},
    {"name": "flatten", "kind": "Flatten", "output_shape": [6400], "parameters": 0},
    {"name": "dense", "kind": "Dense", "output_shape": [4096], "parameters": 26_218_496},
    {"name": "dropout", "kind": "Dropout", "output_shape": [4096], "parameters": 0},
    {"name": "dense_1", "kind": "Dense", "output_shape": [4096], "parameters": 16_781_312},
    {"name": "dropout_1", "kind": "Dropout", "output_shape": [4096], "parameters": 0},
    {"name": "dense_2", "kind": "Dense", "output_shape": [10], "parameters": 40_970},
]
for layer in LAYERS:
    if layer["kind"] == "Conv2D":
        layer["kernel_size"] = {"conv2d": [11, 11], "conv2d_1": [5, 5]}.get(layer["name"], [3, 3])
    if layer["kind"] == "MaxPooling2D":
        layer |= {"pool_size": [3, 3], "strides": [2, 2]}


def outcome(accuracy):
    """Return an evaluation on 10,000 images; a draw of 2,000 has a loss of 0.4867 ± 0.01."""
    spread = {"mean": 0.4867, "std": 0.01, "low": 0.467, "high": 0.507}
    return {
        "updates": 9_336,
        "num_samples": 10_000,
        "accuracy": accuracy,
        "losses": {"normalised_sigmoid": 0.4867, "softmax": 0.5},
        "confusion": [
            [1000 - 10 * (n == 6) if n == m else 10 * (n == 6 and m == 0) for m in range(10)] for n in range(10)
        ],
        "document_draw": {
            "samples": 2_000,
            "repeats": 1_000,
            "accuracy": {"mean": accuracy, "std": 0.008, "low": accuracy - 0.016, "high": accuracy + 0.016},
            "losses": {"normalised_sigmoid": spread, "softmax": spread},
        },
    }


def measured(*found):
    """Return the evaluations made while training, from updates, accuracy and loss of each."""
    names = ("updates", "accuracy", "loss", "num_samples")
    return [dict(zip(names, (*each, 10_000), strict=True)) for each in found]


def record(name, *, accuracy=0.84, seed=None, **fields):
    """Return a record of the training of that name; after its first epoch accuracy was 0.8, with `softmax` 0.75."""
    run = RUNS[name]
    recipe = {
        "name": run.recipe,
        "loss": run.loss,
        "batch_size": run.batch_size,
        "epochs": run.epochs,
        "learning_rate": 0.01,
        "draw_size": 128,
        "draws_per_epoch": 468,
        "preliminary_draws": 1,
    }
    updates = (1 + 468 * run.epochs) * 128 // run.batch_size
    first = (1 + 468) * 128 // run.batch_size
    if run.recipe == "quick":
        recipe, updates = Recipe.quick().as_data(), Recipe.quick().num_updates
        first = updates
    return {
        "schema": 1,
        "name": name,
        "command": "python -m alexnet_repro train --recipe=quick",
        "note": "",
        "recorded": "2026-11-25",
        "revision": "0123456789ab",
        "environment": {
            "cpu": "A processor, 2 processors",
            "gpus": [],
            "packages": {"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.0"},
        },
        "data": "Fashion-MNIST",
        "seed": run.seed if seed is None else seed,
        "precision": run.precision,
        "recipe": recipe,
        "layers": LAYERS,
        "draw": {"x": [128, 224, 224, 1], "y": [128]},
        "training": {
            "images": updates * run.batch_size,
            "seconds": 1000.0,
            "first_update_seconds": 3.0,
            "images_per_second": 40.0,
        },
        "updates": {"losses": [2.31, 2.3, 2.3, 2.29], "accuracies": [0.0625, 0.09375, 0.03125, 0.0625]},
        "evaluations": [
            {
                "updates": first,
                "loss": 0.6,
                "accuracy": 0.8 if run.loss == "normalised_sigmoid" else 0.75,
                "num_samples": 10_000,
            }
        ],
        "final": outcome(accuracy),
        "saved": outcome(accuracy) if run.recipe == "documented" else None,
        **fields,
    }
