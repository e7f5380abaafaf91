"""The progress bar of a training: it fits the terminal, and its rate is that of training."""

import io
import sys
import time

import pytest

from alexnet_repro import Recipe
from alexnet_repro.training.history import History, TrainingRecorder


class Terminal(io.StringIO):
    """A terminal that keeps what is written."""

    def isatty(self):
        return True


@pytest.fixture
def recorder(monkeypatch):
    """A function that returns the recorder of the documented training, on a terminal of that width."""

    def recorder(columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "stderr", Terminal())
        return TrainingRecorder(Recipe.documented(), History(), show=True)

    return recorder


@pytest.mark.parametrize(("columns", "counts"), [(80, False), (72, False), (160, True)])
def test_bar_fits(recorder, columns, counts):
    """At 80 columns there is a bar to be seen, and the loss and accuracy are whole; with more room, counts as well."""
    recorder = recorder(columns)
    recorder.add(1, [0.48776] * 4, [0.825] * 4)
    recorder.bar.close()
    line = recorder.bar.format_meter(**recorder.bar.format_dict | {"ncols": columns, "rate": 12.34})  # hours are left
    assert len(line) <= columns
    assert " images/s, accuracy=0.825, loss=0.4878" in line
    assert len(line.split("|")[1]) >= 3
    assert ("/299648 [" in line) is counts


def test_rate_is_of_training(recorder):
    """A pause, in which weights are saved or evaluated, counts neither for the history's rate nor for the bar's."""
    recorder = recorder(80)
    before = recorder.bar.start_t
    with recorder.paused():
        time.sleep(0.05)
    recorder.bar.close()
    assert recorder.bar.start_t - before >= 0.05
