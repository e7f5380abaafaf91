"""What libraries write to stderr: nothing of it is shown while all is well, and nothing lost where it isn't."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from alexnet_repro.cli.parser import main
from alexnet_repro.quiet import kept_output
from tests.helpers.paths import ROOT

HARMLESS = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795806042.175248    6239 port.cc:153] oneDNN custom operations are on.",
    "W0000 00:00:1795806042.175248    6239 gpu_device.cc:2344] Cannot dlopen some GPU libraries.",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    "E0000 00:00:1 1 cuda_platform.cc:52] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)",
    "2026-01-02 03:04:05.678901: I external/local_tsl/tsl/cuda/cudart_stub.cc:32] Could not find cuda drivers",
    "2026-01-02 03:04:05.678901: E external/cuda_dnn.cc:8454] Unable to register cuDNN factory: one is registered",
]
TELLING = [
    "F0000 00:00:1 1 tensor.cc:1] Check failed: dtype() == expected",
    "E0000 00:00:1 1 cuda_dnn.cc:9] Loaded runtime CuDNN library: 9.1.0 but source was compiled with: 9.24.0.",
    "2026-01-02 03:04:05.678901: F tensorflow/core/platform/cpu_feature_guard.cc:37] it needs AVX instructions",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "I am no line of a log",
]


def stderr_of(end, *lines, environ=(), pythons_too=False):
    """Return what a program shows on stderr that writes these lines from below Python, and then ends so."""
    code = f"""if True:
        import os, signal, sys
        from alexnet_repro.quiet import kept_output
        with kept_output(pythons_too={pythons_too}) as kept:
            os.write(2, {chr(10).join([*lines, ""]).encode()!r})
            print("Python's own", file=sys.stderr)
            {end}
        print("after it", file=sys.stderr)
    """
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **dict(environ)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environ, stderr=subprocess.PIPE, check=False)
    return done.stderr.decode().splitlines()


DEATHS = {"abort": "os.abort()", "kill": "os.kill(os.getpid(), signal.SIGKILL)", "exit": "os._exit(3)"}


@pytest.mark.parametrize("end", ["pass", *DEATHS.values()], ids=["end=well", *(f"end={each}" for each in DEATHS)])
def test_harmless_lines_are_never_shown(end):
    """What a sound machine has isn't shown, however the program ends; what Python prints is, where it was printed."""
    after = ["after it"] if end == "pass" else []
    assert stderr_of(end, *HARMLESS) == ["Python's own", *after]


@pytest.mark.parametrize("end", DEATHS.values(), ids=[f"end={each}" for each in DEATHS])
@pytest.mark.parametrize("line", TELLING, ids=[f"line={number}" for number in range(len(TELLING))])
def test_last_words_of_a_crash_are_shown(end, line):
    """Where the program dies, all that libraries wrote is printed, if one line of it is no sound machine's."""
    assert stderr_of(end, HARMLESS[0], line) == ["Python's own", HARMLESS[0], line]


@pytest.mark.parametrize(
    ("end", "shown"),
    [("pass", []), ("kept.explains_an_error = True", TELLING[:1])],
    ids=["error=no", "error=yes"],
)
def test_what_explains_an_error_is_shown(end, shown):
    """Without a crash it is shown if the program says so: with an error that it may explain."""
    assert stderr_of(end, TELLING[0]) == ["Python's own", *shown, "after it"]


def test_pythons_output_is_kept_where_it_is_asked():
    """Pytest, which has streams of its own, keeps both in their order."""
    end = "kept.explains_an_error = True"
    assert stderr_of(end, TELLING[0], pythons_too=True) == [TELLING[0], "Python's own", "after it"]


@pytest.mark.parametrize("level", ["0", "1"], ids=lambda level: f"level={level}")
def test_who_asks_for_logs_has_them(level):
    """TF_CPP_MIN_LOG_LEVEL=0 or 1 asks for what TensorFlow says: nothing is kept back."""
    shown = stderr_of("pass", *HARMLESS, environ={"TF_CPP_MIN_LOG_LEVEL": level})
    assert shown == [*HARMLESS, "Python's own", "after it"]


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (KeyboardInterrupt(), 130, True),
        (MemoryError(), 1, True),
        (SystemExit(1), 1, True),
        (ModuleNotFoundError("no such module"), 1, True),
        (FileNotFoundError(2, "No such file", "x"), 1, False),
        (None, 0, False),
    ],
    ids=["error=interrupt", "error=memory", "error=exit", "error=import", "error=file", "error=none"],
)
def test_which_errors_of_a_command_show_it(monkeypatch, capfd, error, status, shown):
    """Whatever ends a command, what a library said may be why; but for a disk or a file, which say it themselves."""

    def ends(_words):
        os.write(2, f"{TELLING[3]}\n".encode())
        if error:
            raise error
        return 0

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setattr("alexnet_repro.cli.parser._run", ends)
    try:
        found = main([])
    except SystemExit as left:
        found = left.code
    assert (found, TELLING[3] in capfd.readouterr().err) == (status, shown)


def test_without_room_for_a_file_nothing_is_kept(monkeypatch):
    """Where no file can be made the program runs all the same, and its libraries write to stderr."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alexnet_repro.quiet.tempfile.TemporaryFile", full)
    with kept_output() as kept:
        assert kept.text() == ""


def open_files():
    """Return the numbers of this process's open files."""
    return sorted(each.name for each in Path("/proc/self/fd").iterdir())


def test_descriptors_are_given_back(monkeypatch):
    """After the block there are as many open files as before it, and descriptor 2 is what it was."""
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    before, stderr = open_files(), os.fstat(2)
    with kept_output(pythons_too=True) as kept:
        os.write(2, b"within\n")
        assert kept.text() == "within\n"
    assert (open_files(), os.fstat(2).st_ino) == (before, stderr.st_ino)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("shapes",), ("doctor",)], ids=lambda words: f"words={words[0]}")
def test_commands_print_nothing_of_libraries(words, tmp_path):
    """No command prints what TensorFlow, JAX, PyTorch or XLA say of a sound machine."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TF_CPP", "CUDA_VIS"))}
    command = [sys.executable, "-m", "alexnet_repro", *words]
    environ["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.stderr == "", keras.backend.backend()
