"""Memory that doesn't keep what is put into it is found; room that ends is no fault."""

import resource
import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from keras import ops

from alexnet_repro.backend.memory_limits import memory_limits
from alexnet_repro.verify.checks import memory
from alexnet_repro.verify.checks.config import CheckConfig
from tests.helpers.machines import TWO, write
from tests.helpers.nvml import nvml_of, show

MIB = 1 << 20
CONFIG = CheckConfig(side=67, steps=2, replays=2)


# Named as TensorFlow, JAX and PyTorch name theirs.
TENSORFLOW = type("ResourceExhaustedError", (Exception,), {})(
    "{{function_node __wrapped__Fill}} OOM when allocating tensor with shape[268435456]"
)
JAX = type("XlaRuntimeError", (RuntimeError,), {})(
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 268435456 bytes."
)
TORCH = type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 256.00 MiB.")
TORCH_HOST = RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory")
NUMPY = MemoryError("Unable to allocate 8.00 GiB for an array with shape (1073741824,)")
NO_MEMORY = [
    pytest.param(TENSORFLOW, id="backend=tensorflow"),
    pytest.param(JAX, id="backend=jax"),
    pytest.param(TORCH, id="backend=torch"),
]
ILLEGAL = RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered")


@pytest.fixture
def room(monkeypatch):
    """A function that makes room for a number of blocks, after which an error is raised."""
    full = ops.full

    def limit(blocks, error):
        made = []

        def limited(*arguments):
            if len(made) >= blocks:
                raise error
            made.append(1)
            return full(*arguments)

        monkeypatch.setattr(memory.ops, "full", limited)

    return limit


def test_sound_memory_passes():
    """Memory that keeps five patterns passes, with how much was filled."""
    found = memory.memory(CONFIG, 64 * MIB, 16 * MIB)
    assert (found.status, found.message) == ("PASS", "64 MiB filled and read back, 5 patterns")


def test_memory_of_another_device(monkeypatch):
    """What is written to another device's memory fails before that is filled."""
    monkeypatch.setattr(memory, "on_device", lambda _: nullcontext())
    monkeypatch.setattr(memory, "_fill", None)
    found = memory.memory(replace(CONFIG, device="gpu:0"), 4096, 1024)
    assert (found.status, found.message) == ("FAIL", "what is written to gpu:0 lies on cpu:0")


def test_patterns_differ_in_bits_and_blocks(monkeypatch):
    """Each block once holds every bit off, every bit on and both alternations; then no two of 256 hold the same."""
    passes = [[values[number % len(values)] for number in range(256)] for values in memory.PASSES.values()]
    assert {frozenset(each) for each in zip(*passes[:4], strict=True)} == {frozenset({0x00, 0xFF, 0x55, 0xAA})}
    assert len(set(passes[4])) == 256
    filled = []
    fill = memory._fill

    def noting(values, budget, block):
        filled.append(list(values[:3]))
        return fill(values, budget, block)

    monkeypatch.setattr(memory, "_fill", noting)
    memory.memory(CONFIG, 3, 1)
    assert filled == [each[:3] for each in passes]


@pytest.mark.parametrize("faulty", [0, 3, 4])
def test_flipped_bit_is_found(monkeypatch, faulty):
    """One bit that doesn't stay as it was written fails, in whichever pass; its block is named."""
    fill, passes = memory._fill, []

    def spoil(values, budget, block):
        blocks = fill(values, budget, block)
        if len(passes) == faulty:
            size, tensor = blocks[2]
            array = np.array(ops.convert_to_numpy(tensor))
            array[size // 2] ^= 0x10
            blocks[2] = size, ops.convert_to_tensor(array)
        passes.append(values)
        return blocks

    monkeypatch.setattr(memory, "_fill", spoil)
    found = memory.memory(CONFIG, 4096, 1024)
    assert (found.status, found.number) == ("FAIL", 1)
    assert found.message == "1 of 1024 bytes of block 2 aren't what was written"
    assert "ECC" in found.fix


@pytest.mark.parametrize("error", NO_MEMORY)
def test_room_that_ends_is_no_fault(room, error):
    """Where there is no more memory filling stops, and two blocks are given back for the reading."""
    room(5, error)
    blocks = memory._fill(range(256), 100 * MIB, 1024)
    assert [size for size, _ in blocks] == [1024, 1024, 1024]
    assert [int(tensor[0]) for _, tensor in blocks] == [0, 1, 2]


def test_budget_is_kept():
    """No more is filled than allowed, the last block being smaller."""
    assert [size for size, _ in memory._fill([0], 2500, 1024)] == [1024, 1024, 452]


def test_no_block_outlives_its_pass(monkeypatch):
    """Each pass has all the memory: nothing of the one before it is held."""

    class Array(np.ndarray):
        """That can be referred to weakly."""

    def full(shape, value, dtype):
        alive.append(sum(1 for reference in references if reference() is not None))
        array = np.full(shape, value, dtype).view(Array)
        references.append(weakref.ref(array))
        return array

    references, alive = [], []
    monkeypatch.setattr(memory.ops, "full", full)
    assert memory.memory(CONFIG, 3072, 1024).status == "PASS"
    assert alive == [0, 1, 2] * 5


def test_other_errors_are_raised(room):
    """An error of another kind while filling isn't taken for memory that is full."""
    room(2, ILLEGAL)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        memory.memory(CONFIG, 4096, 1024)


@pytest.mark.parametrize(
    ("total", "reserved", "status"),
    [
        (100, 3, "PASS"),
        (111, 3, "PASS"),
        (112, 3, "INCONCLUSIVE"),
        (200, 3, "INCONCLUSIVE"),
        (130, 30, "PASS"),  # a small GPU, of which more than a tenth is reserved
        (131, 30, "INCONCLUSIVE"),
        (134, 90, "INCONCLUSIVE"),  # at most a quarter
    ],
)
def test_share_of_a_gpus_memory(monkeypatch, total, reserved, status):
    """Filling less than 90 % of a GPU's memory, or than all but what is reserved, is inconclusive."""
    monkeypatch.setattr(memory, "RESERVED_BYTES", reserved * 1024)
    monkeypatch.setattr(memory, "_budget", lambda _device, _budget: (total * 1024, 100 * 1024))
    found = memory.memory(CONFIG, block=10 * 1024)
    assert (found.status, found.number, found.bound) == (status, 100 / total, 0.9)
    assert bool(found.fix) == (status == "INCONCLUSIVE")


def test_nothing_filled_is_inconclusive(room):
    """Memory that was full before was not checked, of a host too."""
    room(0, TENSORFLOW)
    assert memory.memory(CONFIG, 4096, 1024).status == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("available", "files", "filled"),
    [
        pytest.param(5145 << 22, {}, 5145, id="memory=available"),
        pytest.param(21 << 30, {"memory.max": 3 << 30, "memory.current": 1 << 30}, 512, id="memory=container"),
        pytest.param(1 << 30, {"memory.max": 3 << 30, "memory.current": 1 << 30}, 256, id="memory=of_the_machine"),
    ],
)
def test_budget_of_a_host(monkeypatch, tmp_path, available, files, filled):
    """A quarter of what is available, page cache included, and of what a container's limit leaves; of no swap."""
    machine = psutil.virtual_memory()._replace(total=25 << 30, available=available, free=1860 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=64 << 30, free=64 << 30))
    monkeypatch.setattr("resource.getrlimit", lambda _number: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    folder = {f"sys/fs/cgroup/{name}": str(size) for name, size in files.items()}
    write(tmp_path, {"proc/self/cgroup": "0::/", **folder})
    monkeypatch.setattr(memory, "memory_limits", partial(memory_limits, tmp_path))
    assert memory._budget("cpu:0", None) == (None, filled << 20)


def test_budgets(monkeypatch):
    """By default all of a GPU's memory, and as much as there is where none is known."""
    assert memory._budget("cpu:0", 5) == (None, 5)
    monkeypatch.setattr(memory, "_gpu_memory", lambda _: 80)
    assert memory._budget("gpu:0", None) == (80, 80)
    assert memory._budget("gpu:0", 5) == (80, 5)
    monkeypatch.setattr(memory, "_gpu_memory", lambda _: None)
    assert memory._budget("gpu:0", None) == (None, 1 << 50)


@pytest.mark.parametrize(
    ("visible", "total"),
    [
        pytest.param("1", 81, id="visible=1"),
        pytest.param("GPU-b", 81, id="visible=GPU-b"),
        pytest.param(None, 80, id="visible=all"),
        pytest.param("MIG-5a", 10, id="visible=slice"),
        pytest.param("GPU-", None, id="visible=two"),
    ],
)
def test_memory_of_the_right_gpu(monkeypatch, visible, total):
    """The driver reports on the GPU, or slice, that this process sees under that number; abbreviations are allowed."""
    slices = {1: ("MIG-5a6b",)} if visible == "MIG-5a" else {}
    sizes = {0: 80, 1: 81, "MIG-5a6b": 10}
    nvml = nvml_of(*TWO, slices=slices, nvmlDeviceGetMemoryInfo=lambda each: SimpleNamespace(total=sizes[each]))
    show(monkeypatch, nvml, *TWO, visible=visible)
    assert memory._gpu_memory("gpu:0") == total


def test_unknown_memory_of_a_gpu(monkeypatch):
    """Where the driver doesn't tell how much a GPU has, what was filled of it may be little: it doesn't pass."""
    monkeypatch.setattr(memory, "_budget", lambda _device, _budget: (None, 4096))
    monkeypatch.setattr(memory, "on_device", lambda _: nullcontext())
    monkeypatch.setattr(memory, "device_of", lambda _: "gpu:0")
    found = memory.memory(replace(CONFIG, device="gpu:0"), block=1024)
    assert (found.status, "doesn't tell" in found.message) == ("INCONCLUSIVE", True)
    assert "doctor" in found.fix


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(TENSORFLOW, True, id="error=tensorflow"),
        pytest.param(JAX, True, id="error=jax"),
        pytest.param(TORCH, True, id="error=torch"),
        pytest.param(TORCH_HOST, True, id="error=torch-host"),
        pytest.param(NUMPY, True, id="error=numpy"),
        pytest.param(RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), True, id="error=cuda"),
        pytest.param(ILLEGAL, False, id="error=illegal-access"),
        pytest.param(ValueError("no memory is mentioned"), False, id="error=other"),
        pytest.param(TimeoutError(""), False, id="error=silent"),
    ],
)
def test_which_errors_mean_no_memory(error, expected):
    """Each backend's way of saying that there is no memory left, and no other error."""
    assert memory.is_out_of_memory(error) is expected
