"""The CUDA libraries that TensorFlow loads, each tried by itself: TensorFlow doesn't name the missing one."""

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alexnet_repro.verify.subprocesses import each

DRIVER = "the NVIDIA driver"

# By CUDA's major version: the libraries that TensorFlow opens (its *_stub.cc), those that they open
# themselves, and the wheel of each.
LIBRARIES = {
    12: {
        "libcuda.so.1": DRIVER,
        "libcudart.so.12": "nvidia-cuda-runtime-cu12",
        "libcublas.so.12": "nvidia-cublas-cu12",
        "libcublasLt.so.12": "nvidia-cublas-cu12",
        "libcufft.so.11": "nvidia-cufft-cu12",
        "libnvJitLink.so.12": "nvidia-nvjitlink-cu12",
        "libcusparse.so.12": "nvidia-cusparse-cu12",
        "libcusolver.so.11": "nvidia-cusolver-cu12",
        "libnvrtc.so.12": "nvidia-cuda-nvrtc-cu12",
        "libcudnn.so.9": "nvidia-cudnn-cu12",
        "libcudnn_graph.so.9": "nvidia-cudnn-cu12",
        "libcudnn_ops.so.9": "nvidia-cudnn-cu12",
        "libcudnn_cnn.so.9": "nvidia-cudnn-cu12",
        "libnccl.so.2": "nvidia-nccl-cu12",
        "libcupti.so.12": "nvidia-cuda-cupti-cu12",
    }
}


@dataclass(frozen=True)
class Library:
    """A library, its wheel, the path that was opened, and the error."""

    name: str
    wheel: str
    path: str = ""
    error: str | None = None


def read_libraries(tensorflow_folder: str, cuda_major: int, deadline: float) -> Iterator[Library]:
    """Load each library as TensorFlow does, in a child process."""
    wheels = LIBRARIES.get(cuda_major, {})
    paths = {name: str(find(name, wheel, Path(tensorflow_folder))) for name, wheel in wheels.items()}
    for path, answer in each(__name__, [], list(paths.values()), deadline):
        name = next(name for name, its_path in paths.items() if its_path == path)
        yield Library(name, wheels[name], path, answer.get("error"))


def find(name: str, wheel: str, tensorflow_folder: Path, search: str | None = None) -> Path:
    """Return the file that TensorFlow would open; the bare name where the system's linker decides.

    First `LD_LIBRARY_PATH`, then the wheels beside TensorFlow (its RUNPATH), as ld.so(8) does.
    """
    search = os.environ.get("LD_LIBRARY_PATH", "") if search is None else search
    folders = [Path(folder) for folder in search.split(os.pathsep) if folder]
    part = wheel.removeprefix("nvidia-").rpartition("-")[0].replace("-", "_")
    folders.append(tensorflow_folder.parent / "nvidia" / part / "lib")
    return next((folder / name for folder in folders if (folder / name).is_file()), Path(name))


def main(paths: list[str]) -> None:
    """Run in the child: load each library and print its error."""
    for path in paths:
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            error = None
        except OSError as failed:
            error = str(failed)
        print(json.dumps({"error": error}))


if __name__ == "__main__":
    main(sys.argv[1:])
