"""Signals that end a run: with an exit status of their own, and only where they would have ended the process."""

import signal

import pytest

from benchmarks.signals import ended_by_signals

ENDING = [
    pytest.param(signal.SIGTERM, "interrupted by SIGTERM", 143, id="signal=SIGTERM"),
    pytest.param(signal.SIGHUP, "interrupted by SIGHUP", 129, id="signal=SIGHUP"),
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
