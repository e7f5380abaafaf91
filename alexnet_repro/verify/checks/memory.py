"""Checks of memory: a device keeps what is written to it, and copies arrive as they were sent."""

import contextlib
import re
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from keras import ops

from alexnet_repro.backend.devices import device_of, moved, on_device, usable_devices
from alexnet_repro.backend.memory_limits import memory_limits
from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.doctor.causes import NO_MEMORY
from alexnet_repro.verify.doctor.handles import slice_handle
from alexnet_repro.verify.finding import Finding, Status

# In the first four passes each block is filled with all zeros, all ones, 0x55 and 0xAA in turn; in the fifth with a
# byte of its own, which shows a block that answers under another's address.
PATTERNS = (0x00, 0xFF, 0x55, 0xAA)
PASSES = {f"{value:#04x}": PATTERNS[place:] + PATTERNS[:place] for place, value in enumerate(PATTERNS)}
PASSES["of each block's own"] = tuple((37 * number + 1) % 256 for number in range(256))
MIN_FILLED = 0.9  # of a GPU's memory
# What TensorFlow leaves to the driver, and what reading back takes: more than a tenth of a small GPU.
RESERVED_BYTES = 3 << 30
COPY_CHECK_BYTES = 1 << 26
PAIR_BYTES = 1 << 24  # of each way between two GPUs: 56 among eight
# CUDA supports copies between GPUs over PCIe with the IOMMU on in virtual machines alone ("IOMMU on Linux" in its
# programming guide).
PAIRS_FIX = (
    "nvidia-smi nvlink -e; sudo dmesg | grep -iE 'xid|aer|iommu'; where they are on PCIe, and this is no virtual "
    "machine, turn off the IOMMU and ACS in the firmware"
)
MEMORY_FIX = "run it again, then replace the part: on a GPU, nvidia-smi -q -d ECC,ROW_REMAPPER; on a host, memtest86+"


def memory(config: CheckConfig, budget: int | None = None, block: int | None = None) -> Finding:
    """Patterns that fill the memory are read back as they were written.

    `budget` bytes are filled, by default all that can be had of a GPU's memory, a quarter of a host's, in blocks of
    `block` bytes, by default 256 MiB, or a hundredth of a smaller memory.
    """
    total, budget = _budget(config.device, budget)
    block = block or max(1, min(1 << 28, budget // 100))
    filled = 0
    with on_device(config.device):
        if (place := device_of(ops.zeros((1,), "uint8"))) != config.device:
            message, fix = f"what is written to {config.device} lies on {place}", "python -m alexnet_repro doctor"
            return Finding("memory", "FAIL", message, fix=fix)
        for name, values in PASSES.items():
            blocks = _fill(values, budget, block)
            filled = sum(size for size, _ in blocks)
            for number, (size, tensor) in enumerate(blocks):
                value = values[number % len(values)]
                differs = bool(ops.any(ops.not_equal(tensor, ops.cast(value, "uint8"))))
                if differs and (wrong := int((ops.convert_to_numpy(tensor) != value).sum())):
                    message = f"{wrong} of {size} bytes of block {number} aren't what was written"
                    evidence = f"pattern {name}, {filled >> 20:,} MiB filled"
                    return Finding("memory", "FAIL", message, evidence, MEMORY_FIX, number=wrong, bound=0)
            blocks, tensor = [], None  # or the last block takes the room of one to come
    if not filled:
        fix = "free -m" if config.device.startswith("cpu") else "nvidia-smi"
        return Finding("memory", "INCONCLUSIVE", "there was no memory to fill", fix=fix)
    message = f"{filled >> 20:,} MiB filled and read back, {len(PASSES)} patterns"
    if total is None and config.device.startswith("cpu"):
        return Finding("memory", "PASS", message, number=0, bound=0)
    if total is None:
        fix = "python -m alexnet_repro doctor; or, of several models: export CUDA_DEVICE_ORDER=PCI_BUS_ID"
        return Finding("memory", "INCONCLUSIVE", f"{message}; the driver doesn't tell of how many", fix=fix)
    share = filled / total
    enough = share >= MIN_FILLED or total - filled <= min(RESERVED_BYTES, total / 4)
    status: Status = "PASS" if enough else "INCONCLUSIVE"
    fix = "" if enough else "nvidia-smi # and end the processes that hold the rest"
    message += f": {share:.0%} of the device's memory"
    return Finding("memory", status, message, fix=fix, number=share, bound=MIN_FILLED)


def copies(config: CheckConfig) -> Finding:
    """What is copied to the device and back is what was sent."""
    sent = np.random.default_rng(config.seed).integers(0, 256, COPY_CHECK_BYTES, np.uint8)
    with on_device(config.device):
        tensor = ops.convert_to_tensor(sent)
        arrived = ops.convert_to_numpy(moved(tensor, config.device))
    way = f"to {config.device} and back"
    if wrong := int((arrived != sent).sum()):
        message = f"{wrong} of {sent.size} bytes copied {way} didn't arrive as they were sent"
        fix = "sudo dmesg | grep -iE 'xid|aer|pcie'; then reseat the card"
        return Finding("copies", "FAIL", message, fix=fix, number=wrong, bound=0)
    return Finding("copies", "PASS", f"{COPY_CHECK_BYTES >> 20} MiB {way}", number=0, bound=0)


def gpu_to_gpu_copies(config: CheckConfig) -> Finding:
    """What is copied from any GPU to any other is what was sent."""
    return copies_among([name for name in usable_devices() if name.startswith("gpu")], config.seed)


def copies_among(devices: Sequence[str], seed: int) -> Finding:
    """What is copied from any of these devices to any other is what was sent.

    Each sends bytes of its own: a copy that never took place would leave in the memory what another device sent there.
    """
    sent = {
        device: np.random.default_rng((seed, number)).integers(0, 256, PAIR_BYTES, np.uint8)
        for number, device in enumerate(devices)
    }
    tensors = {}
    for device, array in sent.items():
        with on_device(device):
            tensors[device] = ops.convert_to_tensor(array)
    ways = list(permutations(devices, 2))
    wrong = {}
    for source, target in ways:
        arrived = ops.convert_to_numpy(moved(tensors[source], target))
        if count := int((arrived != sent[source]).sum()):
            wrong[f"from {source} to {target}"] = count
    each = f"{PAIR_BYTES >> 20} MiB from each of {len(devices)} GPUs to each other"
    if not wrong:
        return Finding("copies", "PASS", each, f"{len(ways)} ways", number=0, bound=0, data={"gpus": len(devices)})
    worst = max(wrong, key=lambda way: wrong[way])
    message = f"{wrong[worst]} of {PAIR_BYTES} bytes copied {worst} didn't arrive as they were sent"
    message += f", nor by {len(wrong) - 1} more of {len(ways)} ways" if len(wrong) > 1 else ""
    return Finding("copies", "FAIL", message, f"wrong bytes: {wrong}", PAIRS_FIX, number=wrong[worst], bound=0)


def _fill(values: Sequence[int], budget: int, block: int) -> list[tuple[int, Any]]:
    """Return blocks with their sizes: as many as there is memory for, less the room that reading back takes."""
    blocks: list[tuple[int, Any]] = []
    while budget > 0:
        size = min(block, budget)
        try:
            blocks.append((size, ops.full((size,), values[len(blocks) % len(values)], "uint8")))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            del blocks[-2:]  # a block to compare in, and one that the comparison's own result takes
            break
        budget -= size
    return blocks


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error is a backend's way of saying that there is no memory left."""
    return re.search(NO_MEMORY, f"{type(error).__name__} {error}", re.IGNORECASE) is not None


def _budget(device: str, budget: int | None) -> tuple[int | None, int]:
    """Return the device's memory in bytes (None for a host, or where it isn't known), and the bytes to fill."""
    if device.startswith("cpu"):  # a quarter of what is left: a host that is filled swaps, or ends processes
        return None, budget or min((limit.left for limit in memory_limits(swap=False)), default=1 << 30) // 4
    total = _gpu_memory(device)
    return total, budget or total or 1 << 50


def _gpu_memory(device: str) -> int | None:
    with contextlib.suppress(Exception):  # a lost GPU, an old driver, none at all, another's name: unknown
        nvml, handle = slice_handle(device)
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    return None
