"""Signals that end a run: with an exit status of their own, and only where they would have ended the process."""

import os
import signal

import pytest

from benchmarks.signals import ended_by_signals

ENDING = [
    pytest.param(signal.SIGTERM, "interrupted by SIGTERM", 143, id="signal=SIGTERM"),
    pytest.param(signal.SIGHUP, "interrupted by SIGHUP", 129, id="signal=SIGHUP"),
    pytest.param(signal.SIGQUIT, "interrupted by SIGQUIT", 131, id="signal=SIGQUIT"),
    pytest.param(signal.SIGUSR1, "interrupted by SIGUSR1", 138, id="signal=SIGUSR1"),
    pytest.param(signal.SIGXCPU, "interrupted by SIGXCPU", 152, id="signal=SIGXCPU"),
]


@pytest.fixture
def handled():
    """A function that gives a signal a handler until the test is over."""
    before = {}

    def handle(number, handler):
        before.setdefault(number, signal.signal(number, handler))

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "words", "status"), ENDING)
def test_signal_ends_the_run(handled, number, words, status):
    """It ends pytest in words, with 128 and its number; another one changes nothing; afterwards all is as before."""
    handled(number, signal.SIG_DFL)
    heard = []
    with ended_by_signals(lambda *said: heard.append(said)):
        assert signal.getsignal(number) != signal.SIG_DFL  # or this process would end here
        with pytest.raises(pytest.exit.Exception, match=words) as ended:
            signal.raise_signal(number)
        assert (ended.value.returncode, heard) == (status, [(words, status)])
        assert signal.getsignal(number) == signal.SIG_IGN
    assert signal.getsignal(number) == signal.SIG_DFL


def test_what_is_ignored_stays_so(handled):
    """Under nohup a hang-up ends nothing."""
    handled(signal.SIGHUP, signal.SIG_IGN)
    with ended_by_signals(lambda *_: None):
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_fork_is_ended_by_itself(handled):
    """A signal that ends a fork, as of a process of a pool, ends that alone: nobody takes it for the run's."""
    handled(signal.SIGTERM, signal.SIG_DFL)
    heard, wakeup = os.pipe()
    for each in (heard, wakeup):
        os.set_blocking(each, False)
    with ended_by_signals(lambda *_: None, wakeup):
        if not (child := os.fork()):
            signal.pause()
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        with pytest.raises(BlockingIOError):  # nothing came
            os.read(heard, 1)
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    for each in (heard, wakeup):
        os.close(each)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
