"""Records and files of machines, healthy and faulty, for the tests of the doctor and its probes."""

from dataclasses import dataclass, replace

from alexnet_repro.verify.doctor import cuda_software, software
from alexnet_repro.verify.doctor.device_probe import CHECKS, ProbeResult
from alexnet_repro.verify.doctor.doctor import DRIVER_CHECKS, LAST_CHECKS, MACHINE_CHECKS
from alexnet_repro.verify.doctor.environment import Environment, Volume
from alexnet_repro.verify.doctor.installation import LIBRARIES, Library, Requirement, TensorFlow
from alexnet_repro.verify.doctor.nvidia import Gpu, Nvidia
from alexnet_repro.verify.finding import worst

GIB, MIB = 2**30, 2**20
TF = "github.com/tensorflow/tensorflow/issues/"
SYNTHETIC = "synthetic"

A100 = Gpu(
    index=0,
    name="NVIDIA A100-SXM4-80GB",
    uuid="GPU-a",
    capability=(8, 0),
    memory_total=80 * GIB,
    memory_used=4 * MIB,
    persistence=True,
    mig=False,
    ecc=True,
    ecc_uncorrected=0,
    ecc_corrected=0,
    remap_pending=False,
    remap_failed=False,
    throttle_reasons=0x1,
    temperature=34,
)
TWO = (A100, replace(A100, index=1, uuid="GPU-b"))
T4 = replace(A100, name="Tesla T4", uuid="GPU-t", capability=(7, 5), memory_total=15 * GIB)
TENSORFLOW = TensorFlow(
    distributions=("tensorflow 2.21.0",),
    folder="/site/tensorflow",
    cuda_build=True,
    cuda=(12, 5, 1),
    capabilities=("sm_60", "sm_70", "sm_80", "sm_89", "compute_90"),
    requirements=(
        Requirement("numpy", ">=1.26.0", "2.4.6", met=True),
        Requirement("protobuf", "<8.0.0,>=6.31.1", "7.36.2", met=True),
    ),
    wheels={"nvidia-cudnn-cu12": "nvidia-cudnn-cu12<10.0,>=9.3.0.75"},
)


def results(device, gpus=(), backend="tensorflow", **errors):
    """Return one device's results: `errors` by check, all others pass."""
    return tuple(
        ProbeResult(device, check, errors.get(check), 1.0, {"gpus": gpus} if check == "devices" else {})
        for check in CHECKS[backend]
    )


def box(*gpus, **changes):
    """Return a healthy machine with these GPUs, but for `changes`."""
    names = tuple(gpu.name for gpu in gpus)
    return replace(
        Environment(
            python="3.11.7",
            system="Linux-6.8.0-x86_64",
            device_files=tuple(f"/dev/nvidia{gpu.index}" for gpu in gpus),
            control_files=("nvidiactl", "nvidia-uvm"),
            listed_by_driver=len(gpus),
            on_pci_bus=len(gpus),
            shared_memory=64 * GIB,
            volumes=(Volume("weights", "/work", 100 * GIB), Volume("data", "/home/me/.keras", 100 * GIB)),
            tensorflow=TENSORFLOW,
            nvidia=Nvidia(driver="580.95.5", cuda=(13, 0), gpus=gpus),
            libraries=tuple(Library(name, wheel) for name, wheel in LIBRARIES[12].items()) if gpus else (),
            results=results("cpu:0", names)
            + sum((results(f"gpu:{i}", names[i : i + 1]) for i in range(len(gpus))), ()),
        ),
        **changes,
    )


CPU = replace(box(), nvidia=Nvidia(error="NVML Shared Library Not Found"), control_files=())
NO_DRIVER = Nvidia(error="NVML Shared Library Not Found")
UNSEEN = results("cpu:0", ())  # TensorFlow sees no GPU


def one(**changes):
    """Return a machine with one A100 whose driver reports `changes`."""
    return box(replace(A100, **changes))


def without(*libraries):
    """Return one A100's libraries, of which these can't be loaded."""
    return tuple(
        Library(name, wheel, error=f"{name}: cannot open shared object file" if name in libraries else None)
        for name, wheel in LIBRARIES[12].items()
    )


def driver(version, cuda, *gpus):
    """Return a driver's report of its GPUs."""
    return Nvidia(driver=version, cuda=cuda, gpus=gpus)


def requirement(name, wanted, installed):
    """Return TensorFlow, and an installed package that it can't work with."""
    return replace(TENSORFLOW, requirements=(Requirement(name, wanted, installed, met=False),))


def diagnose(here):
    """Return the doctor's findings on a complete record."""
    checks = (*MACHINE_CHECKS, *DRIVER_CHECKS, cuda_software.driver_version, cuda_software.libraries)
    findings = [finding for check in checks for finding in check(here)]
    findings += [finding for result in here.results for finding in software.device_result(here, result)]
    return findings + [finding for check in LAST_CHECKS for finding in check(here)]


@dataclass(frozen=True)
class Case:
    """A machine, and its expected findings: the checks that don't pass, and words of message, evidence and fix."""

    source: str
    here: Environment
    checks: str
    status: str
    words: tuple[str, ...]

    def mistakes(self):
        """Return what the doctor gets wrong about it: just these checks are red, with cause, evidence and fix."""
        findings = diagnose(self.here)
        red = [finding for finding in findings if finding.status != "PASS"]
        ill = {finding.device for finding in red if finding.check in ("memory", "ecc", "clocks", "mig")}
        never = {(finding.device, finding.check) for finding in red} | {(device, "health") for device in ill}
        checks, text = ", ".join(finding.check for finding in red), "\n".join(map(str, red))
        return [
            *([f"red: {checks}"] if checks != self.checks else []),
            *([f"status: {worst(red)}"] if worst(red) != self.status else []),
            *(f"missing: {words}" for words in self.words if words not in text),
            *(f"incomplete: {each}" for each in red if not (each.message and each.evidence and each.fix)),
            *(f"well too: {each}" for each in findings if each.status == "PASS" and (each.device, each.check) in never),
        ]


def write(root, files):
    """Write files, by path, below `root`; return it."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def distribution(name, release, *requires, record="tensorflow/__init__.py,,\n"):
    """Return the metadata files of an installed package, and the files that its record lists, empty."""
    folder = f"{name.replace('-', '_')}-{release}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {release}\n"
    metadata += "".join(f"Requires-Dist: {each}\n" for each in requires)
    files = {line.partition(",")[0]: "" for line in (record or "").splitlines() if ".dist-info/" not in line}
    return files | {f"{folder}/METADATA": metadata} | ({} if record is None else {f"{folder}/RECORD": record})
