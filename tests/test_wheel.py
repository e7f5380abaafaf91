"""The wheel alone: what is in it, and that it verifies a machine from an empty folder, where nothing can be written."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.slow
# Root may write everywhere, unless it has no capabilities.
POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, as hatchling builds it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target=wheel", f"--directory={folder}"]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel, and beside it this one's packages; nothing of it can be written."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "this.pth").write_text(sysconfig.get_path("purelib"))
    subprocess.run(["chmod", "-R", "a-w", folder], check=True)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)


@pytest.fixture
def verify(environment, tmp_path):
    """Verify in a folder, by default an empty one, that can't be written; the home isn't there, nor a checkout."""
    if POWERLESS and shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and setpriv isn't here to change that")
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}

    def run(*options, folder=None, start=("bin/alexnet-repro",), **environ):
        if folder is None:
            folder = tmp_path / "empty"
            folder.mkdir(exist_ok=True)
        folder.chmod(0o555)
        program, *words = start
        command = [*POWERLESS, environment / program, *words, "verify", *options]
        variables = {**kept, "HOME": "/dev/null/home", **environ}
        done = subprocess.run(command, check=False, cwd=folder, env=variables, capture_output=True, text=True)
        folder.chmod(0o755)
        return done

    return run


def test_what_the_wheel_has(wheel):
    """Nothing of ours is at its top but the package; within are all tests, and neither scripts nor records."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"alexnet_repro"}
    own = {name.removeprefix("alexnet_repro/suite/") for name in names if name.startswith("alexnet_repro/suite/")}
    tests = {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.py")}
    assert {name for name in own if name.endswith(".py")} == {*tests, "conftest.py"}
    assert {"pyproject.toml", "benchmarks/references/digests.json", "benchmarks/references/tolerances.toml"} <= own
    assert [
        name for name in own if name.startswith(("benchmarks/peers", "benchmarks/records", "benchmarks/tools"))
    ] == []


def test_editable_installation_has_no_copy_of_the_suite(tmp_path):
    """There the checkout's own is found."""
    code = f"import hatchling.build; print(hatchling.build.build_editable({str(tmp_path)!r}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True)
    files = zipfile.ZipFile(tmp_path / done.stdout.strip())
    assert [name for name in files.namelist() if name.endswith(".py") and "conftest" not in name] == []
    (pth,) = (name for name in files.namelist() if name.endswith(".pth"))
    assert files.read(pth).decode().strip() == str(ROOT)


def test_the_wheel_alone_verifies(verify, tmp_path):
    """At the quick level, from an empty folder: the plan is answered in whole, and nothing is written elsewhere."""
    report = tmp_path / "report"
    report.mkdir()
    done = verify("--level=quick", f"--report={report}", "--device=cpu:0", "--benchmark-max-time=0.1")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((report / "results.json").read_text())
    command = results["run"]["command"]
    assert command.startswith("python -m alexnet_repro verify --level=quick --report=")
    assert results["complete"]
    assert {each["state"] for each in results["plan"]} == {"answered"}
    # Whether it is fast enough depends on what else runs here.
    right = [each["status"] for group in ("correct", "repeatable") for each in results["findings"][group]]
    assert right == ["PASS"] * 4
    assert sorted(path.name for path in report.iterdir() if path.suffix != ".svg") == [
        "junit.xml",
        "report.html",
        "results.json",
        "summary.md",
    ]
    assert "pytest benchmarks" not in done.stdout + (report / "report.html").read_text()


def test_folder_that_cant_be_written(verify):
    """Without `--report` one line says so, and what to type; the exit status is that of a usage error."""
    done = verify("--level=quick", "--device=cpu:0")
    assert done.returncode == 4
    assert done.stderr.rstrip().endswith("can't be written: Permission denied; name another folder: --report=DIR")


HOSTILE = {
    "conftest.py": "raise SystemExit('conftest.py of the working folder')",
    "pytest.ini": "[pytest]\naddopts = -k nothing\n",
    "benchmarks/__init__.py": "raise SystemExit('benchmarks of the working folder')",
    "benchmarks/conftest.py": "raise SystemExit('benchmarks/conftest.py of the working folder')",
    "alexnet_repro/conftest.py": "raise SystemExit('alexnet_repro/conftest.py of the working folder')",
    "numpy.py": "raise SystemExit('numpy.py of the working folder')",
    "out/conftest.py": "raise SystemExit('conftest.py of the folder of results')",
}


@pytest.mark.parametrize(
    "start", [("bin/alexnet-repro",), ("bin/python", "-m", "alexnet_repro")], ids=["start=script", "start=module"]
)
def test_nothing_of_the_working_folder_is_read(verify, tmp_path, start):
    """Whatever lies there, and whatever PYTEST_ADDOPTS says, the plan is the same."""
    folder = tmp_path / "hostile"
    package = {"alexnet_repro/__init__.py": "raise SystemExit('alexnet_repro of the working folder')"}
    # With -m it is Python that runs the working folder's.
    for name, text in (HOSTILE | (package if start == ("bin/alexnet-repro",) else {})).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    done = verify("--collect-only", "-q", "--report", "out", folder=folder, start=start, PYTEST_ADDOPTS="-k none")
    assert done.returncode == 0, done.stdout + done.stderr
    listed = [line for line in done.stdout.splitlines() if "::" in line]
    assert "benchmarks/test_repeatable.py::test_replay[device=cpu:0-check=replay-precision=float32]" in listed
    assert len(listed) > 40
    assert "PYTEST_ADDOPTS is left out" in done.stderr


def test_no_reference_is_lost_with_the_package(verify):
    """New ones need a folder that the site keeps."""
    done = verify("--update-reference", "--benchmark-only")
    assert done.returncode == 4
    assert "name a folder by --references=DIR or ALEXNET_REPRO_REFERENCES" in done.stderr


def test_commands_of_the_script(environment, tmp_path):
    """The console script has all commands, and ends as `python -m alexnet_repro` does."""
    done = subprocess.run(
        [environment / "bin/alexnet-repro", "shapes", "--batch=0"],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("python -m alexnet_repro shapes: argument --batch: expected a whole number")


def test_suite_folder_of_this_checkout():
    """Here the suite is the checkout's own."""
    from alexnet_repro.layout import suite_folder

    assert suite_folder() == Path(ROOT)
