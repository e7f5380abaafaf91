"""Which devices are checked, and which machines must be fixed first: on records of machines."""

from dataclasses import replace

import pytest

from alexnet_repro.verify.checks import devices
from alexnet_repro.verify.checks.devices import MachineNotReadyError, choose_devices, diagnose_machine, unusable_gpus
from alexnet_repro.verify.doctor.device_probe import ProbeResult
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.nvidia import Nvidia
from alexnet_repro.verify.finding import Finding
from tests.helpers.machines import A100, CPU, TWO, UNSEEN, box, results

GO_ON = "go on with what works, without a PASS: --ignore-doctor"
EIGHT = tuple(f"/dev/nvidia{index}" for index in range(8))
PASSED = Finding("gpu", "PASS", "1 in this machine")
FAILED = Finding("ecc", "FAIL", "errors", "2 uncorrected", "reset it", device="GPU 0")
INCONCLUSIVE = Finding("clocks", "INCONCLUSIVE", "throttled", device="GPU 0")


def machine_with(gpus: int, usable: int, visible: str | None, backend: str = "tensorflow") -> Environment:
    """Return a machine with this many GPUs, of which a backend sees some, some named by CUDA_VISIBLE_DEVICES."""
    settings = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    files, seen = tuple(f"/dev/nvidia{i}" for i in range(gpus)), results("cpu:0", ("A100",) * usable)
    return Environment(device_files=files, settings=settings, backend=backend, results=seen)


@pytest.mark.parametrize(
    ("in_machine", "usable", "visible"),
    [
        (0, 0, None),
        (0, 0, ""),
        (1, 1, None),
        (8, 8, None),
        (0, 1, None),  # seen by the backend alone
        (8, 2, "0,3"),
        (8, 1, "MIG-5a6b"),
        (8, 1, "2,-1,3"),  # CUDA stops at the -1
        (2, 2, "0,1,2,3"),
    ],
)
def test_usable_gpus_are_no_complaint(in_machine: int, usable: int, visible: str | None) -> None:
    """Nothing is reported where every GPU that should be usable is."""
    assert unusable_gpus(machine_with(in_machine, usable, visible)) is None


@pytest.mark.parametrize(
    ("in_machine", "usable", "visible", "backend", "words"),
    [
        (1, 0, None, "tensorflow", ("1 NVIDIA GPU in this machine, 0 usable by tensorflow", "'tensorflow[and-cuda]'")),
        (8, 7, None, "tensorflow", ("8 NVIDIA GPUs in this machine, 7 usable", "nvidia-smi", "--gpus all")),
        (2, 0, None, "jax", ("0 usable by jax", "install jax with its CUDA libraries")),
        (2, 0, None, "torch", ("0 usable by torch", "install torch with its CUDA libraries")),
        (1, 0, "", "tensorflow", ("CUDA_VISIBLE_DEVICES='' hides every GPU", "unset CUDA_VISIBLE_DEVICES")),
        (1, 0, "-1", "torch", ("CUDA_VISIBLE_DEVICES='-1' hides every GPU",)),
        (8, 1, "0, 3", "tensorflow", ("2 named by CUDA_VISIBLE_DEVICES=0, 3, 1 usable",)),
    ],
)
def test_unusable_gpu_is_named_with_its_fix(
    in_machine: int, usable: int, visible: str | None, backend: str, words: tuple[str, ...]
) -> None:
    """The message has how many there are, how many work, what to do, and how to measure the CPU on purpose."""
    message = unusable_gpus(machine_with(in_machine, usable, visible, backend))
    assert message is not None
    assert [text for text in (*words, "--device=cpu:0") if text not in message] == []


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets the machine and the doctor's findings; it returns how the doctor is called."""
    orders = []

    def become(here, *findings, backend="tensorflow"):
        monkeypatch.setattr(devices.keras.backend, "backend", lambda: backend)

        def examine(deadline, **order):
            orders.append((deadline, order))
            for number, finding in enumerate(findings, 1):
                yield replace(here, system=f"after {number}"), finding

        monkeypatch.setattr(devices, "examine", examine)
        monkeypatch.setattr(devices, "read_machine", lambda: here)
        return orders

    return become


@pytest.fixture
def lines():
    """The lines for the terminal."""
    return []


def test_healthy_machine_is_admitted(machine, lines):
    """All findings are returned with the last record, and one line sums them up: no PASS is shown."""
    orders = machine(box(A100), PASSED, PASSED)
    here, found = diagnose_machine((), lines.append, require_gpu=True)
    assert orders == [(180.0, {"require_gpu": True, "backend": "tensorflow", "wanted": ()})]
    assert (here.system, found) == ("after 2", [PASSED, PASSED])
    assert lines == ["doctor: PASS, 2 checks (python -m alexnet_repro doctor shows them all)"]


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_run_the_doctor(machine, lines, backend):
    """On another backend the doctor gets its name and the wanted devices; a failure is a failure there."""
    orders = machine(box(A100), PASSED, FAILED, backend=backend)
    with pytest.raises(MachineNotReadyError, match="fix the machine first"):
        diagnose_machine(("gpu:0",), lines.append, require_gpu=False)
    assert orders == [(180.0, {"require_gpu": False, "backend": backend, "wanted": ("gpu:0",)})]
    assert lines[-1] == "doctor: FAIL, 2 checks (python -m alexnet_repro doctor shows them all)"


def test_faulty_cpu_is_no_way_out(machine, lines):
    """Where the CPU has failed, checking it alone is no advice."""
    machine(box(A100), replace(FAILED, device="cpu:0"))
    with pytest.raises(MachineNotReadyError, match=rf"^fix the machine first, or {GO_ON}$"):
        diagnose_machine((), lines.append, require_gpu=False)


def test_cpu_alone_is_no_way_out(machine, lines):
    """Nor is it where the machine has no GPU: the CPU was to be checked anyway."""
    machine(CPU, replace(FAILED, device=""))
    with pytest.raises(MachineNotReadyError, match=rf"^fix the machine first, or {GO_ON}$"):
        diagnose_machine((), lines.append, require_gpu=False)


def test_inconclusive_is_shown_and_admitted(machine, lines):
    """What is inconclusive is shown with its name and returned; it stops nothing."""
    machine(box(A100), PASSED, INCONCLUSIVE)
    _, found = diagnose_machine((), lines.append, require_gpu=False)
    assert found == [PASSED, INCONCLUSIVE]
    assert lines[0].startswith("INCONCLUSIVE  GPU 0 clocks")
    assert lines[1].startswith("doctor: INCONCLUSIVE, 2 checks")


@pytest.mark.parametrize("wanted", ["", "gpu:0", "cpu:0 gpu:0"])
def test_faulty_machine_is_not_ready(machine, lines, wanted):
    """A fault is shown with its fix, and nothing is measured; the message has the two ways to measure all the same."""
    machine(box(A100), FAILED, PASSED)
    ways = f"check the CPU on purpose: --device=cpu:0, or {GO_ON}"
    with pytest.raises(MachineNotReadyError, match=f"^fix the machine first, or {ways}$"):
        diagnose_machine(wanted.split(), lines.append, require_gpu=False)
    assert "fix: reset it" in lines[0]
    assert lines[-1].startswith("doctor: FAIL, 2 checks")


@pytest.mark.parametrize("wanted", ["cpu:0", "cpu:0 cpu:0"])
def test_what_is_found_of_the_cpu_counts(machine, lines, wanted):
    """Where only the CPU is wanted, its faults and the settings count as ever; it isn't offered as a way out."""
    machine(box(A100), PASSED, INCONCLUSIVE)
    assert diagnose_machine(wanted.split(), lines.append, require_gpu=False)[1] == [PASSED, INCONCLUSIVE]
    machine(box(A100), PASSED, FAILED)
    with pytest.raises(MachineNotReadyError, match=rf"^fix the machine first, or {GO_ON}$"):
        diagnose_machine(wanted.split(), lines.append, require_gpu=False)


@pytest.mark.parametrize(
    ("gpus", "wanted", "chosen"),
    [
        (0, "", ("cpu:0",)),
        (2, "", ("cpu:0", "gpu:0", "gpu:1")),
        (2, "gpu:1", ("gpu:1",)),
        (2, "gpu:1 cpu:0", ("cpu:0", "gpu:1")),
        (2, "gpu:0 gpu:0", ("gpu:0",)),
        (2, "cpu:0", ("cpu:0",)),
    ],
)
def test_devices_are_chosen(gpus, wanted, chosen):
    """All that are usable, or those that are named: each once, in the machine's order."""
    assert choose_devices(box(*TWO[:gpus]), wanted.split(), require_gpu=False) == chosen


@pytest.mark.parametrize("wanted", ["", "gpu:0", "gpu:1"])
def test_gpu_that_cant_be_used_is_no_silent_absence(wanted):
    """One of two GPUs that TensorFlow can't use makes the machine not ready, whichever was named."""
    here = box(*TWO, results=results("cpu:0", ("A100",)))
    with pytest.raises(MachineNotReadyError, match="2 NVIDIA GPUs in this machine, 1 usable by tensorflow"):
        choose_devices(here, wanted.split(), require_gpu=False)


@pytest.mark.parametrize(
    "here",
    [
        pytest.param(
            box(A100, device_files=EIGHT, nvidia=Nvidia(closed=dict.fromkeys(EIGHT[1:], "refused"), gpus=(A100,))),
            id="machine=seven withheld",
        ),
        pytest.param(
            box(*(replace(A100, index=index, mig=True) for index in range(8)), results=results("cpu:0", ("A100",))),
            id="machine=slices",
        ),
    ],
)
def test_expected_gpus_are_the_doctors(here):
    """Of GPUs that were given to other jobs, or of slices, one that can be used is all that is expected."""
    assert choose_devices(here, (), require_gpu=True) == ("cpu:0", "gpu:0")


def test_cpu_is_chosen_on_purpose_beside_an_unusable_gpu():
    """Where only the CPU is wanted, GPUs that can't be used are no error."""
    assert choose_devices(box(*TWO, results=UNSEEN), ("cpu:0",), require_gpu=False) == ("cpu:0",)


@pytest.mark.parametrize("wanted", ["", "cpu:0"])
def test_gpu_that_is_required_is_missed(wanted):
    """With --require-gpu a machine without a GPU isn't ready, even for its CPU; one with a GPU is."""
    with pytest.raises(MachineNotReadyError, match="--require-gpu: tensorflow can use cpu:0 only"):
        choose_devices(CPU, wanted.split(), require_gpu=True)
    assert "cpu:0" in choose_devices(box(A100), wanted.split(), require_gpu=True)


@pytest.mark.parametrize("wanted", ["gpu:7", "cpu:1", "GPU:0", "tpu"])
def test_device_that_isnt_there_is_named(wanted):
    """A name of no device is an error that lists the devices."""
    with pytest.raises(ValueError, match=f"--device={wanted}: no such device; tensorflow can use cpu:0, gpu:0"):
        choose_devices(box(A100), ("gpu:0", wanted), require_gpu=False)


def test_failures_are_ignored(machine, lines):
    """With the option a failure is inconclusive, and says so; evidence and fix stay, and so does all else."""
    machine(box(A100), PASSED, FAILED, INCONCLUSIVE)
    here, found = diagnose_machine((), lines.append, require_gpu=False, ignore_doctor=True)
    ignored = Finding(
        "ecc",
        "INCONCLUSIVE",
        "ignored by --ignore-doctor: errors",
        "2 uncorrected",
        "reset it",
        device="GPU 0",
        data={"ignored": True},
    )
    assert found == [PASSED, ignored, INCONCLUSIVE]
    assert lines[0].startswith("INCONCLUSIVE  GPU 0 ecc")
    assert "ignored by --ignore-doctor: errors" in lines[0]
    assert lines[-1].startswith("doctor: INCONCLUSIVE, 3 checks")
    assert choose_devices(here, (), require_gpu=True, ignore_doctor=True) == ("cpu:0", "gpu:0")


def broken(*devices, here=None):
    """Return a machine of two GPUs, on which a product went wrong on these devices."""
    here = here or box(*TWO)
    return replace(here, results=(*here.results, *(ProbeResult(each, "matmul", "7 of 9") for each in devices)))


@pytest.mark.parametrize(
    ("here", "wanted", "chosen"),
    [
        pytest.param(box(*TWO), "", "cpu:0 gpu:0 gpu:1", id="broken=none"),
        pytest.param(broken("gpu:0"), "", "cpu:0 gpu:1", id="broken=gpu:0"),
        pytest.param(broken("cpu:0"), "", "gpu:0 gpu:1", id="broken=cpu:0"),
        pytest.param(broken("gpu:0", "gpu:1"), "", "cpu:0", id="broken=all GPUs"),
        pytest.param(broken("gpu:0"), "gpu:0 gpu:1", "gpu:1", id="broken=one of two named"),
        pytest.param(box(*TWO, results=UNSEEN), "", "cpu:0", id="gpus=unseen"),
        pytest.param(box(*TWO, results=UNSEEN), "cpu:0 gpu:1", "cpu:0", id="gpus=unseen and named"),
    ],
)
def test_what_works_is_chosen(machine, lines, here, wanted, chosen):
    """With the option a device that can't be used is left out, named or not."""
    machine(here, FAILED)
    left, _ = diagnose_machine(wanted.split(), lines.append, require_gpu=False, ignore_doctor=True)
    assert choose_devices(left, wanted.split(), require_gpu=False, ignore_doctor=True) == tuple(chosen.split())
    assert [device for device in left.seen_gpus if device not in chosen.split()] == []
    assert set(left.cuda_names) == {"gpu:0", "gpu:1"}  # all are planned


def test_name_of_what_works(machine, lines):
    """Where a GPU is left out, the others keep their own names."""
    here = box(A100, replace(A100, index=1, uuid="GPU-bbbb"), results=results("cpu:0", ("A100", "H100")))
    machine(broken("gpu:0", here=here), FAILED)
    left, _ = diagnose_machine((), lines.append, require_gpu=False, ignore_doctor=True)
    assert left.seen_gpus == {"gpu:1": "H100"}


def test_unseen_gpu_is_ignored_by_name(machine, lines):
    """A GPU that the backend doesn't see is a finding, whatever else the doctor found."""
    machine(box(A100, results=UNSEEN), PASSED)
    _, (_, found) = diagnose_machine((), lines.append, require_gpu=False, ignore_doctor=True)
    assert (found.check, found.status) == ("devices", "INCONCLUSIVE")
    assert found.message.startswith("ignored by --ignore-doctor: 1 NVIDIA GPU in this machine, 0 usable")


@pytest.mark.parametrize(
    ("here", "wanted", "require_gpu", "words"),
    [
        pytest.param(CPU, "", True, "--require-gpu: tensorflow can use cpu:0 only", id="required=no GPU"),
        pytest.param(
            broken("gpu:0", "gpu:1"), "", True, "--require-gpu: tensorflow can use cpu:0 only", id="required=broken"
        ),
        pytest.param(
            broken("cpu:0", here=CPU),
            "",
            False,
            "--ignore-doctor: no device works: fix the machine first",
            id="works=nothing",
        ),
        pytest.param(
            broken("gpu:1"),
            "gpu:1",
            False,
            "--ignore-doctor: gpu:1 doesn't work: fix the machine first",
            id="works=other",
        ),
    ],
)
def test_what_cant_be_gone_on_with(here, wanted, require_gpu, words):
    """Where nothing that is wanted, or required, works the run ends all the same, and says why."""
    with pytest.raises(MachineNotReadyError) as error:
        choose_devices(here, wanted.split(), require_gpu=require_gpu, ignore_doctor=True)
    assert str(error.value) == words


def test_option_isnt_advised_where_it_cant_help(machine, lines):
    """Where no device works, going on is no advice."""
    machine(broken("cpu:0", here=CPU), replace(FAILED, device="cpu:0"))
    with pytest.raises(MachineNotReadyError, match=r"^fix the machine first$"):
        diagnose_machine((), lines.append, require_gpu=False)


def test_ignoring_names_no_device():
    """A name of no device stays an error."""
    with pytest.raises(ValueError, match="--device=gpu:7: no such device"):
        choose_devices(box(A100), ("gpu:7",), require_gpu=False, ignore_doctor=True)
