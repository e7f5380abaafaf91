"""What metadata and files say of TensorFlow, CUDA's packages, JAX's parts, and cuDNN's version."""

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from alexnet_repro.verify.doctor import installation
from alexnet_repro.verify.doctor.installation import (
    LIBRARIES,
    CudaPackages,
    Requirement,
    libraries_of,
    read_cuda_packages,
    read_tensorflow,
)
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


def test_this_tensorflow_is_found_without_importing_it():
    """Version, build and requirements are those of pip and of TensorFlow itself."""
    tf = pytest.importorskip("tensorflow")
    found = read_tensorflow()
    assert [each.partition(" ")[2] for each in found.distributions] == [tf.__version__]
    assert found.folder == str(Path(tf.__file__).parent)
    build = tf.sysconfig.get_build_info()
    assert found.cuda_build == build["is_cuda_build"]
    assert ".".join(map(str, found.cuda or ())) == build.get("cuda_version", "")
    assert str(found.cudnn or "") == build.get("cudnn_version", "").partition(".")[0]
    assert list(found.capabilities) == build.get("cuda_compute_capabilities", [])
    installed = {each.name: each.installed for each in found.requirements}
    assert (installed["numpy"], installed["protobuf"]) == (version("numpy"), version("protobuf"))


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param({}, None, id="installed=none"),
        pytest.param(
            distribution("tensorflow-datasets", "4.9", record="tensorflow_datasets/__init__.py,,\n"),
            None,
            id="installed=other",
        ),
        pytest.param(distribution("tensorflow", "2.21.0"), ["tensorflow 2.21.0"], id="installed=one"),
        pytest.param(distribution("tensorflow", "2.21.0", record=None), ["tensorflow 2.21.0"], id="installed=by conda"),
        pytest.param(
            distribution("tensorflow", "2.21.0") | distribution("tensorflow-cpu", "2.20.0"),
            ["tensorflow 2.21.0", "tensorflow-cpu 2.20.0"],
            id="installed=two",
        ),
        pytest.param(
            distribution("tensorflow", "2.21.0") | distribution("tf-nightly", "2.22.0.dev1"),
            ["tensorflow 2.21.0", "tf-nightly 2.22.0.dev1"],
            id="installed=nightly too",
        ),
        *(
            pytest.param(distribution(name, release), [f"{name} {release}"], id=f"installed={name}")
            for name, release in (
                ("tensorflow-cpu", "2.18.1"),
                ("tensorflow-rocm", "2.18.1"),
                ("tensorflow-macos", "2.16.2"),
                ("intel-extension-for-tensorflow-lib", "2.15.0"),
                ("tensorflow", "2.17.0+nv24.8"),
                ("acme-tensorflow", "2.21.0"),
            )
        ),
        pytest.param(
            distribution("tensorflow", "2.17.0", record="tensorflow-2.17.0.dist-info/METADATA,,\n")
            | distribution("tensorflow-intel", "2.17.0"),
            ["tensorflow-intel 2.17.0"],
            id="installed=a package that only requires it",
        ),
        pytest.param(
            distribution("acme-tf", "2.21.0", record=None) | {"acme_tf-2.21.0.dist-info/top_level.txt": "tensorflow\n"},
            ["acme-tf 2.21.0"],
            id="installed=with its top level alone",
        ),
        pytest.param({"tensorflow/__init__.py": ""}, ["tensorflow of an unknown version"], id="installed=no metadata"),
        pytest.param({"tensorflow/python/x": ""}, None, id="installed=rest of a folder"),
        pytest.param(
            {"tensorflow/__init__.py": "", "~ensorflow-2.20.0.dist-info/METADATA": "Name: tensorflow\nVersion: 2.20\n"},
            ["tensorflow of an unknown version"],
            id="installed=leftover alone",
        ),
        pytest.param(
            distribution("tensorflow", "2.21.0")
            | {"~ensorflow-2.20.0.dist-info/METADATA": "Name: tensorflow\nVersion: 2.20.0\n",
               "~ensorflow-2.20.0.dist-info/RECORD": "tensorflow/__init__.py,,\n"},
            ["tensorflow 2.21.0"],
            id="installed=with a leftover",
        ),
        pytest.param(
            distribution("tensorflow", "2.21.0") | {"foo-1.dist-info/METADATA": b"\xff", "bar.egg-info": ""},
            ["tensorflow 2.21.0"],
            id="installed=beside broken metadata",
        ),
    ],
)  # fmt: skip
def test_distributions_are_identified_by_their_files(tmp_path, files, found):
    """Each package that brought the folder `tensorflow` counts, under any name; add-ons don't."""
    here = read_tensorflow([str(write(tmp_path, files))])
    assert (here and sorted(here.distributions)) == found


def test_shadowed_tensorflow_is_no_mixture(tmp_path):
    """Of two in different folders, the first on the path is it."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder, release in zip(folders, ("2.21.0", "2.20.0"), strict=True):
        write(folder, distribution("tensorflow", release))
    assert read_tensorflow([str(folder) for folder in folders]).distributions == ("tensorflow 2.21.0",)


def test_requirements_are_compared_with_what_is_installed(tmp_path):
    """In range, out of range, missing; others' platforms and extras don't count, but name CUDA's wheels."""
    wanted = (
        "numpy<2.0.0,>=1.23.5",
        "protobuf>=3.20",
        "absent>1",
        'wheel; sys_platform == "no-such"',
        'nvidia-cudnn-cu12<10.0,>=9.3; extra == "and-cuda"',
    )
    files = distribution("tensorflow", "2.16.1", *wanted)
    files |= distribution("numpy", "2.1.2", record="") | distribution("protobuf", "4.25.3", record="")
    here = read_tensorflow([str(write(tmp_path, files))])
    assert here.requirements == (
        Requirement("numpy", "<2.0.0,>=1.23.5", "2.1.2", met=False),
        Requirement("protobuf", ">=3.20", "4.25.3", met=True),
        Requirement("absent", ">1", None, met=False),
        Requirement("h5py", "", None, met=False),  # which this suite needs, whatever TensorFlow does
        Requirement("keras", "", None, met=False),
    )
    assert here.wheels == {"nvidia-cudnn-cu12": "nvidia-cudnn-cu12<10.0,>=9.3"}
    assert (here.cuda_build, here.cuda, here.capabilities) == (None, None, ())  # no build_info here


@pytest.mark.parametrize(
    ("requires", "files", "found"),
    [
        ("keras>=3.5", distribution("keras-nightly", "3.9.dev1", record="keras/__init__.py,,\n"), ("3.9.dev1", True)),
        ("keras>=3.5", {}, ("of an unknown version", True)),
        ("numpy>=1.26", distribution("numpy", "2.1-system-3", record=None), ("2.1-system-3", True)),
        ("numpy>=1.26", distribution("numpy", "1.25.4", record=None), ("1.25.4", False)),
        ("numpy>=1.26; nonsense == '1'", {}, None),
        ("%%%", {}, None),
        ("numpy>=1.26; python_version > 'a'", {}, None),
        ("tensorboard~=2.21.0", {}, (None, False)),
    ],
)
def test_requirement_that_is_met_or_not(tmp_path, requires, files, found):
    """By a package of its name or of its module's; what can't be read or compared is no fault."""
    files = files | distribution("tensorflow", "2.21.0", requires) | {"keras/__init__.py": ""}
    got = {each.name: each for each in read_tensorflow([str(write(tmp_path, files))]).requirements if each.wanted}
    assert [(each.installed, each.met) for each in got.values()] == ([] if found is None else [found])


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("build_info = {'is_cuda_build': True, 'cuda_version': '12.5.1'}", (True, (12, 5, 1), ())),
        ("build_info = {'is_cuda_build': False, 'is_rocm_build': True}", (False, None, ())),
        ("build_info = {'is_cuda_build': True, 'cuda_compute_capabilities': None}", (True, None, ())),
        ("build_info = {'is_cuda_build': True, 'cuda_version': '12.x.'}", (True, (12,), ())),
        ("build_info = 7", (None, None, ())),
        ("raise RuntimeError('a vendor')", (None, None, ())),
        ("import absent", (None, None, ())),
        ("\0", (None, None, ())),
    ],
)
def test_build_is_read_or_unknown(tmp_path, text, known):
    """What a vendor's file doesn't say, or says in a way of its own, isn't known."""
    files = distribution("tensorflow", "2.21.0") | {"tensorflow/python/platform/build_info.py": text}
    here = read_tensorflow([str(write(tmp_path, files))])
    assert (here.cuda_build, here.cuda, here.capabilities) == known
