"""Measured beats version numbers: where TensorFlow computes right, a version that isn't as asked for is a remark."""

import shlex
from dataclasses import replace

import pytest

from tests.helpers.machines import A100, CPU, TENSORFLOW, box, diagnose, driver, requirement, results, without


@pytest.mark.parametrize(
    ("name", "wanted", "has"),
    [
        ("libclang", ">=13.0.0", None),
        ("tensorboard", "~=2.21.0", None),
        ("tensorflow-io-gcs-filesystem", ">=0.23.1", None),
        ("numpy", "<2.1.0,>=1.26.0", "2.4.6"),
        ("protobuf", "<6,>=3.20.3", "7.36.2"),
    ],
)
def test_measured_beats_version_numbers(name, wanted, has):
    """Where TensorFlow imports and computes right, a requirement that isn't as asked for is a remark with a fix."""
    findings = diagnose(replace(CPU, tensorflow=requirement(name, wanted, has)))
    assert [each for each in findings if each.status != "PASS"] == []
    (remark,) = (each for each in findings if each.check == "requirements")
    assert f"{f'{name} {has}' if has else f'no {name}'} is installed" in remark.message
    assert remark.fix.removeprefix("pip install ").strip("'") == f"{name}{wanted}"


COMPAT = "/usr/local/cuda/compat/libcuda.so.555.42.06"


@pytest.mark.parametrize("cuda", [(11, 4), (12, 5), None])
@pytest.mark.parametrize("version", ["470.57.02", "515.65.01"])
def test_old_driver_that_computes_is_a_remark(version, cuda):
    """Where every probe passes on an older driver, its version fails nothing; the libcuda in use is named."""
    found = tuple(replace(each, path=COMPAT) if each.name == "libcuda.so.1" else each for each in without())
    findings = diagnose(box(A100, nvidia=driver(version, cuda, A100), libraries=found))
    assert [each for each in findings if each.status != "PASS"] == []
    (remark,) = (each for each in findings if each.check == "driver version")
    assert f"driver {version} is older than CUDA 12.5.1" in remark.message
    assert remark.evidence == f"libcuda.so.1 is {COMPAT}"
    assert "ubuntu-drivers" in remark.fix


@pytest.mark.parametrize("folder", ["/site/~ensorflow-2.20.0.dist-info", "/site/numpy-1.25.4.dist-info", "/a b/~umpy"])
def test_leftover_is_a_remark_with_its_mend(folder):
    """Metadata that pip left behind fails nothing; the fix removes that folder, which pip doesn't."""
    findings = diagnose(replace(CPU, tensorflow=replace(TENSORFLOW, leftovers=(folder,))))
    assert [each for each in findings if each.status != "PASS"] == []
    (remark,) = (each for each in findings if each.check == "metadata")
    assert shlex.split(remark.fix) == ["rm", "-r", folder]


def test_gpus_that_tensorflow_alone_sees():
    """GPUs that no driver of NVIDIA's lists are named as such where TensorFlow lists them."""
    (found,) = (
        each for each in diagnose(replace(CPU, results=results("cpu:0", ("AMD Instinct",)))) if each.check == "devices"
    )
    assert (found.status, found.message) == (
        *("PASS", "TensorFlow sees 1 GPUs: AMD Instinct; the doctor examines NVIDIA's alone"),
    )
