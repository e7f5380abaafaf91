"""Signals are requests to stop, and output without a reader ends nothing."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import alexnet_repro
from alexnet_repro.training.stop_signal import REPEATED, SIGNALS, deferred_signals, outliving_readers


@contextlib.contextmanager
def output_without_a_reader():
    """Have stdout and stderr be written to a pipe whose reader is gone; within the test, where pytest has its own."""
    read, write = os.pipe()
    os.close(read)
    stream = os.fdopen(write, "w", buffering=1)
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield stream
    with contextlib.suppress(OSError):
        stream.close()


@pytest.fixture(params=(*SIGNALS, *REPEATED), ids=lambda each: f"signal={each.name}")
def number(request):
    """A signal; what is done at it stays as it was."""
    before = signal.getsignal(request.param)
    yield request.param
    signal.signal(request.param, before)


def test_first_signal_is_a_request(number, capsys):
    """The first one is kept and acknowledged, the second acts as before; others may come again."""
    came = []
    signal.signal(number, lambda *_: came.append(number))
    with deferred_signals() as stop_request:
        assert not stop_request()
        signal.raise_signal(number)
        assert (stop_request(), stop_request.signal, came) == (True, number, [])
        signal.raise_signal(number)
        assert came == ([number] if number in SIGNALS else [])
        assert stop_request.signal == number
    signal.raise_signal(number)
    assert came[-1:] == [number]
    assert capsys.readouterr().err.count(f"{number.name}: stopping") == 1


@pytest.mark.parametrize("first", REPEATED, ids=lambda each: f"first={each.name}")
def test_sigterm_after_a_terminal_is_gone(first):
    """After a signal that may come again, one SIGTERM lets the training save its checkpoint, and the second ends it."""
    came = []
    before = {each: signal.signal(each, lambda *_: came.append("ended")) for each in (signal.SIGTERM, first)}
    try:
        with deferred_signals() as stop_request:
            for each in (first, first, signal.SIGTERM, first):
                signal.raise_signal(each)
            assert (stop_request.signal, came) == (first, [])
            signal.raise_signal(signal.SIGTERM)
            assert came == ["ended"]
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_ignored_signal_stays_ignored(number, capsys):
    """A signal that this process was started to ignore, as work in a shell's background, is no request."""
    signal.signal(number, signal.SIG_IGN)
    with deferred_signals() as stop_request:
        signal.raise_signal(number)
        assert not stop_request()
    assert signal.getsignal(number) is signal.SIG_IGN
    assert capsys.readouterr().err == ""


def test_signal_without_a_reader(number):
    """A signal is a request even if it ended the reader of the output as well."""
    with output_without_a_reader(), deferred_signals() as stop_request:
        signal.raise_signal(number)
        assert stop_request.signal == number


def test_output_without_a_reader():
    """What is printed from then on goes nowhere, nor is anything left that would fail when Python ends."""
    with output_without_a_reader() as stream:
        with outliving_readers():
            for _ in range(3):
                print("x" * 100_000)
            print("so", file=sys.stderr, flush=True)
        stream.write("y" * 100_000)
        stream.flush()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here, which stands for a full disk")
def test_output_to_a_full_disk():
    """Output that is lost on a full disk ends nothing, but at the end it is an error that says so."""
    done = []

    def go_on():
        with outliving_readers():
            print("x" * 100_000)
            done.append(True)

    lost = pytest.raises(OSError, match="couldn't be written: No space left on device")
    with Path("/dev/full").open("w") as full, contextlib.redirect_stdout(full), lost:
        go_on()
    assert done


def test_output_with_a_reader(capsys):
    """Otherwise everything arrives, and the streams are as before."""
    streams = sys.stdout, sys.stderr
    with outliving_readers():
        print("result")
        print("progress", file=sys.stderr)
        assert sys.stderr.isatty() is False
    assert (sys.stdout, sys.stderr) == streams
    assert capsys.readouterr() == ("result\n", "progress\n")


@pytest.mark.slow
def test_training_in_a_pipeline(tmp_path):
    """Ctrl-C on `train … 2>&1 | tee log` ends `tee` first: the training saves a checkpoint and ends as it should."""
    command = [sys.executable, "-m", "alexnet_repro", "train", "--synthetic", f"--weights={tmp_path / 'a.weights.h5'}"]
    process = subprocess.Popen(
        command,
        cwd=Path(alexnet_repro.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    output = b""
    while b"training takes about" not in output:
        output += os.read(process.stdout.fileno(), 1 << 12)
        assert process.poll() is None
    process.stdout.close()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=100) == 130
    (saved,) = tmp_path.glob("a.checkpoints/update-*.npz")
    assert saved.stat().st_size > 500_000_000  # Adam's
    saved.unlink()
