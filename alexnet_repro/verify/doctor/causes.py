"""What ended a process, by its last words or its signal: the cause, and the fix that fits it; the first that matches.

Public reports of each are in `tests/verify/doctor/endings.toml`. `backend/limits.py` says what is limited here.
"""

from typing import NamedTuple

HANGS = "deadline"  # a cause's name
NVCC = "nvidia-cuda-nvcc-cu12"
TEMPORARY = "df -h /tmp /dev/shm; then delete files there, or: export TMPDIR=FOLDER"
RESET_GPU = "sudo dmesg | grep -i xid; then: sudo nvidia-smi -r, or: sudo reboot"
# It runs where NVSwitches are: on the host of a container, and often on that of a virtual machine.
FABRIC_MANAGER = (
    "systemctl status nvidia-fabricmanager # on the host; it must have the driver's version; then: "
    "sudo systemctl restart nvidia-fabricmanager"
)
# What each CUDA's kernels need: docs.nvidia.com/cuda/cuda-toolkit-release-notes, table of driver versions
NEWER_DRIVER = (
    "install a newer driver, from nvidia.com/drivers: 555 or newer for CUDA 12.5, 580 for CUDA 13; then: sudo reboot"
)
NO_MEMORY = (  # as TensorFlow, JAX and PyTorch say it of a GPU, NumPy and PyTorch of a host, and the linker
    r"out.?of.?memory|resource.?exhausted|MemoryError|bad_alloc|allocate memory|unable to allocate|\bOOM\b|"
    r"failed to map segment|static TLS block"
)
NO_THREAD = r"pthread_create|can't start new thread|Thread \S+ creation|Resource temporarily unavailable"
RUN_ALONE = "if this machine is slow or busy, raise --deadline; if it hangs all the same: "


class Cause(NamedTuple):
    r"""One cause; in `message` and `fix`, `\1` is what the pattern's first group matched."""

    name: str
    pattern: str  # of how the process ended, or of a line that it wrote; upper and lower case are alike
    message: str
    fix: str  # `{default}`: that of an unknown cause on this device; `{cu}`: the CUDA of the packages here, as `cu12`
    limits: str = ""  # it is the cause only where one of these is set; for these letters see `limits.py`
    # "nvidia": only where NVIDIA's GPUs or driver are; "gpu": only of a device that is a GPU. Those, and a "check"'s,
    # are each failure's own; any other cause is the machine's, and once it has failed the rest follows. A "setting" is
    # that of the variables which the fix unsets.
    of: str = ""


CAUSES = (
    # What was set
    Cause(
        "unknown flag",
        r"Unknown flags? in (\w+): +(.+?)\s*$",
        r"\1 has \2, which this version doesn't know",
        r"take it out of \1, or: unset \1",
        of="setting",
    ),
    Cause(
        "flag's value",
        r"Couldn't interpret value (.*) for flag (\w+)",
        r"XLA_FLAGS or TF_XLA_FLAGS has \1 for \2, which isn't understood",
        r"take \2 out of it, or: unset XLA_FLAGS TF_XLA_FLAGS",
        of="setting",
    ),
    Cause(
        "file of flags",
        r"Could not open file \"(.*?)\" to read flags for environment variable \"(\w+)\"",
        r"\2 names \1, which is no flag, nor a file that can be read",
        r"unset \2",
        of="setting",
    ),
    Cause(
        "flags",
        r"Flag parsing failed",
        "XLA_FLAGS or TF_XLA_FLAGS has a value that isn't understood",
        "unset XLA_FLAGS TF_XLA_FLAGS",
        of="setting",
    ),
    Cause(
        "setting",
        r"Failed to parse the env-var \$\{(\w+)\} into \w+: (.*?)\.?(?: Use the default.*)?\s*$",
        r"\1=\2 isn't understood",
        r"unset \1",
        of="setting",
    ),
    Cause(
        "thread count",
        r"Check failed: num_threads >= 1 \((.\d+) vs\. 1\)",
        r"TensorFlow is to run \1 threads, and needs one",
        "unset TF_NUM_INTRAOP_THREADS TF_NUM_INTEROP_THREADS",
        of="setting",
    ),
    # The GPU itself
    Cause(
        "ecc",
        r"ECC_UNCORRECTABLE|uncorrectable ECC|double.bit ECC",
        "the GPU's memory had an error that couldn't be corrected",
        "nvidia-smi -q -d ECC,ROW_REMAPPER; then: sudo nvidia-smi -r; if it comes again, have the board replaced",
        of="nvidia",
    ),
    Cause(
        "nvlink",
        r"NVLINK_UNCORRECTABLE|NvlinkUncorrectable|uncorrectable NVLink error",
        "an NVLink between GPUs had an error that couldn't be corrected",
        "nvidia-smi nvlink -e; sudo dmesg | grep -iE 'xid|nvlink'; then: sudo nvidia-smi -r; if it comes again, reseat "
        "the bridge, or have the board replaced",
        of="nvidia",
    ),
    Cause(
        "gpu lost",
        r"GPU is lost|fallen off the bus|Unable to determine the device handle",
        "the driver has lost the GPU",
        "sudo dmesg | grep -i xid; then: sudo reboot; if it comes again, reseat the card",
        of="nvidia",
    ),
    Cause(
        "display",
        r"LAUNCH_TIMEOUT|LaunchTimeout|launch timed out and was terminated",
        "the driver ended a kernel that kept the display waiting for seconds",
        "use a GPU without a display; or without a desktop: sudo systemctl isolate multi-user.target",
        of="nvidia",
    ),
    Cause(
        "gpu error",
        r"NVRM: Xid|CUDA_ERROR_(ILLEGAL_|MISALIGNED_|LAUNCH_FAILED|HARDWARE_|INVALID_PC|INVALID_ADDRESS_SPACE|"
        r"MCA_|CONTAINED)|cudaError(IllegalAddress|HardwareStackError|LaunchFailure|EccUncorrectable)|"
        "(?:CUDNN|CUBLAS)_STATUS_EXECUTION_FAILED|illegal (?:memory access|instruction) was encountered|"
        "unspecified launch failure",
        "the GPU reported an error",
        RESET_GPU,
        of="nvidia",
    ),
    # The driver, and CUDA's libraries
    Cause(
        "uvm",
        r"cuInit.*(?:CUDA_ERROR_UNKNOWN|UNKNOWN ERROR \(999\))|CUDA unknown error",
        "CUDA doesn't start: the kernel module nvidia-uvm is missing, or was lost when the machine was suspended",
        "sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm; in a container: docker run --gpus all …",
        of="nvidia",
    ),
    Cause(
        "mps",
        r"CUDA_ERROR_MPS_|cudaErrorMps|MPS (?:client|server)",
        "CUDA's Multi-Process Service (MPS) doesn't answer, or takes no more processes",
        "nvidia-cuda-mps-control -d; or do without it: echo quit | nvidia-cuda-mps-control; in a container: "
        "docker run --ipc=host …",
        of="nvidia",
    ),
    Cause(
        "driver mismatch",
        r"SYSTEM_DRIVER_MISMATCH|Driver/library version mismatch|does not match DSO version",
        "the driver's libraries and its kernel module differ: it was updated",
        "sudo reboot",
    ),
    Cause(
        "fabric manager",
        r"SYSTEM_NOT_READY|system not yet initialized",
        "NVIDIA's Fabric Manager, which GPUs behind NVSwitch need, isn't running",
        FABRIC_MANAGER,
    ),
    Cause(
        "cuda-compat",
        r"COMPAT_NOT_SUPPORTED|forward compatibility was attempted on non supported HW",
        "cuda-compat's libcuda is loaded, which this GPU can't use",
        "take cuda-compat's folder out of LD_LIBRARY_PATH, or update the driver",
    ),
    Cause(
        "compute mode",
        "DEVICE_UNAVAILABLE|busy or unavailable",
        "another process has the GPU for itself, by its compute mode, or the GPU needs a reset",
        "nvidia-smi; then end the processes that hold the GPU; or let several compute on it: sudo nvidia-smi -c 0",
        of="nvidia",
    ),
    Cause(
        "old driver",
        r"UNSUPPORTED_PTX_VERSION|UnsupportedPtxVersion|unsupported toolchain|driver version is insufficient|"
        r"NVIDIA driver on your system is too old",
        "the driver is older than the CUDA that the kernels were compiled by",
        NEWER_DRIVER,
    ),
    Cause(
        "no kernels",
        r"no kernel image is available|NO_BINARY_FOR_GPU|INVALID_PTX|PTX version [\d.]+ does not support target|"
        r"Value '\w+' is not defined for option 'gpu-name'|(?:CUDNN|CUBLAS)_STATUS_ARCH_MISMATCH",
        "there are no kernels for this GPU: it is newer, or older, than what was built",
        "use a TensorFlow that is built for this GPU, as the finding 'kernels' has it; or a newer JAX or PyTorch",
        of="nvidia",
    ),
    Cause(
        "libdevice",
        "libdevice (?:is required|not found)|Failed to launch ptxas|No ptxas found",
        "XLA doesn't find CUDA's compiler: libdevice, or ptxas",
        f"pip install '{NVCC}'; or where CUDA is: export XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/local/cuda",
    ),
    Cause(
        "cudnn version",
        r"Loaded runtime CuDNN library: ([\d.]*\d).*? but source was compiled with:? ([\d.]*\d)",
        r"cuDNN \1 is loaded, and this version was compiled with \2",
        r"take that file's folder out of LD_LIBRARY_PATH; or: pip install 'nvidia-cudnn-{cu}>=\2'",
    ),
    Cause(  # 9.3 and 9.5 fail with TensorFlow 2.21, 9.24 works: the reports in `endings.toml`
        "convolution kernels",
        r"could not find any supported configs for HLO:?\s*%?\S*conv|"
        r"Failed to determine best cudnn convolution algorithm",
        "cuDNN has no kernel for a convolution as XLA compiles it: it is too old",
        "pip install 'nvidia-cudnn-{cu}>=9.24', and take an older one's folder out of LD_LIBRARY_PATH; or: "
        "export XLA_FLAGS=--xla_gpu_force_conv_nhwc=true",
        of="nvidia",
    ),
    # Memory, and other limits
    Cause("address space", f"{NO_MEMORY}|{NO_THREAD}|failed to mmap|mmap\\w* failed", "{limit}", "{lift}", limits="vd"),
    Cause("threads", NO_THREAD, "{limit}", "{lift}", limits="up"),
    Cause("locked memory", r"ibv_(?:reg_mr|create_\w+)\S* failed|pinned memory", "{limit}", "{lift}", limits="l"),
    Cause("open files", r"Too many open files|EMFILE|ENFILE|(?-i:\[Errno 24\])", "{limit}", "{lift}", limits="n"),
    Cause("file size", r"SIGXFSZ|File too large|File size limit exceeded", "{limit}", "{lift}", limits="f"),
    Cause("processor time", r"SIGXCPU|SIGKILL|CPU time limit exceeded", "{limit}", "{lift}", limits="t"),
    Cause("stack", r"SIGSEGV|Segmentation fault|stack overflow", "perhaps it is this: {limit}", "{lift}", limits="s"),
    Cause(
        "shared memory",
        r"dev/shm|ncclShm|insufficient shared memory|SIGBUS|Bus error",
        "shared memory, /dev/shm, is too small, or a disk is full that a file was mapped from",
        "df -h /dev/shm; in a container: docker run --shm-size=1g …, or an emptyDir with medium: Memory there",
    ),
    Cause(
        "no space",
        r"No space left on device|Disk quota exceeded|couldn't get temp CUBIN file name|sufficient filesystem space",
        "there is no space left for temporary files",
        TEMPORARY,
    ),
    Cause(
        "gpu memory",
        r"out.?of.?memory|resource.?exhausted|\bOOM\b|ALLOC_FAILED|cudaErrorMemoryAllocation|from device: CUDA",
        "the device ran out of memory",
        "nvidia-smi; then end the processes that hold the GPU's memory",
        of="gpu",
    ),
    Cause(
        "memory",
        NO_MEMORY,
        "the device ran out of memory",
        "{free}",
    ),
    Cause(
        "cudnn",
        r"DNN library is not found|DNN library initialization failed|Could not create cudnn handle|"
        r"cuDNN launch failure|Failed to get convolution algorithm|No algorithm(?: \w+ scratch)? worked|"
        r"unable to find an engine to execute this computation|Unable to load any of \{libcudnn|"
        r"Cannot load symbol cudnn|"
        r"CUDNN_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR|\w*MISMATCH|\w*LOADING_FAILED|RUNTIME_PREREQUISITE)",
        "cuDNN doesn't start: another version of it is loaded, or the GPU's memory is full",
        "nvidia-smi, and end what holds its memory; then take other cuDNN's folders out of LD_LIBRARY_PATH, and: "
        "pip install --force-reinstall nvidia-cudnn-{cu}",
        of="nvidia",
    ),
    Cause(
        "cublas",
        r"CUBLAS_STATUS_(?:NOT_INITIALIZED|INTERNAL_ERROR)|failed to create cublas handle",
        "cuBLAS doesn't start: the GPU's memory is full, or another version of it is loaded",
        "nvidia-smi, and end what holds its memory; then take other cuBLAS's folders out of LD_LIBRARY_PATH",
        of="nvidia",
    ),
    Cause(
        "oom killer",
        r"SIGKILL; meanwhile",
        "the kernel killed it for want of memory",
        "{free}",
    ),
    Cause(
        "killed",
        r"SIGKILL|exit status 137",
        "it was killed: perhaps by the kernel for want of memory (OOM killer), or by a batch system's limit",
        "sudo dmesg | grep -i -E 'oom|killed'; {free}",
    ),
    Cause(
        "perhaps address space",
        r"SIGSEGV|SIGABRT|Segmentation fault",
        "perhaps it is this: {limit}",
        "{lift}",
        limits="vd",
    ),
    # The processor
    Cause(
        "instructions",
        r"SIGILL|Illegal instruction|built using AVX|to use (?:AVX|SSE|FMA)\S* instructions, but these aren't",
        "this processor lacks an instruction that the program uses: it was built for another one",
        "grep -o -w avx /proc/cpuinfo # TensorFlow's wheels need a processor, or a virtual one, with AVX",
    ),
    # After what is more particular: JAX has the device's own reason behind these words.
    Cause(
        "platform",
        r"Unknown backend:? '?(\w+)'?|Unable to initialize backend '(\w+)'|no platforms that are instances of (\w+)",
        "JAX is to use a kind of device that it can't",
        "unset JAX_PLATFORMS JAX_PLATFORM_NAME; or install JAX for that device: pip install 'jax[cuda12]'",
        of="setting",
    ),
    Cause(
        HANGS,
        r"no answer within (\S+) s\b",
        r"no answer within \1 s: it hangs, or this machine is slow",
        f"{RUN_ALONE}{{default}}",
        of="check",
    ),
)
