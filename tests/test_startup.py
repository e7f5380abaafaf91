"""The start of a program: one line for whatever an import raises, and streams, variables and warnings set right."""

import importlib
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest

import alexnet_repro
from alexnet_repro.startup import configured_backend, explained, reported, unusable_backend

NO_GENCODE = """\
class VersionError(Exception): ...
def check(): raise VersionError("Detected incompatible Protobuf Gencode/Runtime versions: gencode 6.31.1")
"""
NUMPY = """\
try:
    raise ImportError("libscipy_openblas64_.so: cannot open shared object file")
except ImportError as error:
    raise ImportError("\\n\\nIMPORTANT: PLEASE READ THIS\\n\\nImporting the numpy C-extensions failed.") from error
"""
TENSORFLOW = """\
try:
    raise ImportError("libtensorflow_cc.so.2: failed to map segment from shared object")
except ImportError:
    raise ImportError("Traceback (most recent call last):\\n...\\nFailed to load the native TensorFlow runtime.")
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs modules, by path, in a folder that comes first; those of their names are gone."""
    before = dict(sys.modules)

    def write(files, folder="site-packages"):
        for name, code in files.items():
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code)
            module = name.partition("/")[0].removesuffix(".py")
            for loaded in [each for each in sys.modules if each.partition(".")[0] == module]:
                del sys.modules[loaded]
        monkeypatch.syspath_prepend(tmp_path / folder)
        return tmp_path / folder

    yield write
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


def raised(module):
    """Return what importing a module raises."""
    try:
        importlib.import_module(module)
    except BaseException as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError(f"{module} was imported")


@pytest.mark.parametrize(
    ("module", "code", "message", "fix"),
    [
        # github.com/h5py/h5py/issues/2420
        (
            "h5py",
            "raise ValueError('numpy.dtype size changed, may indicate binary incompatibility')",
            "ValueError: numpy.dtype size changed, may indicate binary incompatibility",
            "pip install --force-reinstall --no-deps 'h5py* 'numpy*",
        ),
        # github.com/nv-tlabs/vipe/issues/42
        ("h5py", "raise AttributeError('_ARRAY_API not found')", "AttributeError: _ARRAY_API not found", "*'h5py*"),
        ("matplotlib", "def f(:", "SyntaxError: invalid syntax (__init__.py, line 1)", "*'matplotlib*"),
        ("scipy", "raise SystemExit(0)", "SystemExit: 0", "*'scipy*"),
        ("scipy", "raise RuntimeError", "RuntimeError", "*'scipy*"),
        ("numpy", NUMPY, "libscipy_openblas64_.so: cannot open shared object file", "*'numpy*"),
        ("tensorflow", "raise AttributeError('no _x')", "AttributeError: no _x", "*'tensorflow*"),
        ("tensorflow", TENSORFLOW, "libtensorflow_cc.so.2: failed to map segment from shared object", "*'tensorflow*"),
        (
            "matplotlib",
            "raise OSError(28, 'No space left on device', '/x/y')",
            "OSError: [Errno 28] No space left on device: '/x/y'",
            "see to /x/y, its folder and its disk",
        ),
    ],
    ids=lambda text: f"given={' '.join(text.split())[:30]}",
)
def test_whatever_an_import_raises(install, module, code, message, fix):
    """The package is named with what it raised, and the fix installs that package and no other."""
    install({f"{module}/__init__.py": code})
    found = explained(raised(module))
    assert found is not None
    assert found[0] == f"{module} can't be imported: {message}"
    begin, *rest = fix.split("*")
    assert found[1].startswith(begin)
    assert [part for part in rest if part not in found[1]] == []
    assert ("tensorflow" in found[1]) == (module == "tensorflow")
    assert "\n" not in "".join(found)


def test_innermost_package_is_to_blame(install):
    """A package that refuses another one's files is named, not the one that holds them."""
    files = {"google/__init__.py": "", "google/protobuf.py": NO_GENCODE}
    install({**files, "tensorflow/__init__.py": "from google import protobuf\nprotobuf.check()"})
    message, fix = explained(raised("tensorflow"))
    assert message.startswith("protobuf can't be imported: VersionError: Detected incompatible Protobuf")
    assert "'protobuf" in fix


@pytest.mark.parametrize(
    ("package", "module", "name"),
    [
        ("protobuf", "google.protobuf", "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"),
        ("tqdm", "tqdm.std", "TQDM_MININTERVAL"),
    ],
    ids=["package=protobuf", "package=tqdm"],
)
def test_variables_of_a_package(install, monkeypatch, package, module, name):
    """A package that names its own variable, or that variable's value, needs another value and no installation."""
    monkeypatch.setenv(name, "foo")
    folder, _, file = module.partition(".")
    install({f"{folder}/__init__.py": "", f"{folder}/{file}.py": "raise ValueError('foo is not supported')"})
    message, fix = explained(raised(module))
    assert message == f"{package} can't be imported: ValueError: foo is not supported"
    assert fix == f"unset {name}, which is foo"


def test_missing_package(install):
    """A package that isn't installed is to be installed."""
    install({"h5py/__init__.py": "import not_installed.at_all"})
    expected = ("not_installed can't be imported: No module named 'not_installed'", "pip install 'not_installed'")
    assert explained(raised("h5py")) == expected


@pytest.mark.parametrize(("module", "whose"), [("colorsys", "Python's own"), ("h5py", "the installed one")])
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
@pytest.mark.parametrize("code", ["raise RuntimeError", "1 / 0", "import no_such_module", "def f(:", ""])
def test_shadow_is_named(install, module, whose, form, code):
    """A file that is imported for Python's own or an installed module is named, however that comes out."""
    there = install({form.format(module): code}, "work") / form.format(module).removesuffix("/__init__.py")
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        importlib.import_module(module).anything()
    assert explained(caught.value) == (f"{module} is imported from {there}, not from {whose}", "rename it")


def test_packages_elsewhere_are_no_shadow(install):
    """What was installed into a folder of its own, as by pip's --target, is an installed package."""
    install({"h5py/__init__.py": "raise RuntimeError('broken')", "h5py-3.11.0.dist-info/METADATA": ""}, "libs")
    found = explained(raised("h5py"))
    assert found is not None
    assert found[0] == "h5py can't be imported: RuntimeError: broken"


def own_error():
    """Fail as our own code may."""
    return {}["key"]


@pytest.mark.parametrize(
    "call",
    [own_error, lambda: int("x"), lambda: "".nothing, lambda: (_ for _ in ()).throw(KeyboardInterrupt)],
    ids=["error=key", "error=value", "error=attribute", "error=interrupt"],
)
def test_other_errors_are_no_imports(call):
    """What isn't raised by an import isn't explained."""
    with pytest.raises((Exception, KeyboardInterrupt)) as caught:
        call()
    assert explained(caught.value) is None


@pytest.mark.parametrize(
    ("file", "variables", "raises", "fix"),
    [
        ('{"epsilon": 1, "floatx": "float32"}', {}, "AssertionError", 'correct or remove {}, which has "epsilon": 1'),
        ('{"floatx": "bf16"}', {}, "ValueError('bf16')", 'correct or remove {}, which has "floatx": "bf16"'),
        ("[]", {}, "AttributeError", "correct or remove {}, which has []"),
        (None, {"KERAS_MAX_EPOCHS": "abc"}, "ValueError(\"'abc'\")", "unset KERAS_MAX_EPOCHS, which is abc"),
        ("[" * 100_000, {}, "RecursionError", "correct or remove {}"),
        ('{"backend": "tensorflow"}', {"KERAS_NNX_ENABLED": "1"}, "ImportError", "unset KERAS_NNX_ENABLED, which is 1"),
    ],
    ids=["set=epsilon", "set=floatx", "set=list", "set=epochs", "set=nested", "set=nnx"],
)
def test_keras_configuration(install, tmp_path, monkeypatch, file, variables, raises, fix):  # noqa: PLR0917
    """Where Keras's settings end its import, the variable or the file is named with its value."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if file is not None:
        (tmp_path / "keras.json").write_text(file)
    install({"keras/__init__.py": "import keras.config", "keras/config.py": f"raise {raises}"})
    found = explained(raised("keras"))
    assert found is not None
    assert found[0].startswith("keras can't be imported: ")
    assert found[1] == fix.format(tmp_path / "keras.json")


@pytest.mark.parametrize(
    ("variable", "file", "expected"),
    [
        (None, None, "tensorflow"),
        (None, '{"backend": "jax"}', "jax"),
        ("torch", '{"backend": "jax"}', "torch"),
        (None, "nonsense", "tensorflow"),
        (None, "[]", "tensorflow"),
        ("numpy", None, "numpy"),
        (None, '{"backend": 3}', "3"),
    ],
)
def test_configured_backend(monkeypatch, tmp_path, variable, file, expected):
    """The backend is the variable's, or else that of Keras's own file, or TensorFlow; another than three is refused."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if variable:
        monkeypatch.setenv("KERAS_BACKEND", variable)
    if file:
        (tmp_path / "keras.json").write_text(file)
    assert configured_backend() == expected
    fix = (
        f"unset KERAS_BACKEND, which is {variable}" if variable else f'remove "backend" from {tmp_path / "keras.json"}'
    )
    refused = f"the backend {expected} can't be used, as tensorflow, jax, torch can; {fix}"
    assert unusable_backend() == (None if expected in ("tensorflow", "jax", "torch") else refused)


def test_backend_that_keras_refuses(install, monkeypatch):
    """Where Keras's import ends by a backend that isn't one of the three, that is the reason."""
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    install({"keras/__init__.py": "import not_installed"})
    message, fix = explained(raised("keras"))
    assert message == "the backend numpy can't be used, as tensorflow, jax, torch can"
    assert fix == "unset KERAS_BACKEND, which is numpy"


def test_reported_ends_with_one_line(install, capsys):
    """What is explained ends the program with its status, after one line on stderr."""
    install({"h5py/__init__.py": "raise RuntimeError('two\\nlines')"})
    with pytest.raises(SystemExit) as caught, reported("pytest", 4):
        importlib.import_module("h5py")
    assert caught.value.code == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pytest: h5py can't be imported: RuntimeError: two; pip install ")


def test_package_name_that_cannot_be_imported(monkeypatch):
    """A name of the package whose import ends in an AttributeError isn't said to be missing."""
    monkeypatch.setitem(sys.modules, "alexnet_repro.training.loop", ModuleType("broken"))
    with pytest.raises(ImportError, match=r"^train can't be imported: module 'broken' has no attribute 'train'$"):
        alexnet_repro.__getattr__("train")
    with pytest.raises(AttributeError, match=r"^module 'alexnet_repro' has no attribute 'tra'$"):
        alexnet_repro.tra  # noqa: B018
    assert "train" in dir(alexnet_repro)


STREAMS = """\
import os, sys
from alexnet_repro.startup import prepare
prepare()
print("µ")
print("µ", file=sys.stderr)
print(os.open(os.devnull, os.O_RDONLY) > 2, file=open(os.environ["ANSWER"], "w"))
"""


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&- >&- 2>&-"], ids=lambda closed: f"closed={closed}")
def test_streams(tmp_path, closed):
    """No file gets the number of a closed stream, and a character that can't be shown is replaced."""
    answer = tmp_path / "answer"
    environ = {**os.environ, "ANSWER": str(answer), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, STREAMS]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert answer.read_text() == "True\n"
    assert done.stdout == ("" if " >&-" in f" {closed}" else "?\n")
    assert done.stderr == ("" if "2>&-" in closed else "?\n")


STARTED = """\
import json, os, sys, warnings
from alexnet_repro.startup import prepare
prepare()
warnings.warn("only a warning", DeprecationWarning)
print(json.dumps([sys.warnoptions, os.environ["MPLBACKEND"], os.environ.get("PYTHONWARNINGS")]))
"""


@pytest.mark.parametrize("options", [["-W", "error"], ["-W", "error::DeprecationWarning"], []])
def test_variables_and_warnings(options):
    """A notebook's Matplotlib backend is out of the way, and warnings end nothing, neither here nor in children."""
    notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    environ = {**os.environ, **notebook, **({} if options else {"PYTHONWARNINGS": "error"})}
    command = [sys.executable, *options, "-c", STARTED]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], "agg", None]
