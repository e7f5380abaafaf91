"""The start of a program: its streams and variables set right, and one line about an import that fails.

At its top it imports nothing but what Python has imported by then: a file that shadows a module may stand in the way of
any other.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType, TracebackType

BACKENDS = ("tensorflow", "jax", "torch")
OURS = ("alexnet_repro", "benchmarks", "tests", "conftest")
ANYWHERE = (*OURS, "sitecustomize", "usercustomize")  # each may be in any folder
# Packages by the modules that aren't named so, and what the names of a package's own variables begin with.
PACKAGES = {"google": "protobuf", "yaml": "PyYAML", "PIL": "pillow", "absl": "absl-py", "mpl_toolkits": "matplotlib"}
PREFIXES = {
    "jax": ("JAX_", "XLA_"),
    "keras": ("KERAS_MAX", "KERAS_NNX"),
    "matplotlib": ("MPL", "MATPLOTLIB"),
    "numpy": ("NPY_", "NUMPY_"),
    "protobuf": ("PROTOCOL_BUFFERS_",),
    "tensorflow": ("TF_", "XLA_"),
    "torch": ("TORCH", "PYTORCH_"),
    "tqdm": ("TQDM_",),
}

# What Keras's file has by default.
DEFAULTS = {"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow", "image_data_format": "channels_last"}

_Place = tuple[str, str, str]  # module, file and function


def prepare() -> None:
    """Set right what a program starts with, for itself and its children: streams, warnings and variables."""
    _open_streams()
    os.environ["MPLBACKEND"] = "agg"  # not a notebook's, which Matplotlib may lack: Keras imports Matplotlib
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # GPUs are numbered as nvidia-smi numbers them
    folders = (os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp", "/usr/tmp", ".", "/dev/shm")  # noqa: S108 - as Python
    if next((each for each in folders if os.access(each, os.W_OK)), "") == "/dev/shm":  # noqa: S108
        os.environ["TMPDIR"] = "/dev/shm"  # noqa: S108 - all others are read-only, as a container's root may be
    if any(each.startswith("e") for each in sys.warnoptions):  # errors: Keras warns when it saves, after a training
        sys.warnoptions[:] = [each for each in sys.warnoptions if not each.startswith("e")]
        os.environ.pop("PYTHONWARNINGS", None)
        warnings.simplefilter("default")


def _open_streams() -> None:
    """Let no file get the number of a closed stream, and print a replacement for what a terminal can't show."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the program
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def configured_backend() -> str:
    """Return the backend that Keras will use: KERAS_BACKEND's, or else its configuration file's."""
    import json

    from alexnet_repro.files import keras_json

    try:
        configured = json.loads(keras_json().read_text(encoding="utf-8"))["backend"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        configured = "tensorflow"
    return os.environ.get("KERAS_BACKEND") or str(configured)


def unusable_backend() -> str | None:
    """Return why the configured backend can't be used, and the fix; None: it is one that can."""
    if (backend := configured_backend()) in BACKENDS:
        return None
    return f"the backend {backend} can't be used, as {', '.join(BACKENDS)} can; {_another_backend()}"


def _another_backend() -> str:
    from alexnet_repro.files import keras_json

    if os.environ.get("KERAS_BACKEND"):
        return f"unset KERAS_BACKEND, which is {os.environ['KERAS_BACKEND']}"
    return f'remove "backend" from {keras_json()}'


@contextlib.contextmanager
def reported(program: str, status: int = 1) -> Iterator[None]:
    """End the program with one line where an import in the block fails."""
    try:
        yield
    except BaseException as error:
        if (found := explained(error)) is None:
            raise
        print(f"{program}: {'; '.join(found)}", file=sys.stderr)
        sys.exit(status)


def explained(error: BaseException) -> tuple[str, str] | None:
    """Return what is wrong and its fix, each one line, where an import failed, whatever it raised; else None."""
    if isinstance(error, KeyboardInterrupt):
        return None
    while inner := error.__cause__ or (error.__context__ if "\n" in str(error).strip() else None):
        error = inner  # what TensorFlow and NumPy repeat in a text of many lines
    places = list(_places(error.__traceback__))
    if not isinstance(error, ImportError | SyntaxError) and not _lacking(error) and not any(map(_in_module, places)):
        return None
    if shadow := _shadow(error, places):
        return shadow
    if any(_top(module) == "keras" for module, _, _ in places) and (refusal := unusable_backend()):
        message, _, fix = refusal.partition("; ")
        return message, fix
    reason = next((line for line in map(str.strip, str(error).splitlines()) if line), "")[:300]
    if not isinstance(error, ImportError):
        reason = f"{type(error).__name__}: {reason}".removesuffix(": ")
    innermost = next((file for module, file, _ in reversed(places) if _top(module) not in sys.stdlib_module_names), "")
    # Of Keras, or of the copy that TensorFlow has.
    configures = "/keras/" in innermost and innermost.endswith(("config.py", "backend.py"))
    package = "keras" if configures else _package(error, places)
    if not package:
        return None
    fix = _setting(package, str(error), configures=configures)
    if not fix and isinstance(error, OSError) and error.filename:
        fix = f"see to {error.filename}, its folder and its disk"
    fix = fix or _installation(package, reason, missing=isinstance(error, ModuleNotFoundError))
    return f"{package} can't be imported: {reason}", fix


def _places(traceback: TracebackType | None) -> Iterator[_Place]:
    """Yield each place that an error came through, the outermost first."""
    while traceback is not None:
        frame = traceback.tb_frame
        yield str(frame.f_globals.get("__name__")), frame.f_code.co_filename, frame.f_code.co_name
        traceback = traceback.tb_next


def _top(module: str) -> str:
    return module.partition(".")[0]


def _in_module(place: _Place) -> bool:
    """Return whether a module is being imported there; `init` is what Cython calls it."""
    module, _, function = place
    return module != "__main__" and (function == "<module>" or function.startswith("init "))


def _lacking(error: BaseException) -> str:
    """Return the name of a module that lacks what it should have; empty for another error."""
    module = error.obj if isinstance(error, AttributeError) else None
    return module.__name__ if isinstance(module, ModuleType) else ""


def _shadow(error: BaseException, places: list[_Place]) -> tuple[str, str] | None:
    """Return what is wrong where a module isn't Python's own or the installed one, but another file of its name."""
    from _frozen_importlib_external import PathFinder

    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    files |= {str(getattr(error, "name", "")): getattr(error, "path", None)}
    files |= {module: file for module, file, _ in places}
    if isinstance(error, SyntaxError) and error.filename:
        path = error.filename.removesuffix(".py").removesuffix("/__init__")
        files[os.path.basename(path)] = error.filename
    python = os.path.dirname(os.__file__)
    for name, file in files.items():
        if not isinstance(file, str) or not os.path.isabs(file) or "." in name or name in ANYWHERE:
            continue
        package = os.path.basename(file).startswith("__init__.")
        there = os.path.dirname(file) if package else file
        folder = os.path.dirname(there)
        if folder in (python, os.path.join(python, "lib-dynload")) or _holds_packages(folder):
            continue
        own = name in sys.stdlib_module_names
        elsewhere = [python, os.path.join(python, "lib-dynload")] if own else [*sys.path]
        found = PathFinder.find_spec(name, [each for each in elsewhere if os.path.abspath(each) != folder])
        if found is not None and found.has_location:
            instead = "Python's own" if own else "the installed one"
            return f"{name} is imported from {there}, not from {instead}", "rename it"
    return None


def _holds_packages(folder: str) -> bool:
    """Return whether pip or a distribution installs packages there."""
    with contextlib.suppress(OSError):
        return "-packages" in folder or any(each.endswith(".dist-info") for each in os.listdir(folder))
    return False


def _package(error: BaseException, places: list[_Place]) -> str | None:
    """Return the package that is to blame: what is missing, or where the error came from; None: none but ours."""
    names = [*(module for module, _, _ in places), _lacking(error)]
    if isinstance(error, ImportError) and error.name:
        names.append(error.name)
    if isinstance(error, SyntaxError) and error.filename:
        names.append(error.filename.rpartition("-packages/")[2].replace("/", ".").removesuffix(".py"))
    modules = [_top(name) for name in reversed(names) if not name.startswith("_")]
    found = (each for each in modules if each and each not in (*OURS, *sys.stdlib_module_names))
    return next((PACKAGES.get(each, each) for each in found), None)


def _setting(package: str, text: str, *, configures: bool) -> str:
    """Return the fix where it is a variable, or Keras's file, that ends the import; empty where it isn't."""
    from alexnet_repro.files import keras_json

    own = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES.get(package, ("?",)))}
    named = [name for name, value in own.items() if name in text or (len(value) > 1 and value in text)]
    fixes = [f"unset {name}, which is {own[name]}" for name in named]
    if not fixes and configures:
        fixes = [f"unset {name}, which is {value}" for name, value in own.items()]
        if (content := _changed()) is not None:
            fixes.append(f"correct or remove {keras_json()}" + f", which has {content}" * bool(content))
    return "; ".join(fixes)


def _changed() -> str | None:
    """Return what Keras's file has that isn't Keras's default; empty: it can't be read; None: nothing."""
    import json

    from alexnet_repro.files import keras_json

    try:
        content = keras_json().read_text(encoding="utf-8")
        found = json.loads(content)
    except (FileNotFoundError, ValueError):  # Keras passes over what is no JSON
        return None
    except (OSError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return " ".join(content.split())[:100]
    return json.dumps({name: each for name, each in found.items() if each != DEFAULTS.get(name)})[1:-1][:200] or None


def _installation(package: str, reason: str, *, missing: bool) -> str:
    """Return the command that installs a package, in a version that our own and TensorFlow's metadata ask for."""
    requirements: list[str] = []
    for owner in ("tensorflow", "alexnet-repro"):
        with contextlib.suppress(Exception):  # what reads metadata may be what is broken
            from alexnet_repro.packages import find_package

            if found := find_package(owner):
                package = found.name if package == owner else package
                requirements += (found.distribution and found.distribution.requires) or ()
    texts = [text.partition(";")[0].replace(" ", "") for text in requirements]

    def asked(name: str) -> str:
        wanted = [text[len(name) :] for text in texts if text.lower().startswith(name.lower())]
        return f"'{name}{','.join(each for each in dict.fromkeys(wanted) if each[:1] in tuple('<>=!~'))}'"

    names = [package, *(["numpy"] if "numpy" in reason.lower() and package != "numpy" else [])]
    how = "pip install" if missing else "pip install --force-reinstall --no-deps"
    other = f", or {_another_backend()}" if package == configured_backend() != "tensorflow" else ""
    return f"{how} {' '.join(map(asked, names))}{other}"
