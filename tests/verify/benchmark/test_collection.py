"""Which benchmarks are collected, by which ids and in which order."""

import importlib.util
import os
import re
import subprocess
import sys

import keras
import pytest

from tests.helpers.paths import ROOT
from tests.helpers.pytest_here import benchmarks_apart, benchmarks_here, collected

IDS = (
    "test_correct.py::test_correct[device=cpu:0-check=shapes]",
    "test_correct.py::test_correct[device=cpu:0-check=layers-precision=float32]",
    "test_correct.py::test_correct[device=cpu:0-check=layers-precision=mixed_bfloat16]",
    "test_repeatable.py::test_replay[device=cpu:0-check=replay-precision=float32]",
    "test_reference.py::test_golden[device=cpu:0-precision=float32]",
    "test_burn_in.py::test_burn_in[device=cpu:0]",
    "test_overhead.py::test_overhead[device=cpu:0]",
    "test_evaluate.py::test_evaluate[device=cpu:0-precision=float32]",
    "test_forward.py::test_forward[device=cpu:0-batch=128-precision=mixed_bfloat16]",
    "test_input_pipeline.py::test_draw_train[batch=128]",
    "test_resize.py::test_resize[device=cpu:0-batch=128-side=28]",
    "test_train_step.py::test_train_step[device=cpu:0-batch=32-precision=float32]",
)
XDIST = pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="pytest-xdist isn't installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paths", "benchmarks"),
    [
        pytest.param(["."], True, id="paths=."),
        pytest.param(["benchmarks", "tests/records"], True, id="paths=benchmarks tests"),
        pytest.param([], False, id="paths=none"),
        pytest.param([".", "-n2"], True, id="paths=. -n2", marks=XDIST),
        pytest.param(["tests", "benchmarks", "--import-mode=append"], True, id="paths=tests benchmarks append"),
    ],
)
def test_everything_can_be_collected(paths, benchmarks):
    """Tests and benchmarks are collected together, in any order; benchmarks are last; ids are of `name=value`."""
    done = benchmarks_apart("--collect-only", "--quiet", paths=paths)
    assert done.returncode == 0, done.stdout
    ids = [line for line in done.stdout.splitlines() if "::" in line]
    ours = [each.startswith("benchmarks/") for each in ids]
    assert len(set(ids)) == len(ids)
    assert [each for each in ids if "[" in each and not re.search(r"\[\w+=", each)] == []
    assert (any(ours), all(ours)) == (benchmarks, False)
    assert sorted(ours) == ours


def test_collecting_writes_nothing(tmp_path):
    """Ids are stable; correctness comes first, then determinism, then performance; and no folder is made."""
    ids = collected(f"--report={tmp_path / 'report'}")
    assert [each for each in ids if each in IDS] == list(IDS)
    assert not any("gpu:" in each for each in ids)
    assert list(tmp_path.iterdir()) == []


def test_long_level_has_all_of_the_standard_one():
    """At the long level are more batches, and XLA other than by default; what was there is there in its order."""
    few, all_of_them = collected(), collected("--level=long")
    more = set(all_of_them) - set(few)
    assert [each for each in all_of_them if each not in more] == few
    assert "test_forward.py::test_forward[device=cpu:0-batch=256-precision=float32]" in more
    if keras.backend.backend() != "torch":  # which has no XLA
        xla = "on" if keras.backend.backend() == "tensorflow" else "off"
        assert f"test_train_step.py::test_train_step[device=cpu:0-batch=32-precision=mixed_bfloat16-xla={xla}]" in more
    assert all("test_forward" in each or "test_train_step" in each for each in more)


FORWARD = "test_forward.py::test_forward[device=cpu:0-batch={}-precision={}]"


@pytest.mark.parametrize(
    ("keyword", "selected"),
    [
        ("test_forward and batch=1", [(1, "float32"), (1, "mixed_bfloat16")]),
        ("test_forward and batch=12", []),
        ("test_forward and device=cpu and batch=1", [(1, "float32"), (1, "mixed_bfloat16")]),
        (
            "FORWARD and (Batch=1 or batch=32) and not precision=float32",
            [(1, "mixed_bfloat16"), (32, "mixed_bfloat16")],
        ),
        ("test_forward[device=cpu:0-batch=1-precision=float32]", [(1, "float32")]),
        ("test_forward.py::test_forward[device=cpu:0-batch=128-precision=float32]", [(128, "float32")]),
        ("forward and batch=128-precision=mixed_bfloat16", [(128, "mixed_bfloat16")]),
    ],
    ids=lambda value: "k=" + value.replace("=", " ") if isinstance(value, str) else f"tests={len(value)}",
)
def test_selected_by_id(keyword, selected):
    """`-k` takes the pairs of an id, each as a whole, in expressions, and whole ids."""
    status, printed = benchmarks_here("--collect-only", "--quiet", "--device=cpu:0", "-k", keyword)
    found = [line.removeprefix("benchmarks/") for line in printed.splitlines() if "::" in line]
    assert found == [FORWARD.format(*each) for each in selected]
    assert status == (0 if selected else 5), printed


def test_option_of_another_plugin(tmp_path):
    """Where pytest-profiling has taken the option --profile, one line says so, and what to type."""
    (tmp_path / "profiling_for_test.py").write_text(
        "def pytest_addoption(parser):\n    parser.getgroup('another').addoption('--profile', action='store_true')\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "profiling_for_test", "--collect-only", "tests/test_files.py"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environ)
    assert found.returncode == 4
    assert (
        "ERROR: pytest-profiling has an option --profile, too; leave it out: pytest -p no:profiling"
        in found.stderr.splitlines()
    )
