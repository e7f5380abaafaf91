"""The doctor's findings on variables, and a file of Keras's, that change numbers or end what reads them."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor import software
from alexnet_repro.verify.doctor.device_probe import ProbeResult
from alexnet_repro.verify.finding import Finding
from tests.helpers.machines import A100, CPU, SYNTHETIC, T4, TWO, Case, box, results

CASES = {
    "TF32 forced": Case(
        "github.com/alibaba/DeepRec, NVIDIA-TF32.md: NVIDIA_TF32_OVERRIDE=0",
        box(A100, settings={"NVIDIA_TF32_OVERRIDE": "0"}),
        "settings",
        "INCONCLUSIVE",
        ("TensorFloat-32 on or off", "unset NVIDIA_TF32_OVERRIDE"),
    ),
    "oneDNN off": Case(
        "TensorFlow's log: slightly different numerical results; set TF_ENABLE_ONEDNN_OPTS=0",
        replace(CPU, settings={"TF_ENABLE_ONEDNN_OPTS": "0"}),
        "settings",
        "INCONCLUSIVE",
        ("last bits", "TF_ENABLE_ONEDNN_OPTS=0", "unset TF_ENABLE_ONEDNN_OPTS"),
    ),
    "XLA everywhere": Case(
        SYNTHETIC,
        replace(CPU, settings={"TF_XLA_FLAGS": "--tf_xla_auto_jit=2", "XLA_FLAGS": "--xla_gpu_cuda_data_dir=/usr"}),
        "settings",
        "INCONCLUSIVE",
        ("with XLA", "--tf_xla_auto_jit=2", "unset TF_XLA_FLAGS"),
    ),
    "oneDNN limited": Case(
        "github.com/uxlfoundation/oneDNN/issues/2230: DNNL_MAX_CPU_ISA",
        replace(CPU, settings={"DNNL_MAX_CPU_ISA": "SSE41"}),
        "settings",
        "INCONCLUSIVE",
        ("limits the instructions of oneDNN", "DNNL_MAX_CPU_ISA=SSE41", "unset DNNL_MAX_CPU_ISA"),
    ),
    "one thread": Case(
        "github.com/tensorflow/community/pull/346: the number of threads decides",
        replace(CPU, settings={"TF_NUM_INTRAOP_THREADS": "1"}),
        "settings",
        "INCONCLUSIVE",
        ("number of threads", "TF_NUM_INTRAOP_THREADS=1", "unset TF_NUM_INTRAOP_THREADS"),
    ),
    "Keras's file": Case(
        "github.com/keras-team/keras/issues/9582: float16 in keras.json",
        replace(CPU, settings={"keras.floatx": "float16"}),
        "settings",
        "INCONCLUSIVE",
        ("precision", "keras.floatx=float16 in keras.json", 'remove "floatx" from that file'),
    ),
    "not a truth value": Case(
        "github.com/tensorflow/tensorflow/pull/24355: 0, false, 1 and true are understood",
        replace(CPU, settings={"TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "off"}),
        "settings",
        "INCONCLUSIVE",
        ("isn't understood, which ends a process", "unset TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"),
    ),
    "flags that end the process": Case(
        "xla/parse_flags_from_env.cc: a text without a dash is a file's name",
        replace(CPU, settings={"XLA_FLAGS": "/nowhere"}, results=results("cpu:0", xla="exit status 1")),
        "xla, settings",
        "FAIL",
        ("isn't understood, which ends a process", "with XLA_FLAGS=/nowhere", "run it without XLA_FLAGS; then: "),
    ),
}


@pytest.mark.parametrize(
    ("setting", "wanted", "status"),
    [
        ("NVIDIA_TF32_OVERRIDE=0", ("cpu:0",), "PASS"),
        ("NVIDIA_TF32_OVERRIDE=0", ("cpu:0", "gpu:0"), "INCONCLUSIVE"),
        ("NVIDIA_TF32_OVERRIDE=0", (), "INCONCLUSIVE"),
        ("TF_DETERMINISTIC_OPS=1", ("cpu:0",), "PASS"),
        ("TF_DETERMINISTIC_OPS=maybe", ("cpu:0",), "INCONCLUSIVE"),
        ("XLA_FLAGS=--xla_gpu_ftz=true", ("cpu:0",), "PASS"),
        ("XLA_FLAGS=--xla_gpu_ftz=true --xla_cpu_enable_fast_math=true", ("cpu:0",), "INCONCLUSIVE"),
    ],
)
def test_settings_of_gpus(setting, wanted, status):
    """Where the CPU alone is to be examined, what GPUs alone read is no doubt, nor beside a failure of the CPU's."""
    name, _, text = setting.partition("=")
    here = replace(CPU, settings={name: text}, wanted=wanted)
    (found,) = software.settings(here)
    assert found.status == status
    failed = software.beside_settings(Finding("update", "FAIL", "wrong", device="cpu:0"), here)
    assert (name in failed.fix) == ("cpu" in text or text == "maybe")


@pytest.mark.parametrize(("gpus", "status"), [((T4,), "PASS"), (TWO, "INCONCLUSIVE")], ids=["gpus=1", "gpus=2"])
def test_settings_between_gpus(gpus, status):
    """How GPUs exchange gradients is doubted where there are several, not beside a failure of one of them."""
    here = replace(box(*gpus), settings={"NCCL_P2P_DISABLE": "1"})
    (found,) = software.settings(here)
    assert found.status == status
    assert "NCCL" not in software.beside_settings(Finding("update", "FAIL", "wrong", device="gpu:0"), here).fix


@pytest.mark.parametrize(
    ("log", "named"),
    [
        ("", "TF_XLA_FLAGS XLA_FLAGS"),
        ("Unknown flag in XLA_FLAGS: --bogus", "TF_XLA_FLAGS"),
        ("Unknown flags in TF_XLA_FLAGS: --bogus=1", "XLA_FLAGS"),
        ("Couldn't interpret value x for flag xla_gpu_ftz", ""),
    ],
)
def test_setting_that_failed_is_no_doubt(log, named):
    """A variable that a failure names as its cause isn't doubted beside it; others are."""
    result = ProbeResult("cpu:0", "xla", "exit status 1", log=log)
    here = replace(CPU, settings={"XLA_FLAGS": "--bogus", "TF_XLA_FLAGS": "--bogus=1"}, results=(result,))
    found = list(software.settings(here))
    assert [(each.status, each.fix) for each in found] == [("INCONCLUSIVE", f"unset {name}") for name in named.split()]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"case={name}") for name, case in CASES.items()])
def test_fault_is_named_with_evidence_and_fix(case):
    """Exactly these checks fail or are inconclusive, as bad as they are, and their words name the cause and the fix."""
    assert case.mistakes() == []
