"""The list of mutants fits the code, and each is judged by what its tests do."""

import pytest

from tests.helpers.paths import ROOT
from tests.mutants import run
from tests.mutants.run import Mutant, StaleError, read_mutants

MUTANTS = read_mutants()


def test_list_is_read():
    """The tests below are of as many mutants as there are in the list, by names of their own, which TOML sees to."""
    assert len(MUTANTS) >= 90


@pytest.mark.parametrize("mutant", [pytest.param(each, id=f"mutant={each.name}") for each in MUTANTS])
def test_list_fits_the_code(mutant):
    """Each text is in its file exactly once, is changed, and the tests that should see it are there."""
    content = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert mutant.applied(content) != content
    assert mutant.tests
    assert all((ROOT / each.partition("::")[0]).exists() for each in mutant.tests)


@pytest.mark.parametrize("content", ["a = 2\n", "a = 1\nb = 1\na = 1\n"], ids=["found=never", "found=twice"])
def test_stale(content):
    """A text that isn't there, or more than once, is refused by the mutant's name, with what to do."""
    mutant = Mutant("one", "a.py", "a = 1", "a = 2", ["tests"])
    with pytest.raises(StaleError, match=r"^one: its text is [02] times in a\.py: adapt mutants\.toml to the code$"):
        mutant.applied(content)


@pytest.mark.parametrize(
    ("status", "may_live", "expected"),
    [
        (1, "", ("killed", 0)),
        (0, "", ("survived", 1)),
        (0, "equal by arithmetic", ("survived", 0)),
        (1, "equal by arithmetic", ("killed", 0)),
        (None, "", ("timeout", 1)),
        (2, "", ("error", 1)),  # of collection, as where nothing can be imported
        (5, "", ("error", 1)),  # no test ran
    ],
)
def test_outcomes(monkeypatch, capsys, status, may_live, expected):
    """Only tests that ran and failed kill a mutant; one that lives without a reason fails, as does one not judged."""
    mutant = Mutant("one", "CHANGELOG.md", "# Changelog\n", "# Changes\n", ["tests/test_files.py"], may_live)
    statuses, heads = iter([0, status]), []

    def run_tests(folder, _tests, _limit):
        heads.append((folder / "CHANGELOG.md").read_text(encoding="utf-8").partition("\n")[0])
        return next(statuses), ["tests/test_files.py::test_a"]

    monkeypatch.setattr(run, "copy_checkout", lambda to: (to / "CHANGELOG.md").write_bytes(b"# Changelog\n\nText.\n"))
    monkeypatch.setattr(run, "read_mutants", lambda: [mutant])
    monkeypatch.setattr(run, "run_tests", run_tests)
    found = run.main([])
    assert (capsys.readouterr().out.split()[0], found) == expected
    assert heads == ["# Changelog", "# Changes"]


def test_tests_that_fail_anyhow(monkeypatch, capsys):
    """Where the tests fail without a mutant, none is judged, and they are named."""
    monkeypatch.setattr(run, "copy_checkout", lambda _: None)
    monkeypatch.setattr(run, "run_tests", lambda *_: (1, ["tests/test_files.py::test_a"]))
    assert run.main([]) == 1
    assert capsys.readouterr().out == "without a mutant the tests don't pass: tests/test_files.py::test_a\n"


def test_time_is_up(tmp_path):
    """Tests that take longer than they may are ended."""
    (tmp_path / "test_a.py").write_text("import time\ntime.sleep(600)\n")
    assert run.run_tests(tmp_path, ["test_a.py"], 0.1) == (None, [])


def test_unknown_name(capsys):
    """A name that isn't in the list is refused."""
    with pytest.raises(SystemExit):
        run.main(["nothing"])
    assert "no such mutant: nothing" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mutant_is_killed(capsys):
    """One that is real: without `--require-gpu` in tox's environment a test fails."""
    assert run.main(["tox-require-gpu"]) == 0
    assert capsys.readouterr().out.startswith("killed    tox-require-gpu  1 failed: tests/cli/test_parser.py::")
