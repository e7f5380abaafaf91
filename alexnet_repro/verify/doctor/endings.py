"""Why a process ended as it did: its cause, found in the table of `causes.py`, and its lines that say so."""

import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from alexnet_repro.backend.limits import limit_in_words
from alexnet_repro.backend.memory_limits import MemoryLimit, memory_limits
from alexnet_repro.packages import package_version
from alexnet_repro.verify.doctor.causes import CAUSES, RESET_GPU, Cause
from alexnet_repro.verify.doctor.nvidia import read_nvidia
from alexnet_repro.verify.doctor.unlisted import NVIDIA, PCI, text_of

LOOK = "sudo dmesg | tail -50 # for what the kernel says of that process; then run it again"
WRONG = "ArithmeticError: "  # how a probe ends that computed something wrong, whatever was logged besides
_LINE, _LONGEST = 200, 4000  # characters of a line that are kept, and that are searched
# Any of these is there where a GPU of NVIDIA's, or its driver, is: on Linux, in Windows' Linux, on a Jetson.
NVIDIA_FILES = ("dev/nvidiactl", "dev/nvidia0", "proc/driver/nvidia", "dev/dxg", "dev/nvmap", "dev/nvhost-ctrl")
_CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = ("avx", "avx2", "fma")  # that TensorFlow, JAX and PyTorch may be built with
_ERROR_LINE = re.compile(
    r"^F\d{4} |: F |dlopen|cuInit|Ignoring visible|CUDA_|CUDNN_|PTX|not built with|not match|libdevice|"
    r"terminate called|what\(\):|\b\w*[Ee]rror\b"
)
# What is logged for information, XLA's list of its flags, and warnings that say of themselves that they are no failure.
_NO_ERROR = re.compile(r"^I\d{4} |^INFO:|^\t--|: I |not a failure|this does not indicate an error")
_PATTERNS = [(re.compile(cause.pattern, re.IGNORECASE | re.MULTILINE), cause) for cause in CAUSES]


class Ending(NamedTuple):
    """Why a process ended: a cause's name, words, further evidence, and fix."""

    name: str
    message: str
    evidence: str
    fix: str
    shared: bool  # by all failures
    variables: tuple[str, ...] = ()  # that are the cause


def find_ending(device: str, how: str, log: str = "", default: str = "") -> Ending | None:
    """Return the cause of how a process ended on a device, or of its last error; None: it isn't known.

    `how` is the error, or how the process ended; `log` what it wrote. `default` is the fix of an unknown cause.
    """
    if how.startswith(WRONG):
        return None
    nvidia = has_nvidia(device)
    texts = (how[:_LONGEST], *_candidates(log, nvidia=nvidia))
    for pattern, cause in _PATTERNS:
        limit = limit_in_words(cause.limits) if cause.limits else None
        if cause.limits and not limit:
            continue
        if (cause.of == "nvidia" and not nvidia) or (cause.of == "gpu" and not device.startswith("gpu")):
            continue
        if found := next(filter(None, map(pattern.search, texts)), None):
            in_words, lift = limit or ("", "")
            words = {"{default}": default or default_fix(device), "{limit}": in_words, "{lift}": lift}
            return _ending(cause, found, words)
    return None


def default_fix(device: str) -> str:
    """Return the fix of what isn't known: of a GPU its driver, of a CPU the kernel."""
    return RESET_GPU if device.startswith("gpu") else LOOK


def error_lines(log: str, device: str) -> str:
    """Return the line that has the cause, if one has, and the last lines about errors, without their time stamps."""
    lines = _candidates(log, nvidia=has_nvidia(device))
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    known = ((line, pattern.search(_text(line))) for pattern, cause in _PATTERNS if not cause.limits for line in lines)
    causes = [_text(line)[max(0, found.end() - _LINE) :][:_LINE] for line, found in known if found]
    return " | ".join(dict.fromkeys([*causes[:1], *list(dict.fromkeys(_text(line)[:_LINE] for line in errors))[-3:]]))


def has_nvidia(device: str, root: Path = Path("/")) -> bool:
    """Return whether GPUs of NVIDIA's are here, so that what CUDA says may matter; `device` may be one."""
    return device.startswith("gpu") or _nvidia_files(root)


@cache
def _nvidia_files(root: Path) -> bool:
    if any((root / name).exists() for name in NVIDIA_FILES):
        return True
    return any(text_of(path).strip() == NVIDIA for path in (root / PCI).glob("*/vendor"))


def _candidates(log: str, *, nvidia: bool) -> list[str]:
    """Return the lines that may say why: without CUDA there cuInit fails on every machine."""
    lines = [line[:_LONGEST] for line in re.split(r"\n| \| ", log) if line.strip() and not _NO_ERROR.search(line)]
    return lines if nvidia else [line for line in lines if "cuInit" not in line]


def _text(line: str) -> str:
    """Return a line without its time stamp."""
    return (line.partition("] ")[2] or line).strip()


def _ending(cause: Cause, found: "re.Match[str]", words: dict[str, str]) -> Ending:
    evidence = ""
    if "nvidia-cudnn" in cause.fix:
        evidence = f"found as {', '.join(_cudnn())}; LD_LIBRARY_PATH={os.environ.get('LD_LIBRARY_PATH', '')}"
    if cause.name == "instructions":
        evidence = _instructions()
    if cause.name == "gpu memory":
        evidence = _holders()
    if "{free}" in cause.fix:
        tightest = next((each for each in memory_limits() if not each.virtual), MemoryLimit("RAM", 0, 0, ""))
        evidence = f"{tightest.name}: {tightest.left / 1e9:.1f} of {tightest.size / 1e9:.1f} GB are left"
        words = {**words, "{free}": f"free -m; {tightest.fix}"}
    words = {**words, "{cu}": "cu13" if package_version("nvidia-cudnn-cu13") else "cu12"}
    message, fix = found.expand(cause.message), found.expand(cause.fix)
    for name, text in words.items():
        message, fix = message.replace(name, text), fix.replace(name, text)
    variables = fix.partition("unset ")[2].partition(";")[0].split() if cause.of == "setting" else ()
    return Ending(cause.name, message, evidence, fix, cause.of in ("", "setting"), tuple(variables))


def _cudnn() -> Iterator[str]:
    """Yield the files of cuDNN in the order in which they are looked for; the first is loaded."""
    folders = [Path(each) for each in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if each]
    spec = find_spec("nvidia")
    folders += [Path(each) / "cudnn/lib" for each in (spec.submodule_search_locations or ()) if spec] if spec else []
    files = [str(path) for folder in folders for path in sorted(folder.glob("libcudnn.so.*"))]
    yield from files or ["none in LD_LIBRARY_PATH, nor in a wheel: the system's"]


def _holders() -> str:
    """Return which other processes hold a GPU's memory, as far as the driver says so."""
    gpus = read_nvidia((), 30).gpus if _nvidia_files(Path("/")) else ()
    own = tuple(f"pid {pid} " for pid in (os.getpid(), os.getppid()))
    held = {gpu.index: [each for each in gpu.processes if not each.startswith(own)] for gpu in gpus}
    return "; ".join(f"GPU {index} is held by {', '.join(others)}" for index, others in held.items() if others)


def _instructions() -> str:
    words = set(text_of(_CPUINFO).partition("\n\n")[0].split())
    lacks = [each for each in INSTRUCTIONS if each not in words]
    return f"{_CPUINFO} has {'no ' + ', '.join(lacks) if lacks else ', '.join(INSTRUCTIONS)}"
