"""Can TensorFlow use what is here? Pure functions from the environment's record to findings."""

from collections.abc import Iterator

from alexnet_repro.verify.doctor.cuda_libraries import DRIVER, LIBRARIES
from alexnet_repro.verify.doctor.device_probe import CheckResult
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.finding import Finding

WITH_CUDA = "pip install 'tensorflow[and-cuda]'"
INSTALL_DRIVER = "sudo ubuntu-drivers install --gpgpu && sudo reboot (elsewhere: the driver from nvidia.com/drivers)"
GIB = 2**30
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only its size is asked
DISK_NEEDED = GIB  # the data, and two copies of the weights while the new ones are written
SHARED_MEMORY_NEEDED = GIB  # what NCCL's users end up with; Docker gives 64 MiB

# Driver that each CUDA needs at least: docs.nvidia.com/deploy/cuda-compatibility
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580,)}

# Settings that change numbers behind the program's back. What it sets itself, TF32 among it, isn't here.
NUMERIC_SETTINGS = {
    "NVIDIA_TF32_OVERRIDE": "forces TensorFloat-32 on or off, whatever precision is asked for",
    "TF_ENABLE_ONEDNN_OPTS": "turns oneDNN's kernels on or off: float32 results differ in the last bits",
    "TF_XLA_FLAGS": "may compile with XLA what isn't meant to be: results differ in the last bits",
    "XLA_FLAGS": "changes what XLA compiles: results may differ in the last bits",
    "TF_DETERMINISTIC_OPS": "turns deterministic kernels on or off, whatever is asked for",
    "TF_CUDNN_DETERMINISTIC": "turns deterministic kernels on or off, whatever is asked for",
    "TF_CUDNN_USE_AUTOTUNE": "changes which convolution kernels are chosen",
    "TF_ENABLE_CUBLAS_TENSOR_OP_MATH_FP32": "lets float32 products lose bits",
    "TF_DISABLE_MKL": "turns oneDNN's kernels off: float32 results differ in the last bits",
}
# Values that are the default, and flags that only say where files are.
HARMLESS = ("--xla_gpu_cuda_data_dir", "--xla_dump", "--xla_force_host_platform_device_count")
DEFAULTS = {"TF_ENABLE_ONEDNN_OPTS": "1"}


def installed(here: Environment) -> Iterator[Finding]:
    """One TensorFlow, and all it needs in the versions it needs; where another backend is to run, none is needed."""
    if here.backend != "tensorflow":
        return
    if here.tensorflow is None:
        yield Finding("tensorflow", "FAIL", "TensorFlow isn't installed", f"Python {here.python}", WITH_CUDA)
        return
    names = here.tensorflow.distributions
    if len(names) > 1:
        remove = " ".join(sorted({name.split()[0] for name in names}))
        yield Finding(
            "tensorflow",
            "FAIL",
            "several TensorFlow packages are installed over each other: what runs is a mixture of their files",
            f"{', '.join(names)}, all in {here.tensorflow.folder}",
            f"pip uninstall -y {remove} && {WITH_CUDA}",
        )
    else:
        yield Finding("tensorflow", "PASS", f"{names[0]} on Python {here.python}, {here.system}")
    unmet = [each for each in here.tensorflow.requirements if not each.met]
    for each in unmet:
        has = f"{each.name} {each.installed}" if each.installed else f"no {each.name}"
        yield Finding(
            "requirements",
            "FAIL",
            f"{has} is installed; {names[0]} needs {each.name}{each.wanted}",
            f"{names[0]}'s metadata",
            f"pip install '{each.name}{each.wanted}'",
        )
    if not unmet:
        shown = (each for each in here.tensorflow.requirements if each.name in ("numpy", "protobuf", "keras"))
        yield Finding("requirements", "PASS", ", ".join(f"{each.name} {each.installed}" for each in shown))


def settings(here: Environment) -> Iterator[Finding]:
    """Nothing in the environment changes numbers unasked."""
    changed = numeric_settings(here)
    for name in changed:
        yield Finding(
            "settings",
            "INCONCLUSIVE",
            f"{name} {NUMERIC_SETTINGS[name]}; compare only with runs that had it too",
            f"{name}={here.settings[name]}",
            f"unset {name}",
        )
    if not changed:
        said = "; oneDNN is on, and TF32 where not turned off, as TensorFlow's defaults are"
        yield Finding("settings", "PASS", f"none that changes numbers{said if here.backend == 'tensorflow' else ''}")


def disk(here: Environment) -> Iterator[Finding]:
    """Room for what is written."""
    short = [volume for volume in here.volumes if volume.free is not None and volume.free < DISK_NEEDED]
    for volume in short:
        yield Finding(
            "disk",
            "FAIL",
            f"too little room for {volume.purpose}: {_size(volume.free)} free, {_size(DISK_NEEDED)} needed",
            volume.path,
            f"df -h {volume.path}; then delete files there"
            + {"data": ", or export KERAS_HOME=", "temporary files": ", or export TMPDIR="}.get(volume.purpose, ""),
        )
    if not short:
        yield Finding("disk", "PASS", ", ".join(f"{each.purpose} {_size(each.free)} free" for each in here.volumes))


def shared_memory(here: Environment) -> Iterator[Finding]:
    """Room for what several GPUs exchange."""
    size = here.shared_memory
    if here.expected_gpus > 1 and size is not None and size < SHARED_MEMORY_NEEDED:
        inside = here.container is not None
        yield Finding(
            "shared memory",
            "FAIL",
            f"shared memory is too small for {here.expected_gpus} GPUs to exchange gradients through",
            f"{SHARED_MEMORY} {_size(size)}, {_size(SHARED_MEMORY_NEEDED)} needed",
            "docker run --shm-size=1g …" if inside else f"sudo mount -o remount,size=1g {SHARED_MEMORY}",
        )
    else:
        yield Finding("shared memory", "PASS", f"{SHARED_MEMORY} {_size(size)}")


def cuda_build(here: Environment) -> Iterator[Finding]:
    """A TensorFlow with CUDA, and a driver that is new enough for it."""
    if not here.gpus_in_machine or here.tensorflow is None:
        return
    tensorflow = here.tensorflow
    name = tensorflow.distributions[0]
    if tensorflow.cuda_build is False:
        yield Finding(
            "cuda build",
            "FAIL",
            f"{name} is built without CUDA: it can't use a GPU",
            f"is_cuda_build is False in its build_info; {here.system}",
            f"pip uninstall -y {name.split()[0]} && {WITH_CUDA}",
        )
    if not tensorflow.cuda_build or tensorflow.cuda is None:
        return
    built = ".".join(map(str, tensorflow.cuda))
    driver = tuple(int(part) for part in (here.nvidia.driver or "").split(".") if part.isdecimal())
    oldest = OLDEST_DRIVER.get(tensorflow.cuda[0])
    too_old = (driver and oldest and driver < oldest) or (here.nvidia.cuda and here.nvidia.cuda[0] < tensorflow.cuda[0])
    if too_old:
        wanted = ".".join(map(str, oldest)) if oldest else f"one for CUDA {tensorflow.cuda[0]}"
        yield Finding(
            "driver version",
            "FAIL",
            f"the NVIDIA driver is older than CUDA {built}, for which {name} was built",
            f"driver {here.nvidia.driver}, at least {wanted} needed",
            INSTALL_DRIVER,
        )
    elif driver:
        yield Finding("driver version", "PASS", f"{here.nvidia.driver}; {name} was built for CUDA {built}")


def libraries(here: Environment) -> Iterator[Finding]:
    """Every library that TensorFlow opens can be opened."""
    if not here.gpus_in_machine or here.tensorflow is None or not here.tensorflow.cuda_build:
        return
    major = here.tensorflow.cuda[0] if here.tensorflow.cuda else None
    if major not in LIBRARIES:
        yield Finding(
            "libraries",
            "INCONCLUSIVE",
            f"CUDA {major}'s libraries aren't known here: not looked for",
            f"known: CUDA {', '.join(map(str, LIBRARIES))}",
            "pip install --upgrade alexnet-repro",
        )
        return
    broken = [each for each in here.libraries if each.error]
    for each in broken:
        wheel = here.tensorflow.wheels.get(each.wheel, each.wheel)
        found = f" (found as {each.path})" if each.path != each.name else ""
        yield Finding(
            f"library {each.name}",
            "FAIL",
            f"{each.name} can't be loaded; {each.wheel} brings it",
            f"{each.error}{found}",
            f"{INSTALL_DRIVER}; in a container: docker run --gpus all …"
            if each.wheel == DRIVER
            else f"pip install --force-reinstall '{wheel}'",
        )
    if here.libraries and not broken:
        yield Finding("libraries", "PASS", f"all {len(here.libraries)} can be loaded")


def devices(here: Environment) -> Iterator[Finding]:
    """TensorFlow starts, sees every GPU, and computes on each device."""
    for result in here.results:
        yield from device_result(here, result)


def device_result(here: Environment, result: CheckResult) -> Iterator[Finding]:
    """Return what one device check's result means."""
    if result.error:
        yield Finding(
            result.check,
            "FAIL",
            f"{_what(result.check)} failed: {result.error}",
            result.log or "TensorFlow said nothing",
            _mend(result.check, result.error + result.log, here),
            result.device,
        )
    elif result.check == "devices" and result.device == "cpu:0":
        yield from _seen(here, tuple(result.data.get("gpus", ())), result.log)
    else:
        yield Finding(result.check, "PASS", f"{result.seconds:.1f} s", device=result.device)


def _seen(here: Environment, seen: tuple[str, ...], log: str) -> Iterator[Finding]:
    if len(seen) >= here.expected_gpus:
        names = f": {', '.join(seen)}" if seen else ""
        yield Finding("devices", "PASS", f"TensorFlow sees {len(seen)} GPUs{names}")
        return
    yield Finding(
        "devices",
        "FAIL",
        f"TensorFlow sees {len(seen)} of {here.expected_gpus} GPUs; it would compute on the CPU and not say so",
        log or "TensorFlow gave no reason",
        "leave that GPU out: export CUDA_VISIBLE_DEVICES=… # the others' UUIDs, from nvidia-smi -L"
        if "Ignoring visible" in log
        else f"fix what failed above; if nothing did: {WITH_CUDA}",
    )


def _what(check: str) -> str:
    return {"import": "importing TensorFlow", "devices": "listing the devices", "xla": "compiling with XLA"}.get(
        check, f"a {check}"
    )


def _mend(check: str, said: str, here: Environment) -> str:
    if "SIGILL" in said:
        return "grep -o -w avx /proc/cpuinfo # TensorFlow's wheels need a processor with AVX"
    if "OOM" in said or "out of memory" in said.casefold():
        return "nvidia-smi; then end the processes that hold the GPU's memory"
    if check == "import":
        return "python -X faulthandler -c 'import tensorflow'; then: pip install --force-reinstall tensorflow"
    if "PTX" in said or "no kernel image" in said:
        return "use a TensorFlow that is built for this GPU, as said above of its kernels"
    if check == "xla" and ("libdevice" in said or "ptxas" in said):
        wheels = here.tensorflow.wheels if here.tensorflow else {}
        return f"pip install '{wheels.get('nvidia-cuda-nvcc-cu12', 'nvidia-cuda-nvcc-cu12')}'"
    return "sudo dmesg | grep -i xid; then: sudo nvidia-smi -r, or: sudo reboot"


def _heeded(name: str, backend: str) -> bool:
    """Return whether a backend heeds a setting: TF_ is TensorFlow's, and PyTorch compiles nothing with XLA."""
    return backend == "tensorflow" or not name.startswith(("TF_", "XLA_") if backend == "torch" else "TF_")


def numeric_settings(here: Environment) -> dict[str, str]:
    """Return the settings that change numbers, without defaults and flags that only say where files are."""
    found = {}
    for name in NUMERIC_SETTINGS:
        value = here.settings.get(name, "")
        flags = [] if value == DEFAULTS.get(name) else [each for each in value.split() if not each.startswith(HARMLESS)]
        if flags and _heeded(name, here.backend):
            found[name] = " ".join(sorted(flags))
    return found


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.0f} MiB"
