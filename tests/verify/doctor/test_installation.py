"""What metadata and libraries say of CUDA: packages that overwrote each other's files, JAX's parts, cuDNN's version."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.doctor import installation
from alexnet_repro.verify.doctor.installation import LIBRARIES, CudaPackages, libraries_of, read_cuda_packages
from tests.helpers.machines import TENSORFLOW, distribution, write

CUDNN = "cudnn/lib/libcudnn.so.9"


def installed(root, **records):
    """Write packages of version 9.1 with these lists of files, by name with underscores; return their folder."""
    for name, record in records.items():
        write(root, distribution(name.replace("_", "-"), "9.1", record=record))
    return [str(root)]


def nvidia(package, *files):
    """Return a package's list of files, by its name."""
    return {f"nvidia_{package}": "".join(f"nvidia/{file},,\n" for file in files)}


@pytest.mark.parametrize(
    ("records", "overwritten"),
    [
        pytest.param(nvidia("cudnn_cu12", CUDNN), (), id="case=one"),
        pytest.param(
            nvidia("cudnn_cu12", CUDNN) | nvidia("cudnn_cu13", CUDNN),
            (("nvidia-cudnn-cu12 9.1", "nvidia-cudnn-cu13 9.1"),),
            id="case=cuDNN",
        ),
        pytest.param(
            nvidia("nccl_cu11", "nccl/lib/libnccl.so.2") | nvidia("nccl_cu12", "nccl/lib/libnccl.so.2"),
            (("nvidia-nccl-cu11 9.1", "nvidia-nccl-cu12 9.1"),),
            id="case=NCCL",
        ),
        pytest.param(
            nvidia("cublas_cu12", "cublas/lib/libcublas.so.12") | nvidia("cublas", "cu13/lib/libcublas.so.13"),
            (),
            id="case=apart",
        ),
        pytest.param(
            nvidia("cudnn", CUDNN) | nvidia("cudnn_cu12", CUDNN),
            (("nvidia-cudnn 9.1", "nvidia-cudnn-cu12 9.1"),),
            id="case=any name",
        ),
        pytest.param(nvidia("nvtx_cu11", "__init__.py") | nvidia("nvtx_cu12", "__init__.py"), (), id="case=no library"),
        pytest.param(
            nvidia("cusolver_cu11", "a/libcusolver.so.10") | nvidia("cusolver_cu12", "a/libcusolver.so.11"),
            (),
            id="case=side by side",
        ),
    ],
)
def test_packages_of_two_cudas(tmp_path, records, overwritten):
    """Packages of NVIDIA's that have installed one and the same library are named, whatever they are called."""
    found = read_cuda_packages(installed(tmp_path, **records))
    assert found.overwritten == overwritten


def test_two_folders_overwrite_nothing(tmp_path):
    """What lies in another folder has its own files."""
    packages = {"a": nvidia("cudnn_cu12", CUDNN), "b": nvidia("cudnn_cu13", CUDNN)}
    folders = [folder for name, records in packages.items() for folder in installed(tmp_path / name, **records)]
    assert read_cuda_packages(folders) == CudaPackages()


def test_parts_of_jax(tmp_path):
    """JAX's library and its plugins for CUDA are found by name, with their versions; other packages of its aren't."""
    folders = installed(tmp_path, jaxlib="", jax_cuda12_plugin="", jax_cuda13_pjrt="", jax="")
    assert read_cuda_packages(folders).jax == {"jaxlib": "9.1", "jax-cuda12-plugin": "9.1"}


@pytest.mark.parametrize(
    ("number", "version"), [(90_300, "9.3.0"), (90_501, "9.5.1"), (92_400, "9.24.0"), (8_907, "8.9.7"), (None, "")]
)
def test_cudnn_says_its_version(monkeypatch, number, version):
    """The library that has it gives it; another, which would have to load that one first, isn't called."""
    called = []

    def load(path, **_mode):
        def get():
            called.append(path)
            return number

        return SimpleNamespace(cudnnGetVersion=get) if number else SimpleNamespace()

    monkeypatch.setattr(installation.ctypes, "CDLL", load)
    paths = ("/a/libcudnn.so.9", "/a/libcudnn_graph.so.9", "/a/libnccl.so.2")
    found = dict(installation.main(*paths))
    assert [found[path]["version"] for path in paths] == ["", version, ""]
    assert called == ([paths[1]] if number else [])


def test_cudnn_is_of_the_version_that_tensorflow_opens():
    """TensorFlow 2.17 opens cuDNN 8, whose parts have other names, and later ones cuDNN 9; what isn't known is 9."""
    of = {
        cudnn: [each for each in libraries_of(replace(TENSORFLOW, cudnn=cudnn)) if "cudnn" in each] for cudnn in (8, 9)
    }
    assert of[9] == ["libcudnn.so.9", "libcudnn_graph.so.9", "libcudnn_ops.so.9", "libcudnn_cnn.so.9"]
    assert of[8] == [
        *("libcudnn.so.8", "libcudnn_ops_infer.so.8", "libcudnn_cnn_infer.so.8", "libcudnn_ops_train.so.8"),
        "libcudnn_cnn_train.so.8",
    ]
    assert libraries_of(TENSORFLOW) == LIBRARIES[12]
    assert libraries_of(replace(TENSORFLOW, cuda=(14, 0), cudnn=8)) == {}
