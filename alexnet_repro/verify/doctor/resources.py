"""What this process may take of its machine: memory, and processors' time. Pure functions from the environment."""

from collections.abc import Iterator

from alexnet_repro.verify.doctor.environment import Environment
from alexnet_repro.verify.finding import Finding

# Bytes, measured of a quick verification by TensorFlow 2.21 on two processors: all its processes had 3.6 GB in use at
# a time, the largest of them 2.9 GB, and 5.4 GB of addresses.
TAKEN, LARGEST, ADDRESSES = 3_600_000_000, 2_900_000_000, 5_400_000_000
QUOTA_FIX = "docker run --cpus=N …, resources.limits.cpu of a pod, or systemd's CPUQuota"


def host_memory(here: Environment) -> Iterator[Finding]:
    """Memory for a verification: of RAM, of a cgroup's limit, of the shell's."""
    well = True
    for limit in here.memory:
        what, least, taken = ("memory", LARGEST, TAKEN)
        if limit.virtual:
            what, least, taken = "address space", ADDRESSES, ADDRESSES
        takes = f"a verification takes {taken / 1e9:.1f} GB"
        left = f"{limit.left / 1e9:.1f} GB of it are left"
        if limit.size < least and here.backend == "tensorflow":
            message = f"{what} is limited to {limit.size / 1e9:.1f} GB ({limit.name}): {takes}"
            yield Finding("host memory", "FAIL", message, left, limit.fix)
        elif limit.size < least or (not limit.virtual and limit.left < TAKEN):
            message = f"little {what} is left of {limit.size / 1e9:.1f} GB ({limit.name}): {takes}, and may be ended"
            yield Finding("host memory", "INCONCLUSIVE", message, left, f"free -m; {limit.fix}")
        elif limit.virtual and here.gpus_in_machine and here.wants_gpus:
            message = (
                f"{what} is limited to {limit.size / 1e9:.1f} GB ({limit.name}): CUDA reserves as much as there is "
            )
            message += "memory of the host and of all GPUs, and may not start"
            yield Finding("host memory", "INCONCLUSIVE", message, left, limit.fix)
        else:
            continue
        well = False
    if well and here.memory:
        yield Finding("host memory", "PASS", f"{here.memory[0].left / 1e9:.1f} GB are left ({here.memory[0].name})")


def processors(here: Environment) -> Iterator[Finding]:
    """The processors, and a quota of their time."""
    if here.cpu_quota is None:
        yield Finding("processors", "PASS", f"{here.processors}")
        return
    message = f"{here.processors}, of which a quota leaves the time of {here.cpu_quota:g}: what is timed is throttled"
    evidence = "the cgroup's cpu.max, or cpu.cfs_quota_us by cpu.cfs_period_us"
    yield Finding("processors", "PASS", message, evidence, QUOTA_FIX)
