"""What files and settings say of a machine."""

import pytest

from alexnet_repro.verify.doctor import environment
from alexnet_repro.verify.doctor.device_probe import ProbeResult
from alexnet_repro.verify.doctor.environment import CONTROL_FILES, Environment, Volume, read_gpus, read_machine
from alexnet_repro.verify.doctor.gpus import presence
from alexnet_repro.verify.doctor.nvidia import Gpu, Nvidia
from alexnet_repro.verify.doctor.settings import doubts
from tests.helpers.machines import TWO, write

PCI = "sys/bus/pci/devices/0000:3b:00.0"
EIGHT = {
    f"sys/bus/pci/devices/0000:{i:02}:00.0/{name}": text
    for i in range(8)
    for name, text in (("vendor", "0x10de\n"), ("class", "0x030200\n"))
}


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        pytest.param({}, (0, 0, 0, 0), id="machine=empty"),
        pytest.param({"dev/nvidiactl": "", "dev/nvidia-uvm": ""}, (0, 0, 0, 0), id="machine=control files only"),
        pytest.param({f"{PCI}/vendor": "0x10de\n", f"{PCI}/class": "0x030200\n"}, (0, 0, 1, 1), id="machine=no driver"),
        pytest.param(EIGHT, (0, 0, 8, 8), id="machine=no driver, eight"),
        pytest.param({f"{PCI}/vendor": "0x10de\n", f"{PCI}/class": "0x040300\n"}, (0, 0, 0, 0), id="machine=its sound"),
        pytest.param({f"{PCI}/vendor": "0x1002\n", f"{PCI}/class": "0x030000\n"}, (0, 0, 0, 0), id="machine=AMD"),
        pytest.param({f"{PCI}/vendor": "0x10de\n"}, (0, 0, 0, 0), id="machine=class unreadable"),
        pytest.param(
            {"dev/nvidia10": "", "dev/nvidia2": ""}
            | {f"proc/driver/nvidia/gpus/0000:{i:02}:00.0/information": "" for i in range(8)},
            (2, 8, 0, 2),
            id="machine=container given two of eight",
        ),
        pytest.param(
            {"proc/driver/nvidia/gpus/0000:3b:00.0/information": ""}, (0, 1, 0, 1), id="machine=driver list only"
        ),
    ],
)
def test_gpus_are_found_in_files(tmp_path, files, counts):
    """Device files, the driver's list and the PCI bus are counted apart; what this process was given comes first."""
    here = read_machine(write(tmp_path, files), {})
    assert (len(here.device_files), here.listed_by_driver, here.on_pci_bus, here.gpus_in_machine) == counts
    assert here.device_files == tuple(str(tmp_path / f"dev/nvidia{i}") for i in (2, 10) if counts[0])


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        pytest.param({}, {}, None, id="in=nothing"),
        pytest.param({".dockerenv": ""}, {}, "docker", id="in=docker"),
        pytest.param({"run/.containerenv": ""}, {"container": "podman"}, "podman", id="in=podman"),
        pytest.param({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes", id="in=kubernetes"),
        pytest.param({}, {"APPTAINER_CONTAINER": "/a.sif"}, "apptainer", id="in=apptainer"),
        pytest.param({}, {"container": "lxc"}, "lxc", id="in=lxc"),
    ],
)
def test_container_is_recognised(tmp_path, files, environ, kind):
    """By the file that it leaves, or the variable that it sets."""
    assert read_machine(write(tmp_path, files), environ).container == kind


@pytest.mark.parametrize(
    ("closed", "listed", "counts"),
    [
        pytest.param(7, 1, (1, 7), id="given=1 of 8"),
        pytest.param(0, 8, (8, 0), id="given=all"),
        pytest.param(8, 8, (8, 0), id="given=all-open=none"),
        pytest.param(1, 8, (8, 0), id="given=all-open=all but one"),
        pytest.param(7, 0, (8, 0), id="given=1 of 8-driver=silent"),
    ],
)
def test_gpus_of_others(closed, listed, counts):
    """Device files that don't open are other jobs' where the driver lists exactly those that do; else it is a fault."""
    files = tuple(f"/dev/nvidia{number}" for number in range(8))
    nvidia = Nvidia(
        closed=dict.fromkeys(files[8 - closed :], "Operation not permitted"),
        gpus=tuple(Gpu(number) for number in range(listed)),
    )
    here = Environment(device_files=files, control_files=CONTROL_FILES, nvidia=nvidia)
    assert (here.gpus_in_machine, len(here.withheld)) == counts
    failed = [each for each in presence(here) if each.status == "FAIL"]
    assert len(failed) == (0 if here.withheld else closed)


def test_driver_of_this_machine(monkeypatch):
    """What the driver reports now is beside the machine's settings."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(environment, "read_nvidia", lambda _files, _deadline: Nvidia(gpus=TWO))
    assert read_gpus().chosen_gpus == (TWO[1],)
    assert read_gpus(Environment(settings={"CUDA_VISIBLE_DEVICES": "0"})).chosen_gpus == (TWO[0],)  # as it was named


def test_gpus_are_those_that_a_child_lists():
    """The backend's GPUs are what the CPU's child, which hides none, has listed; where it hasn't, none are known."""
    listed = ProbeResult("cpu:0", "devices", data={"gpus": ["A", "B"]})
    alone = ProbeResult("gpu:0", "devices", data={"gpus": ["A"]})
    assert Environment(results=(listed, alone)).seen_gpus == {"gpu:0": "A", "gpu:1": "B"}
    for results in ((), (alone,), (ProbeResult("cpu:0", "devices", "ended by SIGSEGV"),)):
        assert Environment(results=results).seen_gpus == {}
    named = Environment(results=(listed,), device_files=("/dev/nvidia0",))  # of one the driver tells
    assert (named.cuda_names, named.all_gpus) == ({"gpu:0": "0"}, ("gpu:0", "gpu:1"))
    assert named.only(*named.all_gpus) == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_settings_hold_no_secrets(tmp_path):
    """What bears on TensorFlow is recorded; TF_ is Terraform's prefix too, and its passwords are not."""
    environ = {
        "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
        "TF_VAR_password": "secret",
        "TF_TOKEN_host": "secret",
        "KERAS_HOME": str(tmp_path),
    }
    found = {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2", "KERAS_HOME": str(tmp_path)}
    assert read_machine(tmp_path, environ).settings == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param('{"floatx": "float16"}', {"floatx": "float16"}, id="file=float16"),
        pytest.param('{"epsilon": 1e-3}', {"epsilon": "0.001"}, id="file=epsilon"),
        pytest.param('{"image_data_format": "channels_first", "backend": "jax"}', {}, id="file=others"),
        pytest.param('{"floatx": "flo', {}, id="file=truncated"),
        pytest.param("[]", {}, id="file=list"),
        pytest.param("null", {}, id="file=null"),
        pytest.param("[" * 100_000, {}, id="file=too deep"),
    ],
)
def test_keras_json_is_read(tmp_path, text, found):
    """What Keras's file says of numbers is recorded, without Keras; what can't be read says nothing."""
    (tmp_path / "keras.json").write_text(text)
    settings = read_machine(tmp_path, {"KERAS_HOME": str(tmp_path)}).settings
    assert {name: text for name, text in settings.items() if name != "KERAS_HOME"} == {
        f"keras.{name}": value for name, value in found.items()
    }


@pytest.mark.parametrize(
    ("cpuinfo", "onednn"),
    [
        pytest.param("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n\n", "1", id="processor=VNNI"),
        pytest.param("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n\n", "0", id="processor=AVX512 only"),
        pytest.param("processor\t: 0\nCPU part\t: 0xd40\n\n", "1", id="processor=Neoverse V1"),
        pytest.param("processor\t: 0\nCPU part\t: 0xd0c\n\n", "0", id="processor=Neoverse N1"),
    ],
)
def test_defaults_depend_on_the_machine(tmp_path, cpuinfo, onednn):
    """TensorFlow turns oneDNN on where the processor has instructions for it, and takes a thread per processor."""
    here = read_machine(write(tmp_path, {"proc/cpuinfo": cpuinfo}), {})
    assert here.defaults["TF_ENABLE_ONEDNN_OPTS"] == onednn
    assert int(here.defaults["TF_NUM_INTRAOP_THREADS"]) >= 1


@pytest.mark.parametrize(
    ("flags", "limit", "doubted"),
    [
        ("avx512_fp16 amx_tile amx_int8 amx_bf16", "AVX512_CORE_AMX", []),
        ("avx512_fp16 amx_tile amx_int8 amx_bf16", "AVX10_1_512_AMX_FP16", []),
        ("avx512_fp16 amx_tile amx_int8 amx_bf16 amx_fp16", "AVX512_CORE_AMX", ["avx10_1_512_amx"]),
        ("avx512_fp16 amx_tile amx_int8 amx_bf16 amx_fp16", "AVX512_CORE_AMX_FP16", []),
        ("avx512_fp16 amx_tile amx_int8 amx_bf16", "AVX512_CORE_BF16", ["avx512_core_bf16"]),
        ("avx512_fp16", "AVX512_CORE_AMX", ["avx10_1_512_amx"]),
    ],
)
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_a_limit_that_limits_nothing(tmp_path, name, flags, limit, doubted):
    """A limit that a processor with AMX has no instructions beyond is no doubt."""
    cpuinfo = f"processor\t: 0\nflags\t\t: fpu {flags}\n\n"
    here = read_machine(write(tmp_path, {"proc/cpuinfo": cpuinfo}), {name: limit})
    assert [each.meaning for each in doubts(here.settings, "tensorflow", here.defaults)] == doubted


def test_free_bytes_are_those_of_the_nearest_folder(tmp_path):
    """A data folder that isn't there yet will be where its parent is."""
    here = read_machine(tmp_path, {"KERAS_HOME": str(tmp_path / "not/yet")})
    data = next(volume for volume in here.volumes if volume.purpose == "data")
    assert data.path == str(tmp_path / "not/yet")
    assert data.free > 0


@pytest.mark.parametrize(
    ("variable", "folder"), [("ALEXNET_REPRO_DATA", ""), ("HOME", ".keras/datasets/fashion-mnist")]
)
def test_data_that_is_here_needs_no_folder(tmp_path, monkeypatch, variable, folder):
    """Where the data is found, no folder is needed for it; elsewhere, one that can't be written to says why."""
    monkeypatch.setenv("HOME", "/proc/nohome")
    monkeypatch.setenv(variable, str(tmp_path))
    environ = {variable: str(tmp_path)}
    (volume,) = (each for each in read_machine(tmp_path, environ).volumes if each.purpose == "data")
    closed = Volume("data", "/proc/nohome/.keras", None, "No such file or directory")
    assert volume == closed if variable != "HOME" else volume.free and not volume.problem
    write(tmp_path / folder, {"t10k-images-idx3-ubyte.gz": ""})
    assert [each for each in read_machine(tmp_path, environ).volumes if each.purpose == "data"] == []


@pytest.mark.parametrize(
    ("broken", "purpose", "path"), [("getcwd", "weights", "."), ("gettempdir", "temporary files", "/none")]
)
def test_folder_that_is_gone(tmp_path, monkeypatch, broken, purpose, path):
    """A working folder that was removed, or none for temporary files, is a reason, not an error."""

    def missing():
        raise FileNotFoundError(2, "No such file or directory", *([path] if path != "." else []))

    monkeypatch.setattr(f"{'os' if broken == 'getcwd' else 'tempfile'}.{broken}", missing)
    (volume,) = (each for each in read_machine(tmp_path, {}).volumes if each.purpose == purpose)
    assert volume == Volume(purpose, path, None, "No such file or directory")


@pytest.mark.parametrize(
    ("visible", "named", "expected"),
    [
        (None, None, 8),
        ("", (), 0),
        ("-1", (), 0),
        ("2", ("2",), 1),
        ("0, 3,-1,5", ("0", "3"), 2),
        ("GPU-5a6b", ("GPU-5a6b",), 1),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_does(tmp_path, visible, named, expected):
    """Names count up to the first that is none; unset means all."""
    files = {f"dev/nvidia{i}": "" for i in range(8)}
    here = read_machine(write(tmp_path, files), {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert (here.named_gpus, here.expected_gpus) == (named, expected)


@pytest.mark.parametrize(
    ("settings", "names", "expected"),
    [
        pytest.param({}, ("A", "A"), {"gpu:0": 0, "gpu:1": 1}, id="order=PCI's"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "GPU-1,GPU-0"}, ("A", "B"), {"gpu:0": 1, "gpu:1": 0}, id="order=named"),
        pytest.param({"CUDA_VISIBLE_DEVICES": "1"}, ("A", "A"), {"gpu:0": 1}, id="order=numbered"),
        pytest.param({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ("A", "B"), {"gpu:0": 0, "gpu:1": 1}, id="order=set"),
        pytest.param({}, ("A", "B"), {}, id="order=CUDA's own"),
    ],
)
def test_records_of_gpus(settings, names, expected):
    """Each GPU has its driver's record, but where CUDA may number different ones in another order."""
    gpus = tuple(Gpu(index, name=name, uuid=f"GPU-{index}") for index, name in enumerate(names))
    here = Environment(settings=settings, device_files=("/dev/nvidia0", "/dev/nvidia1"), nvidia=Nvidia(gpus=gpus))
    assert {device: gpu.index for device, gpu in here.gpu_records.items()} == expected


@pytest.mark.parametrize(
    ("names", "modes", "expected"),
    [
        pytest.param(("A", "A"), (0, 0), (False, False, False), id="mode=default"),
        pytest.param(("A", "A"), (0, None), (False, False, False), id="mode=unknown"),
        pytest.param(("A", "A"), (0, 1), (False, False, True), id="mode=one thread"),
        pytest.param(("A", "A"), (3, 0), (False, True, False), id="mode=one process"),
        pytest.param(("A", "B"), (3, 0), (False, True, True), id="mode=one process, of either"),
    ],
)
def test_gpus_of_one_process(names, modes, expected):
    """Of cpu:0, gpu:0 and gpu:1; where CUDA may number them in another order, either may be the one."""
    gpus = tuple(
        Gpu(index, name=name, uuid=f"GPU-{index}", compute_mode=mode)
        for index, (name, mode) in enumerate(zip(names, modes, strict=True))
    )
    here = Environment(device_files=("/dev/nvidia0", "/dev/nvidia1"), nvidia=Nvidia(gpus=gpus))
    assert tuple(map(here.for_one_process, ("cpu:0", "gpu:0", "gpu:1"))) == expected
