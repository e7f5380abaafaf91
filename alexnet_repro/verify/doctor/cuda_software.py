"""Does what is installed of CUDA fit: the driver, the backend, and CUDA's libraries? Findings, by pure functions.

Versions and metadata explain. Whether a device computes, its probes show.
"""

import re
from collections.abc import Iterator

from alexnet_repro.verify.doctor.causes import HANGS
from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.doctor.gpus import kernels
from alexnet_repro.verify.doctor.installation import DRIVER, LIBRARIES
from alexnet_repro.verify.doctor.remedies import (
    CAPABILITIES,
    WITH_CUDA,
    give_gpus,
    install_driver,
    lacks,
    on_the_path,
    with_cuda,
)
from alexnet_repro.verify.finding import Finding

# The oldest driver for each CUDA: docs.nvidia.com/deploy/cuda-compatibility
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525, 60, 13), 13: (580,)}


def cuda_build(here: Environment) -> Iterator[Finding]:
    """A TensorFlow with CUDA."""
    if here.gpus_in_machine and here.tensorflow is not None and here.tensorflow.cuda_build is False:
        name = here.tensorflow.distributions[0]
        message = f"{name} is built without CUDA: it can't use a GPU"
        evidence = f"is_cuda_build is False in its build_info; {here.system}"
        yield Finding("cuda build", "FAIL", message, evidence, f"pip uninstall -y {name.split()[0]} && {WITH_CUDA}")


def cuda_packages(here: Environment) -> Iterator[Finding]:
    """One CUDA's packages, and of JAX's plugin the version that JAX uses."""
    if not here.gpus_in_machine:
        return
    for names in here.cuda_packages.overwritten:
        message = "packages, as of two CUDAs, have overwritten each other's libraries: what is loaded is a mixture"
        gone = " ".join(name.split()[0] for name in names)
        again = with_cuda(here).replace("pip install", "pip install --force-reinstall", 1)
        fix = f"pip uninstall -y {gone} && {again}; and an environment of its own for each of TensorFlow, JAX, PyTorch"
        yield Finding("cuda packages", "FAIL", message, " and ".join(names), fix)
    jaxlib = here.cuda_packages.jax.get("jaxlib", "")
    for name, version in here.cuda_packages.jax.items() if here.backend == "jax" and jaxlib else ():
        if _numbers(version) != _numbers(jaxlib):  # as JAX compares them: its jaxlib/plugin_support.py
            message = f"{name} {version} isn't of jaxlib's version: JAX leaves it out"
            yield Finding("cuda packages", "FAIL", message, f"jaxlib {jaxlib}", with_cuda(here))


def _numbers(version: str) -> list[str]:
    found = re.match(r"\d+(\.\d+)*", version)
    return found[0].split(".") if found else []


def driver_version(here: Environment) -> Iterator[Finding]:
    """The driver's version beside the CUDA that TensorFlow was built for; whether it is enough, the probes measure."""
    if here.tensorflow is None or not here.tensorflow.cuda_build or not here.nvidia.driver:
        return
    if older := _older_driver(here):
        message = f"{older}: it takes CUDA's compatibility package"
        yield Finding("driver version", "PASS", message, _libcuda(here), install_driver(here))
    elif here.tensorflow.cuda:
        built = ".".join(map(str, here.tensorflow.cuda))
        message = f"{here.nvidia.driver}; {here.tensorflow.distributions[0]} was built for CUDA {built}"
        yield Finding("driver version", "PASS", message, _libcuda(here))


def _older_driver(here: Environment) -> str:
    """Return that the driver is older than TensorFlow's CUDA, in words; empty: it isn't, or isn't known."""
    cuda = here.tensorflow.cuda if here.tensorflow else None
    driver = tuple(int(part) for part in (here.nvidia.driver or "").split(".") if part.isdecimal())
    if not cuda or not driver:
        return ""
    oldest = OLDEST_DRIVER.get(cuda[0])
    if not (oldest and driver < oldest) and not (here.nvidia.cuda and here.nvidia.cuda[0] < cuda[0]):
        return ""
    needed = ".".join(map(str, oldest)) if oldest else f"one for CUDA {cuda[0]}"
    return f"driver {here.nvidia.driver} is older than CUDA {'.'.join(map(str, cuda))}, which needs at least {needed}"


def _libcuda(here: Environment) -> str:
    found = (each.path for each in here.libraries if each.wheel == DRIVER and not each.error and "/" in each.path)
    return "".join(f"libcuda.so.1 is {path}" for path in found)


def libraries(here: Environment) -> Iterator[Finding]:
    """Every library that TensorFlow opens can be opened."""
    if not here.gpus_in_machine or here.tensorflow is None or not here.tensorflow.cuda_build:
        return
    major = here.tensorflow.cuda[0] if here.tensorflow.cuda else None
    if major not in LIBRARIES:
        message = f"CUDA {major}'s libraries aren't known to this version: not checked"
        known = f"known: CUDA {', '.join(map(str, LIBRARIES))}"
        yield Finding("libraries", "INCONCLUSIVE", message, known, "pip install --upgrade alexnet-repro")
        return
    broken = [each for each in here.libraries if each.error]
    for each in broken:
        found = f" (found as {each.path})" if each.path != each.name else ""
        fix = f"pip install --force-reinstall '{here.tensorflow.wheels.get(each.wheel, each.wheel)}'"
        message = f"{each.name} can't be loaded; {each.wheel} brings it"
        if each.wheel == DRIVER and here.unlisted.wsl:
            fix = on_the_path(here.unlisted.wsl)
        elif each.wheel == DRIVER:
            fix = give_gpus(here) if here.container else f"{install_driver(here)}; in a container: {give_gpus(here)}"
            if lacks(here, "compute"):
                message, fix = f"{message}; {CAPABILITIES}={here.settings[CAPABILITIES]} leaves it out", give_gpus(here)
        yield Finding(f"library {each.name}", "FAIL", message, f"{each.error}{found}", fix)
    if here.libraries and not broken:
        version, older = next((each.version for each in here.libraries if each.version), ""), _older_cudnn(here)
        message = f"all {len(here.libraries)} can be loaded{f'; cuDNN {version}' if version else ''}"
        yield Finding("libraries", "PASS", message, *older)


# From this TensorFlow on, XLA finds no kernel of cuDNN 9.3 and 9.5 for a convolution with a bias in float32 on T4, A10G
# and L4, and finds one with 9.24: github.com/aws/deep-learning-containers/pull/6417, github.com/calad0i/HGQ2/issues/14.
# 9.19 has them on an H100, where the layout is another. So the version fails nothing: the probe `xla` compiles one.
FUSED, SURE_CUDNN = "2.21", "9.24"


def _older_cudnn(here: Environment) -> tuple[str, str] | tuple[()]:
    """Return that cuDNN may lack kernels, and the fix; nothing where it is new enough, or not known."""
    found = next((each for each in here.libraries if each.version), None)
    ours = (here.tensorflow.distributions[0].split() if here.tensorflow else [""])[-1]
    if not found or _order(ours) < _order(FUSED) or _order(found.version) >= _order(SURE_CUDNN):
        return ()
    doubt = f"cuDNN {found.version} is {found.path}; on some GPUs XLA needs {SURE_CUDNN}"
    return doubt, f"pip install '{found.wheel}>={SURE_CUDNN}'; or: export XLA_FLAGS=--xla_gpu_force_conv_nhwc=true"


def _order(version: str) -> list[int]:
    return [int(number) for number in _numbers(version)]


def explain_gpu(here: Environment, check: str, cause: str | None, fixes: list[str]) -> tuple[list[str], list[str]]:
    """Return which versions here may be why TensorFlow failed this check on a GPU, and the fixes with theirs."""
    doubts: list[str] = []
    if cause in (None, "old driver") and (older := _older_driver(here)):
        doubts, fixes = [older, _libcuda(here)], [install_driver(here), *fixes]
    elif cause == "old driver" and here.nvidia.cuda and here.tensorflow and here.tensorflow.cuda:
        built, knows = (".".join(map(str, each[:2])) for each in (here.tensorflow.cuda, here.nvidia.cuda))
        doubts = [f"driver {here.nvidia.driver} knows CUDA up to {knows}, and TensorFlow was built for {built}"]
    if check == "xla" and cause in (None, "convolution kernels") and (cudnn := _older_cudnn(here)):
        doubts, fixes = [*doubts, cudnn[0]], fixes if cause else [cudnn[1], *fixes]  # a known cause has its own
    lacking = next((each for each in kernels(here) if each.fix), None)
    if lacking and cause == "no kernels":
        doubts, fixes = [*doubts, lacking.evidence], [lacking.fix]
    elif lacking and cause == HANGS:
        doubts, fixes = [*doubts, f"{lacking.message}: {lacking.evidence}"], ["run it with --deadline=1800", *fixes]
    return doubts, fixes
