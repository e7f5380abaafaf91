"""Which cases the benchmarks have, by level."""

import contextlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from alexnet_repro import DataLoader, Evaluation, synthetic_fashion
from benchmarks import cases as module
from benchmarks import test_evaluate, test_training

MODULE = SimpleNamespace(
    BATCHES={"cpu": (1, 32), "gpu": (32,)}, ALL_BATCHES={"cpu": (1, 8), "gpu": (32, 64)}, CHECKS=("shapes", "layers")
)
TIMED = ("device", "batch", "precision", "xla")


def ids(cases):
    """Return the ids of parameters."""
    return [case.id for case in cases]


def test_default_cases():
    """Each batch in each precision of the device; XLA isn't named. Ids never change: comparisons are by them."""
    assert ids(module.cases(TIMED, ["cpu:0", "gpu:1"], MODULE, level="standard")) == [
        "device=cpu:0-batch=1-precision=float32",
        "device=cpu:0-batch=1-precision=mixed_bfloat16",
        "device=cpu:0-batch=32-precision=float32",
        "device=cpu:0-batch=32-precision=mixed_bfloat16",
        "device=gpu:1-batch=32-precision=float32",
        "device=gpu:1-batch=32-precision=tf32",
        "device=gpu:1-batch=32-precision=mixed_float16",
        "device=gpu:1-batch=32-precision=mixed_bfloat16",
    ]


def test_long_cases(monkeypatch):
    """At the long level are all batches, and each once more with XLA other than it is by itself, which is named."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    assert ids(module.cases(TIMED, ["cpu:0"], MODULE, level="long")) == [
        "device=cpu:0-batch=1-precision=float32",
        "device=cpu:0-batch=1-precision=float32-xla=on",
        "device=cpu:0-batch=1-precision=mixed_bfloat16",
        "device=cpu:0-batch=1-precision=mixed_bfloat16-xla=on",
        "device=cpu:0-batch=8-precision=float32",
        "device=cpu:0-batch=8-precision=float32-xla=on",
        "device=cpu:0-batch=8-precision=mixed_bfloat16",
        "device=cpu:0-batch=8-precision=mixed_bfloat16-xla=on",
    ]


def test_quick_cases():
    """At the quick level there are the batches of the module that are for it, or else those of the standard level."""
    quick = SimpleNamespace(**{**vars(MODULE), "QUICK_BATCHES": {"cpu": (8,), "gpu": (64,)}})
    names, devices = ("device", "batch"), ["cpu:0", "gpu:1"]
    assert ids(module.cases(names, devices, quick, level="quick")) == ["device=cpu:0-batch=8", "device=gpu:1-batch=64"]
    assert ids(module.cases(names, ["cpu:0"], MODULE, level="quick")) == [
        "device=cpu:0-batch=1",
        "device=cpu:0-batch=32",
    ]


@pytest.mark.parametrize("level", ["quick", "standard", "long"])
def test_checks_are_the_same_at_each_level(level):
    """Checks run in the precisions that they depend on, whatever is timed."""
    assert ids(module.cases(("device", "check"), ["cpu:0"], MODULE, level=level)) == [
        "device=cpu:0-check=shapes",
        "device=cpu:0-check=layers-precision=float32",
        "device=cpu:0-check=layers-precision=mixed_bfloat16",
    ]


def test_other_xla():
    """By itself, TensorFlow uses XLA where a process sees a GPU, JAX always; PyTorch has none."""
    assert module.OTHER_XLA == {
        "tensorflow": {"cpu": ("on",), "gpu": ("off",)},
        "jax": {"cpu": ("off",), "gpu": ("off",)},
        "torch": {"cpu": (), "gpu": ()},
    }


@pytest.mark.parametrize(
    ("kind", "gpus"),
    [
        pytest.param("cpu", [], id="device=cpu"),
        pytest.param("gpu", [SimpleNamespace(device_type="GPU")], id="device=gpu"),
    ],
)
def test_xla_is_what_keras_decides(monkeypatch, kind, gpus):
    """Keras compiles by default exactly what has "off" for its other case, by the GPUs that TensorFlow lists."""
    if (backend := keras.backend.backend()) == "tensorflow":
        monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda *_: gpus)
    elif gpus:
        pytest.skip("it doesn't depend on GPUs there")
    compiled = bool(keras.Sequential([keras.Input((1,))]).jit_compile)
    assert compiled == (module.OTHER_XLA[backend][kind] == ("off",))


OUTPUTS = np.array([[0.5, 0.25], [0.75, 0.25], [0.2, 0.8], [0.4, 0.6]])
LOSS = -np.log([0.5 / 0.75, 0.75 / 1.0, 0.2 / 1.0, 0.4 / 1.0]).mean()


@pytest.mark.parametrize(
    ("evaluation", "expected"),
    [
        pytest.param(Evaluation(LOSS, 0.5, 4), None, id="fault=none"),
        pytest.param(Evaluation(LOSS + 0.01, 0.5, 4), "the loss is", id="fault=loss"),
        pytest.param(Evaluation(float("nan"), 0.5, 4), "the loss is nan", id="fault=nan"),
        pytest.param(Evaluation(LOSS, 0.75, 4), "accuracy is 0.7500, should be 0.5000", id="fault=accuracy"),
        pytest.param(Evaluation(LOSS, 0.5, 3), "3 images were counted, should be 4", id="fault=images"),
    ],
)
def test_evaluation_is_compared_with_outputs(evaluation, expected):
    """Loss, accuracy and number are those of sigmoid outputs; the second half's labels are the least likely."""
    labels = test_evaluate.likely_then_unlikely(OUTPUTS)
    np.testing.assert_array_equal(labels, [0, 0, 0, 0])
    fault = test_evaluate.differs(evaluation, OUTPUTS, labels, drift=1e-4)
    assert (fault is None) if expected is None else expected in fault


def test_evaluation_is_compiled_once(monkeypatch):
    """Rounds time evaluating, not compiling: each is given what was compiled before the first."""
    compiled, given = [], []
    images = DataLoader.from_arrays(*synthetic_fashion(4, 4), seed=0)
    model = SimpleNamespace(predict_on_batch=lambda images: OUTPUTS[: len(images)])
    config = SimpleNamespace(running=contextlib.nullcontext, model=lambda: (model, []))
    for name, stand_in in {
        "IMAGES": {"cpu": 4},
        "PREDICTED": 4,
        "CheckConfig": lambda *_: config,
        "evaluation_classifier": lambda *_: compiled.append("compiled") or compiled[-1],
        "evaluate": lambda *_, classifier=None, **__: given.append(classifier),
    }.items():
        monkeypatch.setattr(test_evaluate, name, stand_in)
    test_evaluate.test_evaluate("cpu:0", "float32", images, lambda work, *_, **__: [work() for _ in range(3)])
    assert (compiled, given) == (["compiled"], ["compiled"] * 3)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("updates_per_call", "updates"),
    [pytest.param(1, 2, id="updates_per_call=1"), pytest.param(32, 32, id="updates_per_call=32")],
)
def test_training_is_timed_as_it_trains(monkeypatch, updates_per_call, updates):
    """A round is as many updates as training makes a call, where that is more than two."""
    monkeypatch.setattr(test_training, "best_train_step", lambda *_: SimpleNamespace(updates_per_call=updates_per_call))
    history = lambda _, __, recipe, **___: SimpleNamespace(losses=[0.0] * recipe.num_updates)  # noqa: E731
    monkeypatch.setattr(test_training, "train", history)
    rounds = []
    test_training.test_training(
        "cpu:0", 8, "float32", None, lambda work, _, *, images, **__: rounds.append((work(), images))
    )
    assert rounds == [([0.0] * updates, 8 * updates)]
