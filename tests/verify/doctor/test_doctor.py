"""The doctor on healthy machines, its order, its report and its command; faults are tested beside their checks."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet_repro.verify.doctor import doctor
from alexnet_repro.verify.doctor.device_probe import CHECKS
from alexnet_repro.verify.doctor.environment import Volume
from alexnet_repro.verify.finding import Finding, exit_status, worst
from tests.helpers.machines import A100, CPU, GIB, MIB, SYNTHETIC, T4, TWO, box, diagnose, results
from tests.verify.doctor import test_cuda_software, test_doubts, test_gpus, test_health, test_software


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        pytest.param(CPU, "the GPU checks weren't run", id="machine=CPU"),
        pytest.param(box(A100), "all 15 can be loaded", id="machine=A100"),
        pytest.param(box(*TWO), "TensorFlow sees 2 GPUs", id="machine=two A100"),
        pytest.param(box(*[replace(A100, index=i) for i in range(8)]), "8 in this machine", id="machine=eight A100"),
        pytest.param(
            box(replace(A100, name="NVIDIA H100", capability=(9, 0))), "compute capability 9.0", id="machine=H100"
        ),
        pytest.param(box(T4), "Tesla T4, compute capability 7.5", id="machine=T4"),
        pytest.param(box(replace(A100, persistence=False)), "sudo nvidia-smi -pm 1 -i 0", id="machine=no persistence"),
        pytest.param(
            box(
                *TWO, settings={"CUDA_VISIBLE_DEVICES": "GPU-b"}, results=results("cpu:0", ("A100",)) + results("gpu:0")
            ),
            "1 of 2 GPUs named",
            id="machine=one of two named",
        ),
        pytest.param(
            box(
                A100,
                replace(A100, index=1, uuid="GPU-b", ecc_uncorrected=9, processes=("pid 1 (another's)",)),
                settings={"CUDA_VISIBLE_DEVICES": "0"},
                results=results("cpu:0", ("A100",)) + results("gpu:0"),
            ),
            "health",
            id="machine=another's GPU faulty",
        ),
        pytest.param(
            # github.com/tensorflow/tensorflow/issues/63341: no device files under Windows
            box(A100, device_files=(), control_files=(), listed_by_driver=0, on_pci_bus=0),
            "1 in this machine",
            id="machine=WSL",
        ),
        pytest.param(
            replace(CPU, settings={"TF_ENABLE_ONEDNN_OPTS": "1", "XLA_FLAGS": "--xla_gpu_cuda_data_dir=/usr"}),
            "none that changes results",
            id="machine=harmless settings",
        ),
        pytest.param(
            replace(CPU, settings={"TF_ENABLE_ONEDNN_OPTS": "off"}),
            "TF_ENABLE_ONEDNN_OPTS=off isn't understood, and has no effect",
            id="machine=setting not understood",
        ),
        pytest.param(
            replace(CPU, defaults={"TF_ENABLE_ONEDNN_OPTS": "0"}, settings={"TF_ENABLE_ONEDNN_OPTS": "0"}),
            "oneDNN is off on this processor",
            id="machine=without oneDNN",
        ),
        pytest.param(replace(CPU, shared_memory=64 * MIB, container="docker"), "64 MiB", id="machine=CPU in Docker"),
    ],
)
def test_healthy_machine_passes(here, expected):
    """Every check of a healthy machine passes; its parts, and what could be better, are reported."""
    findings = diagnose(here)
    assert [finding for finding in findings if finding.status != "PASS"] == []
    assert expected in "\n".join(map(str, findings))


@pytest.mark.parametrize(
    ("statuses", "overall", "status"),
    [
        ("PASS", "PASS", 0),
        ("PASS FAIL INCONCLUSIVE", "FAIL", 1),
        ("PASS INCONCLUSIVE", "INCONCLUSIVE", 3),
        ("", "PASS", 0),
    ],
)
def test_worst_finding_decides(statuses, overall, status):
    """FAIL outweighs INCONCLUSIVE, and that PASS; the exit statuses are 1, 3 and 0."""
    assert worst([Finding("a", each, "b") for each in statuses.split()]) == overall
    assert exit_status(overall) == status


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes this machine another, and returns the list of devices that are then checked."""

    def become(here, failing=""):
        checked = []

        def probe_device(backend, device, _deadline, environ):
            checked.append((device, environ.get("CUDA_VISIBLE_DEVICES")))
            seen = tuple(gpu.name for gpu in here.nvidia.gpus)
            errors = {"xla": "no answer within 1 s"} if device == failing else {}
            yield from results(device, seen, backend, **errors)

        monkeypatch.setattr(doctor, "read_machine", lambda: replace(here, tensorflow=None, results=()))
        monkeypatch.setattr(doctor, "read_tensorflow", lambda: here.tensorflow)
        monkeypatch.setattr(doctor, "read_nvidia", lambda _files, _deadline: here.nvidia)
        monkeypatch.setattr(doctor, "read_libraries", lambda *_: here.libraries)
        monkeypatch.setattr(doctor, "probe_device", probe_device)
        return checked

    return become


@pytest.mark.parametrize(
    ("here", "checked"),
    [
        pytest.param(CPU, [("cpu:0", None)], id="machine=CPU"),
        pytest.param(box(*TWO), [("cpu:0", None), ("gpu:0", "0"), ("gpu:1", "1")], id="machine=two A100"),
        pytest.param(
            box(*TWO, settings={"CUDA_VISIBLE_DEVICES": "GPU-b"}),
            [("cpu:0", None), ("gpu:0", "GPU-b")],
            id="machine=named",
        ),
        pytest.param(replace(CPU, tensorflow=None), [], id="machine=no TensorFlow"),
    ],
)
def test_each_device_is_checked_alone(machine, here, checked):
    """The CPU, then every GPU that may be used, in a process that sees no other."""
    done = machine(here)
    list(doctor.examine(1))
    assert done == checked


@pytest.mark.parametrize(
    ("platforms", "listing"),
    [(None, None), ("cuda", "cuda,cpu"), ("cuda,cpu", None), ("cpu", None)],
)
def test_jax_that_is_to_use_gpus_alone(machine, monkeypatch, platforms, listing):
    """The child that lists the GPUs computes on the CPU, too, whatever JAX_PLATFORMS names; a GPU's does as it says."""
    machine(box(A100, settings={"JAX_PLATFORMS": platforms} if platforms else {}))
    given = []

    def probe_device(backend, device, _deadline, environ):
        given.append((device, environ.get("JAX_PLATFORMS")))
        yield from results(device, ("A100",), backend)

    monkeypatch.setattr(doctor, "probe_device", probe_device)
    list(doctor.examine(1, backend="jax"))
    assert given == [("cpu:0", listing), ("gpu:0", None)]


FAULTY = replace(A100, index=0, memory_total=40 * GIB, ecc_uncorrected=9, processes=("pid 1 (another's)",))


@pytest.mark.parametrize(
    ("wanted", "visible", "checked", "red"),
    [
        ("gpu:1", None, [("cpu:0", "1"), ("gpu:1", "1")], []),
        ("gpu:0", "1,0", [("cpu:0", "1"), ("gpu:0", "1")], []),
        ("gpu:0", "GPU-b", [("cpu:0", "GPU-b"), ("gpu:0", "GPU-b")], []),
        ("cpu:0", None, [("cpu:0", "-1")], []),
        ("gpu:7", None, [("cpu:0", None)], []),
        ("gpu:0", None, [("cpu:0", "0"), ("gpu:0", "0")], ["memory", "ecc"]),
        (
            "gpu:0 gpu:1",
            None,
            [("cpu:0", "0,1"), ("gpu:0", "0"), ("gpu:1", "1")],
            ["mixed_gpu_models", "memory", "ecc"],
        ),
        ("", None, [("cpu:0", None), ("gpu:0", "0"), ("gpu:1", "1")], ["mixed_gpu_models", "memory", "ecc"]),
    ],
)
def test_unwanted_gpus_arent_checked(machine, wanted, visible, checked, red):
    """A GPU that isn't wanted isn't used, and neither its faults nor its model count."""
    settings = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    done = machine(box(FAULTY, TWO[1], settings=settings))
    findings = [finding for _, finding in doctor.examine(1, wanted=wanted.split())]
    assert done == checked
    assert [each.check for each in findings if each.status != "PASS"] == red


def test_numbers_that_may_mean_another_gpu_leave_none_out(machine):
    """Among GPUs of different names, which CUDA may number otherwise, a faulty one counts whichever is wanted."""
    gpus = (replace(FAULTY, name="Tesla T4"), TWO[1])
    for settings, red in (({}, ["mixed_gpu_models", "memory", "ecc"]), ({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, [])):
        machine(box(*gpus, settings=settings))
        findings = [finding for _, finding in doctor.examine(1, wanted=("gpu:1",))]
        assert [each.check for each in findings if each.status != "PASS"] == red


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_need_no_tensorflow(machine, monkeypatch, backend):
    """Machine, driver and each GPU's health are checked on every backend, and then each device by its own probes."""
    done = machine(box(FAULTY, TWO[1]))
    monkeypatch.setattr(doctor, "read_tensorflow", lambda: pytest.fail("TensorFlow was looked for"))
    known, findings = zip(*doctor.examine(1, backend=backend), strict=True)
    assert [f"{each.check} {each.status}" for each in findings] == [
        *(
            "disk PASS",
            "processors PASS",
            "gpu PASS",
            "driver PASS",
            "shared memory PASS",
            "mixed_gpu_models INCONCLUSIVE",
        ),
        *("memory INCONCLUSIVE", "ecc FAIL", "health PASS"),
        *(f"{check} PASS" for _ in ("cpu:0", "gpu:0", "gpu:1") for check in CHECKS[backend]),
        "settings PASS",
    ]
    assert done == [("cpu:0", None), ("gpu:0", "0"), ("gpu:1", "1")]
    assert known[-1].seen_gpus == {"gpu:0": FAULTY.name, "gpu:1": TWO[1].name}
    assert (known[-1].nvidia.driver, len(known[-1].nvidia.gpus), known[-1].tensorflow) == ("580.95.5", 2, None)
    assert "TensorFlow" not in "\n".join(map(str, findings))


@pytest.mark.parametrize(
    ("setting", "affected"),
    [
        ("TF_XLA_FLAGS=--tf_xla_auto_jit=2", ["tensorflow"]),
        ("TF_ENABLE_ONEDNN_OPTS=0", ["tensorflow"]),
        ("XLA_FLAGS=--xla_gpu_autotune_level=0", ["tensorflow", "jax"]),
        ("NVIDIA_TF32_OVERRIDE=0", ["tensorflow", "jax", "torch"]),
    ],
)
def test_settings_are_inconclusive_where_they_have_an_effect(machine, setting, affected):
    """TensorFlow's variables change no other backend's results, and XLA's don't change PyTorch's."""
    name, _, value = setting.partition("=")
    machine(replace(CPU, settings={name: value}))
    found = []
    for backend in ("tensorflow", "jax", "torch"):
        findings = [finding for _, finding in doctor.examine(1, backend=backend)]
        found += [backend for each in findings if (each.check, each.status) == ("settings", "INCONCLUSIVE")]
    assert found == affected


def test_faulty_device_doesnt_hide_the_others(machine):
    """A GPU that fails is reported, the next one is checked all the same, and no finding comes twice."""
    machine(box(*TWO), failing="gpu:0")
    findings = [finding for _, finding in doctor.examine(1)]
    assert [(each.device, each.check) for each in findings if each.status != "PASS"] == [("gpu:0", "xla")]
    assert [each.check for each in findings if each.device == "gpu:1"] == list(CHECKS["tensorflow"])
    assert len(set(findings)) == len(findings)


def test_report_as_text(machine):
    """The text has a line for each check, and ends with the verdict; a GPU that is required fails by its absence."""
    machine(CPU)
    out = io.StringIO()
    assert doctor.report(out, as_json=False, deadline=1, require_gpu=True) == 1
    lines = out.getvalue().splitlines()
    assert lines[-1] == "FAIL: 12 of 13 checks passed"
    assert [line.split()[1] for line in lines[:-1] if line.startswith("FAIL")] == ["gpu"]


@pytest.mark.parametrize(
    ("here", "failing", "option"),
    [
        pytest.param(replace(CPU, volumes=(Volume("data", "/full", 1),)), "", True, id="failed=disk"),
        pytest.param(box(A100), "gpu:0", True, id="failed=one of two devices"),
        pytest.param(CPU, "cpu:0", False, id="failed=only device"),
        pytest.param(CPU, "", False, id="failed=nothing"),
    ],
)
def test_way_to_go_on(machine, here, failing, option):
    """Where the doctor fails a machine on which some device works, the last line has how to verify it all the same."""
    machine(here, failing)
    out = io.StringIO()
    doctor.report(out, as_json=False, deadline=1, require_gpu=False)
    last = out.getvalue().splitlines()[-1]
    hint = "; to verify what works all the same: python -m alexnet_repro verify --ignore-doctor"
    assert last.endswith(hint) is option


def test_report_as_json(machine):
    """As JSON, each line is an object: the findings with all their fields, then the verdict with the record."""
    machine(box(replace(A100, throttle_reasons=0x8)))
    out = io.StringIO()
    assert doctor.report(out, as_json=True, deadline=1, require_gpu=False) == 3
    *findings, last = map(json.loads, out.getvalue().splitlines())
    fields = (
        *("bound", "case", "check", "data", "device", "evidence", "fix", "kind", "message", "number", "precision"),
        *("scope", "status"),
    )
    assert {tuple(sorted(finding)) for finding in findings} == {fields}
    assert [finding["check"] for finding in findings if finding["status"] != "PASS"] == ["clocks"]
    assert last["verdict"] == "INCONCLUSIVE"
    assert last["environment"]["nvidia"]["gpus"][0]["throttle_reasons"] == 8
    assert len(last["environment"]["results"]) == 2 * len(CHECKS["tensorflow"])


def test_command_without_tensorflow(tmp_path):
    """Where TensorFlow and Keras can't be imported, `doctor` says so at once, names the import, and exits 1."""
    pytest.importorskip("tensorflow")  # installed, and broken by what follows
    for name in ("tensorflow", "keras"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('broken on purpose')")
    command = [sys.executable, "-m", "alexnet_repro", "doctor", "--json", "--deadline=60"]
    done = subprocess.run(
        command,
        cwd=Path(doctor.__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    assert findings[-1]["verdict"] == "FAIL"
    failed = [finding["message"] for finding in findings if finding.get("check") == "import"]
    shadow = tmp_path / "tensorflow.py"
    assert failed == [f"importing TensorFlow failed: tensorflow is imported from {shadow}, not from the installed one"]


@pytest.mark.parametrize(
    "module",
    [test_cuda_software, test_doubts, test_gpus, test_health, test_software],
    ids=lambda module: f"cases={module.__name__.rpartition('test_')[2]}",
)
def test_every_case_has_a_source(module):
    """Each faulty machine is taken from a public report or document, or marked synthetic, as few are."""
    sources = [case.source for case in module.CASES.values()]
    assert [
        each for each in sources if each != SYNTHETIC and not any(word in each for word in ("/", "log", "RTX"))
    ] == []
    assert sources.count(SYNTHETIC) <= len(sources) / 2
