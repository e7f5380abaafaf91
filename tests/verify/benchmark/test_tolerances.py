"""The file of rules: what it may say, what is refused, and which rule holds for a case."""

import pytest

from alexnet_repro.verify.benchmark.tolerances import Override, Rules, Tolerance, read
from tests.helpers.paths import ROOT

COMMITTED = ROOT / "benchmarks/references/rules.toml"


def written(tmp_path, text):
    """Return a file of rules."""
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return path


def test_committed_rules():
    """Those in the repository: half a percent of whole runs, 3 % at the least, and a tenth has to be seen."""
    assert read(COMMITTED) == Rules(0.005, 0.03, 0.10, 0.05, ())


def test_file_is_read(tmp_path):
    """What it says is taken, what it doesn't say is as ever; a whole number is a number."""
    text = 'false_alarms = 0.01\nmost_noise = 1\n[[case]]\nmatch = "draw*"\nsmallest_slowdown = 0.2\n'
    assert read(written(tmp_path, text)) == Rules(0.01, 0.03, 1.0, 0.05, (Override("draw*", 0.2),))
    assert read(written(tmp_path, "")) == Rules(0.005, 0.03, 0.10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("false_alarms = ", "isn't TOML: ", id="file=no TOML"),
        pytest.param("budget = 0.1", "budget: no such rule; there are false_alarms, ", id="key=unknown"),
        pytest.param(
            "false_alarms = 0", "false_alarms: expected a number above 0 and up to 0.1, got 0", id="number=none"
        ),
        pytest.param("false_alarms = 0.2", "false_alarms: expected a number above 0 and up to 0.1", id="number=large"),
        pytest.param("smallest_slowdown = -0.1", "expected a number above 0 and up to 1, got -0.1", id="number=below"),
        pytest.param("most_noise = true", "most_noise: expected a number .*, got True", id="number=truth"),
        pytest.param("most_noise = nan", "most_noise: expected a number .*, got nan", id="number=nan"),
        pytest.param('most_noise = "10 %"', "most_noise: expected a number .*, got '10 %'", id="number=text"),
        pytest.param("case = 1", r"case: expected tables, each under \[\[case\]\]", id="case=number"),
        pytest.param("[[case]]\nmost_noise = 0.1", "case 1, match: expected a case's name", id="match=missing"),
        pytest.param('[[case]]\nmatch = ""', "case 1, match: expected a case's name", id="match=empty"),
        pytest.param(
            '[[case]]\nmatch = "a"\n[[case]]\nmatch = "b"\nfalse_alarms = 0.01',
            "case 2, false_alarms: no such rule; there are smallest_slowdown, most_noise",
            id="case=rule of the whole",
        ),
    ],
)
def test_what_isnt_allowed_is_named(tmp_path, text, said):
    """File and key are named, with what is allowed and what was found."""
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=said) as error:
        read(path)
    assert str(error.value).startswith(str(path))


def test_missing_file_is_named(tmp_path):
    """Rules aren't made up where there are none; the command that brings them back is said."""
    with pytest.raises(ValueError, match=r"can't be read \(No such file or directory\): git checkout .*rules.toml"):
        read(tmp_path / "rules.toml")


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("draw_train[batch=128]", Tolerance(0.2, 0.5)),
        ("draw_train[batch=1]", Tolerance(0.2, 0.10)),
        ("resize[side=28]", Tolerance(0.03, 0.3)),
        ("resize[side=448]", Tolerance(0.03, 0.10)),
        ("resizes", Tolerance(0.03, 0.10)),
        ("redraw_train[batch=128]", Tolerance(0.03, 0.10)),
    ],
    ids="case={0}".format,
)
def test_last_match_holds(case, tolerance):
    """Of the overrides that match a whole name the last holds, rule by rule; brackets stand for themselves."""
    overrides = (
        Override("draw*", 0.1),
        Override("draw*", 0.2),
        Override("draw_train[batch=128]", most_noise=0.5),
        Override("resize[side=2?]", most_noise=0.3),
    )
    assert Rules(overrides=overrides).of(case) == tolerance
