"""Can the backend use this machine? Pure functions from the environment to findings."""

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from alexnet_repro.verify.doctor.causes import HANGS, NVCC
from alexnet_repro.verify.doctor.cuda_software import explain_gpu
from alexnet_repro.verify.doctor.device_probe import BACKEND_NAMES, ProbeResult
from alexnet_repro.verify.doctor.endings import default_fix, find_ending
from alexnet_repro.verify.doctor.environment import GIB, Environment
from alexnet_repro.verify.doctor.installation import OUR_OWN, Requirement
from alexnet_repro.verify.doctor.remedies import WITH_CUDA, with_cuda
from alexnet_repro.verify.doctor.resources import host_memory
from alexnet_repro.verify.doctor.settings import KERAS, doubts
from alexnet_repro.verify.finding import Finding, Status

SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only its size is read
MIN_FREE_DISK = GIB  # the data, and two copies of the weights while the new ones are written
MIN_SHARED_MEMORY = GIB  # what NCCL's users end up with; Docker gives 64 MiB

OF_MEMORY = ("address space", "perhaps address space", "memory", "oom killer", "killed")  # names of causes
IMPORT_LOOK = "python -X faulthandler -c 'import {}'"
REINSTALL = {"tensorflow": "tensorflow", "jax": "jax jaxlib", "torch": "torch"}

# How each of what is written goes to another folder.
ELSEWHERE = {
    "weights": "train --weights=FOLDER/NAME.weights.h5",
    "data": "export KERAS_HOME=FOLDER, or ALEXNET_REPRO_DATA=FOLDER that has the data",
    "temporary files": "export TMPDIR=FOLDER",
}


def installed(here: Environment) -> Iterator[Finding]:
    """One TensorFlow, and its requirements in the right versions; where another backend runs, none is needed."""
    if here.backend != "tensorflow":
        return
    if here.tensorflow is None:
        yield Finding("tensorflow", "FAIL", "TensorFlow isn't installed", f"Python {here.python}", WITH_CUDA)
        return
    names = here.tensorflow.distributions
    if len(names) > 1:
        message = "several TensorFlow packages are installed over each other: what runs is a mixture of their files"
        fix = f"pip uninstall -y {' '.join(sorted({name.split()[0] for name in names}))} && {WITH_CUDA}"
        yield Finding("tensorflow", "FAIL", message, f"{', '.join(names)}, all in {here.tensorflow.folder}", fix)
    else:
        yield Finding("tensorflow", "PASS", f"{names[0]} on Python {here.python}, {here.system}")
    if left := here.tensorflow.leftovers:
        message = "metadata is left of packages that aren't what is imported: passed over; pip doesn't remove it"
        yield Finding("metadata", "PASS", message, ", ".join(left), f"rm -r {' '.join(map(shlex.quote, left))}")
    # A range says what was tried by those who wrote it; what is imported is tried here, by TensorFlow's import.
    if unmet := [each for each in here.tensorflow.requirements if not each.met]:
        absent = [each for each in unmet if each.installed is None and each.name in OUR_OWN]
        message = f"{'; '.join(map(_doubt, unmet))}: a fault only if importing TensorFlow fails"
        if absent:
            message = f"no {' and no '.join(each.name for each in absent)} is installed: nothing here runs without"
        status: Status = "FAIL" if absent else "PASS"
        yield Finding("requirements", status, message, f"the metadata of {names[0]}", _pip(unmet))
    else:
        shown = (each for each in here.tensorflow.requirements if each.name in ("numpy", "protobuf", "keras"))
        yield Finding("requirements", "PASS", ", ".join(f"{each.name} {each.installed}" for each in shown))


def _doubt(unmet: Requirement) -> str:
    has = f"{unmet.name} {unmet.installed}" if unmet.installed else f"no {unmet.name}"
    return f"{has} is installed (TensorFlow wants {unmet.wanted or 'any'})"


def _pip(unmet: Iterable[Requirement]) -> str:
    return f"pip install {' '.join(shlex.quote(f'{each.name}{each.wanted}') for each in unmet)}"


def settings(here: Environment) -> Iterator[Finding]:
    """No environment variable, nor keras.json, changes results unnoticed; what ended a probe has failed there."""
    failed = [each for each in here.results if each.error]
    endings = filter(None, (find_ending(each.device, each.error or "", each.log) for each in failed))
    blamed = {name for ending in endings for name in ending.variables}
    several = here.expected_gpus > 1
    set_here = doubts(here.settings, here.backend, here.defaults, gpu=here.wants_gpus, several=several)
    found = [each for each in set_here if each.name not in blamed]
    for each in found:
        evidence, fix = f"{each.name}={each.text}", f"unset {each.name}"
        if each.name.startswith(KERAS):
            evidence += " in keras.json, which is in KERAS_HOME or ~/.keras"
            fix = f'remove "{each.name.removeprefix(KERAS)}" from that file'
        if each.meaning is not None:
            message = f"{each.name} {each.setting.effect}; compare only with runs that had it too"
            yield Finding("settings", "INCONCLUSIVE", message, evidence, fix)
        elif each.setting.fatal:
            message = f"{each.name}={each.text} isn't understood, which ends a process that reads it"
            yield Finding("settings", "INCONCLUSIVE", message, evidence, fix)
        else:
            message = f"{each.name}={each.text} isn't understood, and has no effect"
            yield Finding("settings", "PASS", message, evidence, fix)
    if not blamed and all(each.meaning is None and not each.setting.fatal for each in found):
        onednn = "off on this processor" if here.defaults.get("TF_ENABLE_ONEDNN_OPTS") == "0" else "on"
        defaults = f"; oneDNN is {onednn}, and TF32 where not turned off, as TensorFlow's defaults are"
        also = defaults if here.backend == "tensorflow" else ""
        yield Finding("settings", "PASS", f"none that changes results{also}")


def beside_settings(finding: Finding, here: Environment) -> Finding:
    """Return a failure with the settings beside it that change numbers, or end processes: they come before hardware."""
    gpu = not finding.device.startswith("cpu")
    found = doubts(here.settings, here.backend, here.defaults, gpu=gpu, several=False)
    names = [each.name for each in found if each.meaning is not None or each.setting.fatal]
    if finding.status != "FAIL" or not names or finding.data.get("cause", HANGS) != HANGS:
        return finding
    were_set = ", ".join(f"{name}={here.settings[name]}" for name in names)
    evidence = "; ".join(filter(None, (finding.evidence, f"with {were_set}")))
    fix = "; then: ".join(filter(None, (f"run it without {', '.join(names)}", finding.fix)))
    return replace(finding, evidence=evidence, fix=fix)


def disk(here: Environment) -> Iterator[Finding]:
    """Folders that can be written to, with free space for the files; where weights and data go can be chosen."""
    closed = [volume for volume in here.volumes if volume.problem]
    for volume in closed:
        message = f"{volume.path} can't be written to ({volume.problem}), where {volume.purpose} would go"
        needed = volume.purpose == "temporary files"
        fix = ELSEWHERE[volume.purpose]
        yield Finding("disk", "FAIL" if needed else "INCONCLUSIVE", message, volume.path, fix)
    short = [volume for volume in here.volumes if volume.free is not None and volume.free < MIN_FREE_DISK]
    for volume in short:
        message = f"too little space for {volume.purpose}: {_size(volume.free)} free, {_size(MIN_FREE_DISK)} needed"
        fix = f"df -h {volume.path}; then delete files there, or {ELSEWHERE[volume.purpose]}"
        yield Finding("disk", "FAIL", message, volume.path, fix)
    if not short and not closed:
        yield Finding("disk", "PASS", ", ".join(f"{each.purpose} {_size(each.free)} free" for each in here.volumes))


def shared_memory(here: Environment) -> Iterator[Finding]:
    """Shared memory for what several GPUs exchange."""
    size = here.shared_memory
    if here.expected_gpus > 1 and size is not None and size < MIN_SHARED_MEMORY:
        message = f"shared memory is too small for {here.expected_gpus} GPUs to exchange gradients through"
        fix = "docker run --shm-size=1g …" if here.container else f"sudo mount -o remount,size=1g {SHARED_MEMORY}"
        evidence = f"{SHARED_MEMORY} {_size(size)}, {_size(MIN_SHARED_MEMORY)} needed"
        yield Finding("shared memory", "FAIL", message, evidence, fix)
    else:
        yield Finding("shared memory", "PASS", f"{SHARED_MEMORY} {_size(size)}")


def _beside_versions(failed: Finding, here: Environment, error: str) -> Finding:
    """Return a failure with the versions beside it that could be its cause, and with the package's own name."""
    if here.tensorflow is None:
        return failed
    cause = failed.data.get("cause")
    name = here.tensorflow.distributions[0].split()[0]
    doubts, fixes = [], [failed.fix.replace("reinstall tensorflow", f"reinstall {name}")]
    unmet = [each for each in here.tensorflow.requirements if not each.met] if cause in (None, "old driver") else []
    named = [each for each in unmet if each.name in error or each.name.replace("-", "_") in error]
    if named := named or (unmet if failed.check == "import" else []):
        doubts, fixes = [_doubt(each) for each in named], [_pip(named), *fixes]
    if not failed.device.startswith("cpu"):
        of_gpu, fixes = explain_gpu(here, failed.check, cause, fixes)
        doubts += of_gpu
    return replace(failed, evidence="; ".join(filter(None, (*doubts, failed.evidence))), fix="; then: ".join(fixes))


def device_result(here: Environment, result: ProbeResult) -> Iterator[Finding]:
    """The backend starts, sees every GPU, and computes on each device: the finding of one probe's result."""
    for found in _device_result(here, result):
        yield _beside_versions(found, here, result.error or "") if found.status == "FAIL" else found


def _device_result(here: Environment, result: ProbeResult) -> Iterator[Finding]:
    check = result.check
    name, seen = BACKEND_NAMES[here.backend], tuple(result.data.get("gpus", ()))
    if result.error:
        found = _failed(here, result)
        yield beside_settings(found, here)
    elif check != "devices" or result.device != "cpu:0":
        yield Finding(check, "PASS", f"{result.seconds:.1f} s", device=result.device)
    elif not here.wants_gpus:
        yield Finding(check, "PASS", "the CPU; GPUs aren't asked for")
    elif len(seen) >= here.needed_gpus:
        more = "; the doctor examines NVIDIA's alone" if len(seen) > here.needed_gpus else ""
        yield Finding(check, "PASS", f"{name} sees {len(seen)} GPUs{': ' * bool(seen)}{', '.join(seen)}{more}")
    else:
        message = f"{name} sees {len(seen)} of {here.needed_gpus} GPUs; it would compute on the CPU without a warning"
        fix = f"fix what failed above; if nothing did: {with_cuda(here)}"
        reason = "; ".join(filter(None, (result.data.get("reason"), result.log)))
        ending = find_ending("gpu:0", "", reason)
        platforms = here.settings.get("JAX_PLATFORMS", "") if here.backend == "jax" else ""
        if ending and ending.name != "platform":  # what CUDA said when it didn't start
            message, fix = f"{message}: {ending.message}", ending.fix
        elif platforms and not {"cuda", "gpu"} & {*platforms.split(",")}:
            message, fix = f"{message}: JAX_PLATFORMS={platforms} leaves them out", "unset JAX_PLATFORMS"
        # One GPU takes all others from JAX: its backend "failed to initialize". TensorFlow ignores that one.
        elif "Ignoring visible" in reason or (here.needed_gpus > 1 and "initialize" in reason):
            fix = "leave that GPU out: export CUDA_VISIBLE_DEVICES=… # the others' UUIDs, from nvidia-smi -L"
        yield Finding(check, "FAIL", message, reason or f"{name} gave no reason", fix)


def _failed(here: Environment, result: ProbeResult) -> Finding:
    """Return a failed probe's finding; INCONCLUSIVE if an earlier one failed for the same cause."""
    names = {"import": f"importing {BACKEND_NAMES[here.backend]}", "devices": "listing the devices"}
    names |= {"operations": "a sine, a sum or a gather", "xla": "compiling with XLA"}
    what = f"{names.get(result.check, f'a {result.check}')} failed"
    look = IMPORT_LOOK.format(here.backend)
    reinstall = f"{look}; then: pip install --force-reinstall {REINSTALL[here.backend]}"
    default = reinstall if result.check == "import" else default_fix(result.device)
    default = str(result.data.get("fix", default))  # the child may know one
    of_hang = look if result.check == "import" else default
    ending = find_ending(result.device, result.error or "", result.log, of_hang)
    parts = (result.error if ending else "", result.log or "nothing was logged", ending.evidence if ending else "")
    evidence = "; ".join(dict.fromkeys(filter(None, parts)))
    wheels = here.tensorflow.wheels if here.tensorflow else {}
    fix = ending.fix.replace(f"'{NVCC}'", f"'{wheels.get(NVCC, NVCC)}'") if ending else default
    finding = partial(Finding, result.check, evidence=evidence, fix=fix, device=result.device)
    if not ending:
        return finding("FAIL", f"{what}: {result.error}")
    if ending.name in OF_MEMORY and any(each.status == "FAIL" for each in host_memory(here)):
        message = f"{what}, as 'host memory' says: {ending.message}"
        return finding("INCONCLUSIVE", message, data={"cause": ending.name})
    for each in here.results[: here.results.index(result)] if result in here.results else ():
        other = find_ending(each.device, each.error, each.log) if each.error and ending.shared else None
        if other and other.name == ending.name:
            message = f"{what}, as '{each.check}' of {each.device} did: {ending.message}"
            return finding("INCONCLUSIVE", message, data={"cause": ending.name})
    return finding("FAIL", f"{what}: {ending.message}", data={"cause": ending.name})


def _size(count: int | None) -> str:
    return "unknown" if count is None else f"{count / GIB:.1f} GiB" if count >= GIB / 10 else f"{count / 2**20:.0f} MiB"
