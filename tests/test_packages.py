"""The installed packages, on machines where metadata is broken, left over, or of another name than the module."""

import base64
import hashlib
import sys
from types import SimpleNamespace

import pytest

from alexnet_repro.packages import find_package, installed_packages, package_version
from tests.helpers.machines import distribution, write

HASH = base64.urlsafe_b64encode(hashlib.sha256(b"2.4.6").digest()).decode().rstrip("=")
BROKEN = {
    "no metadata": {"foo-1.2.dist-info/INSTALLER": "pip"},
    "no name": {"foo-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nVersion: 1.2\n"},
    "no version": {"foo-1.2.dist-info/METADATA": "Name: foo\n"},
    "empty": {"foo-1.2.dist-info/METADATA": ""},
    "not UTF-8": {"foo-1.2.dist-info/METADATA": b"Name: foo\xff\xfe\nVersion: 1.2\n"},
    "NUL bytes": {"foo-1.2.dist-info/METADATA": b"\0" * 100},
    "a folder for the file": {"foo-1.2.dist-info/METADATA/x": ""},
    "a file for the folder": {"foo-1.2.dist-info": "text"},
    "empty egg": {"foo.egg-info": ""},
    "egg without PKG-INFO": {"foo.egg-info/requires.txt": "x"},
    "egg that isn't UTF-8": {"foo-1.2.egg-info": b"\xff\xfe"},
}


@pytest.mark.parametrize("files", [pytest.param(files, id=f"metadata={name}") for name, files in BROKEN.items()])
def test_broken_metadata_is_passed_over(tmp_path, files):
    """It is of no package, and keeps none from being found."""
    path = [str(write(tmp_path, files | distribution("numpy", "2.4.6")))]
    found, leftovers = installed_packages(path)
    assert (list(map(str, found)), leftovers) == (["numpy 2.4.6"], [])
    assert find_package("foo", path) is None


def test_metadata_that_may_not_be_read_is_passed_over(tmp_path, monkeypatch):
    """A system's error is no error of ours: neither a loop of links, nor a file that isn't this user's."""
    (tmp_path / "foo-1.2.dist-info").symlink_to("foo-1.2.dist-info")
    write(tmp_path, distribution("numpy", "2.4.6"))
    read = sys.modules["importlib.metadata"].PathDistribution.read_text

    def refuse(self, name):
        if name == "RECORD":
            raise OSError(5, "Input/output error")
        return read(self, name)

    monkeypatch.setattr("importlib.metadata.PathDistribution.read_text", refuse)
    assert list(map(str, installed_packages([str(tmp_path)])[0])) == ["numpy 2.4.6"]
    assert find_package("numpy", [str(tmp_path)]).brings("numpy")


@pytest.mark.parametrize(
    ("folder", "left"),
    [
        ("~umpy-1.25.4.dist-info", ["~umpy-1.25.4.dist-info"]),
        ("-umpy-1.25.4.dist-info", ["-umpy-1.25.4.dist-info"]),
        ("~-mpy-1.25.4.dist-info", ["~-mpy-1.25.4.dist-info"]),
        ("~umpy-1.25.4.egg-info", ["~umpy-1.25.4.egg-info"]),
        ("numpy-1.25.4.dist-info", ["numpy-1.25.4.dist-info"]),
        ("numpy-2.5.0.dist-info", ["numpy-2.5.0.dist-info"]),
        ("NumPy-2.4.6.dist-info", []),
    ],
)
def test_what_is_imported_counts(tmp_path, folder, left):
    """Beside it, metadata that pip left, and such whose files aren't those that are there, is left over."""
    good = distribution("numpy", "2.4.6", record=f"numpy/__init__.py,sha256={HASH},5\n")
    version = folder.rpartition(".")[0].partition("-")[2].rpartition("-")[2]
    kind = "METADATA" if folder.endswith("dist-info") else "PKG-INFO"
    stale = {
        f"{folder}/{kind}": f"Name: numpy\nVersion: {version}\n",
        f"{folder}/RECORD": "numpy/__init__.py,sha256=AAAA,5\n",
    }
    path = [str(write(tmp_path, good | stale | {"numpy/__init__.py": "2.4.6"}))]
    found, leftovers = installed_packages(path)
    assert list(map(str, found)) == ["numpy 2.4.6"]
    assert str(find_package("numpy", path)) == "numpy 2.4.6"
    assert [each.name for each in leftovers] == left


@pytest.mark.parametrize(
    ("records", "found", "left"),
    [
        (("", ""), "numpy 2.4.6", []),
        (("numpy/__init__.py,sha256=AAAA,5\n",) * 2, "numpy 2.4.6", []),
        (("numpy-1.25.4.dist-info/RECORD,,\n",) * 2, "numpy 1.25.4", ["numpy-2.4.6.dist-info"]),
    ],
    ids=["records=none", "records=of neither", "records=a copy's"],
)
def test_twins_that_cant_be_told_apart(tmp_path, records, found, left):
    """Nobody is advised to remove what may be the good one; a copy's list names the folder that it was copied from."""
    old, new = (
        distribution("numpy", version, record=text) for version, text in zip(("1.25.4", "2.4.6"), records, strict=True)
    )
    packages, leftovers = installed_packages([str(write(tmp_path, old | new))])
    assert list(map(str, packages)) == [found]
    assert [each.name for each in leftovers] == left


def test_leftover_alone_is_no_package(tmp_path):
    """What pip couldn't remove is removed."""
    path = [str(write(tmp_path, {"~umpy-1.25.4.dist-info/METADATA": "Name: numpy\nVersion: 1.25.4\n"}))]
    assert (installed_packages(path)[0], find_package("numpy", path)) == ([], None)


def test_metadata_without_files_is_left_over(tmp_path):
    """Where none of a package's files is there it shadows none further on; a list of no files says nothing."""
    record = "numpy/__init__.py,sha256=AAAA,5\nnumpy-1.25.4.dist-info/METADATA,,\n../../bin/f2py,,\n"
    stale = distribution("numpy", "1.25.4", record=record)
    del stale["numpy/__init__.py"]
    write(tmp_path / "user", stale | distribution("types-x", "1.0", record="types_x-1.0.dist-info/METADATA,,\n"))
    write(tmp_path / "site", distribution("numpy", "2.4.6"))
    found, leftovers = installed_packages([str(tmp_path / "user"), str(tmp_path / "site")])
    assert sorted(map(str, found)) == ["numpy 2.4.6", "types-x 1.0"]
    assert leftovers == [tmp_path / "user/numpy-1.25.4.dist-info"]


def test_first_on_the_path_counts(tmp_path):
    """Another version further on is shadowed, and nobody's leftover."""
    write(tmp_path / "first", distribution("numpy", "2.4.6"))
    write(tmp_path / "second", distribution("numpy", "2.5.0"))
    found, leftovers = installed_packages([str(tmp_path / "first"), str(tmp_path / "second")])
    assert (list(map(str, found)), leftovers) == (["numpy 2.4.6"], [])


@pytest.mark.parametrize(
    ("files", "version"),
    [
        pytest.param(distribution("keras", "3.15.1"), "3.15.1", id="installed=by its name"),
        pytest.param(
            distribution("keras-nightly", "3.16.0.dev1", record="keras/__init__.py,,\n"),
            "3.16.0.dev1 (keras-nightly)",
            id="installed=by another name",
        ),
        pytest.param(
            distribution("keras_vendor", "3.15.1", record=None)
            | {"keras_vendor-3.15.1.dist-info/top_level.txt": "keras\n"},
            "3.15.1 (keras-vendor)",
            id="installed=by another name-record=none",
        ),
        pytest.param({}, "of an unknown version", id="installed=without metadata"),
        pytest.param(
            distribution("keras-tuner", "1.4", record="keras_tuner/__init__.py,,\n"),
            "of an unknown version",
            id="installed=an add-on's metadata",
        ),
    ],
)
def test_package_is_known_by_its_module(tmp_path, monkeypatch, files, version):
    """By whatever name a module was installed, it is found, and that name is shown."""
    monkeypatch.setattr(sys, "path", [str(write(tmp_path, files | {"keras/__init__.py": ""}))])
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    assert package_version("keras") == version
    assert package_version("absent") is None


@pytest.mark.parametrize(
    ("imported", "version"),
    [
        ("2.4.6", "2.4.6+vendor"),
        ("2.3.0", "2.3.0"),
        ("2.4.6-dev0", "2.4.6-dev0"),
        (None, "2.4.6+vendor"),
        ("of the day", "of the day"),
    ],
)
def test_imported_version_is_right(tmp_path, monkeypatch, imported, version):
    """A module that is imported knows its version; a vendor's label is in the metadata alone."""
    monkeypatch.setattr(sys, "path", [str(write(tmp_path, distribution("numpy", "2.4.6+vendor")))])
    monkeypatch.setitem(sys.modules, "numpy", SimpleNamespace(**({"__version__": imported} if imported else {})))
    assert package_version("numpy") == version
