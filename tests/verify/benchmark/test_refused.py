"""What surrounds a verification: plugins without which nothing can be timed, and options that don't go with it."""

import math
import time

import pytest

from benchmarks import refused, speed_references
from benchmarks.refused import no_timing
from tests.helpers.pytest_here import benchmarks_here
from tests.helpers.sessions import session_of

BOTH = ("benchmark", "skipping")
ALONE = "benchmarks are timed one at a time: leave out -n and --forked, or run `pytest tests -n …`"
WITHOUT = "benchmarks need the plugin pytest-benchmark: "
NOT_LOADED = f"{WITHOUT}unset PYTEST_DISABLE_PLUGIN_AUTOLOAD, or add -p pytest_benchmark.plugin"
SECONDS = "expected seconds, 0 or more"
TIMER = "timings are by time.perf_counter; leave the option out"


@pytest.mark.parametrize(
    ("plugins", "options", "autoload", "message"),
    [
        (BOTH[1:], {}, "", f"{WITHOUT}leave out -p no:benchmark"),
        (BOTH[1:], {}, "off", NOT_LOADED),
        (BOTH[:1], {}, "", "benchmarks need pytest's plugin skipping: leave out -p no:skipping"),
        (BOTH, {"dist": "load"}, "", ALONE),
        (("pytest_benchmark.plugin", "skipping"), {"forked": True}, "off", ALONE),
        (BOTH, {"keyword": "forward and"}, "", "Wrong expression passed to '-k': forward and: at column 12: expected "),
    ],
    ids=lambda value: f"given={value if isinstance(value, str) else ' '.join(value)}"[:50],
)
def test_what_benchmarks_need(tmp_path, monkeypatch, plugins, options, autoload, message):  # noqa: PLR0917
    """Without its plugins, or among xdist's workers, nothing can be timed: a usage error in one line, at once."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", autoload)
    with pytest.raises(pytest.UsageError) as error:
        session_of(tmp_path, plugins=plugins, **options)
    assert str(error.value).startswith(message)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("timer", "max_time", "message"),
    [
        pytest.param(time.perf_counter, 1.0, "", id="options=default"),
        pytest.param(time.perf_counter, 0.0, "", id="seconds=0"),
        pytest.param(time.perf_counter, math.inf, f"--benchmark-max-time=inf: {SECONDS}", id="seconds=inf"),
        pytest.param(time.perf_counter, math.nan, f"--benchmark-max-time=nan: {SECONDS}", id="seconds=nan"),
        pytest.param(time.perf_counter, -1.0, f"--benchmark-max-time=-1.0: {SECONDS}", id="seconds=-1"),
        pytest.param(time.process_time, 1.0, f"--benchmark-timer=time.process_time: {TIMER}", id="timer=process_time"),
        pytest.param(str, 1.0, f"--benchmark-timer=builtins.str: {TIMER}", id="timer=no clock"),
        pytest.param(None, 1.0, f"--benchmark-timer=.None: {TIMER}", id="timer=no function"),
    ],
)
def test_what_is_timed_by(timer, max_time, message):
    """What is refused is named in one line, with what is taken instead; the default is taken."""
    assert no_timing(timer, max_time) == message


@pytest.mark.parametrize("given", ["option", "variable"])
def test_references_that_arent_there_are_refused(tmp_path, monkeypatch, given):
    """A folder of references that was mistyped isn't passed over in favour of the suite's own."""
    monkeypatch.setenv("ALEXNET_REPRO_REFERENCES", str(tmp_path / ("gone" if given == "variable" else "")))
    options = {"references": tmp_path / "gone"} if given == "option" else {}
    with pytest.raises(pytest.UsageError) as error:
        session_of(tmp_path, **options)
    assert str(error.value) == f"no such folder of references: {tmp_path}/gone"


def test_folder_of_new_references_is_tried_at_the_start(tmp_path):
    """It is made where it isn't there; where it can't be, the run ends before hours of timing."""
    session = session_of(tmp_path, references=tmp_path / "new/ones", update_reference=True)
    assert (tmp_path / "new/ones").is_dir()
    assert session.references[0] == tmp_path / "new/ones"
    (tmp_path / "file").touch()
    with pytest.raises(pytest.UsageError) as error:
        session_of(tmp_path, references=tmp_path / "file/ones", update_reference=True)
    how = "Not a directory; name another folder: --references=DIR"
    assert str(error.value) == f"references can't be written to {tmp_path}/file/ones: {how}"


def test_installed_package_keeps_no_references(tmp_path, monkeypatch):
    """They would be lost when it is replaced: the message names the option for a folder."""
    monkeypatch.setattr(refused, "WITHIN", speed_references.REFERENCES.parents[1])
    with pytest.raises(pytest.UsageError) as error:
        session_of(tmp_path, update_reference=True)
    how = "name a folder by --references=DIR or ALEXNET_REPRO_REFERENCES"
    assert str(error.value) == f"an installed package keeps no new references: {how}"


@pytest.mark.parametrize("option", ["--benchmark-timer=time.process_time", "--benchmark-max-time=inf"])
def test_benchmarks_are_refused(tmp_path, option):
    """`pytest benchmarks` ends at once by a usage error of one line, and leaves no results."""
    status, printed = benchmarks_here("--device=cpu:0", f"--report={tmp_path / 'report'}", option)
    assert status == 4
    assert f"ERROR: {option}" in printed
    assert not (tmp_path / "report").exists()
