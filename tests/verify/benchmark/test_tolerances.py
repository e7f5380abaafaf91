"""The file of tolerances: what it may hold, what is refused, and which tolerance holds for a case."""

import pytest

from alexnet_repro.verify.benchmark.tolerances import Override, Tolerances, read_tolerances
from tests.helpers.paths import ROOT

COMMITTED = ROOT / "benchmarks/references/tolerances.toml"


def written(tmp_path, text):
    """Return a file of tolerances."""
    path = tmp_path / "tolerances.toml"
    path.write_text(text)
    return path


def test_committed_tolerances():
    """Those in the repository: half a percent of whole runs, at least 3 %, and a tenth has to be detectable."""
    assert read_tolerances(COMMITTED) == Tolerances(0.005, 0.03, 0.10, 0.05, ())


def test_file_is_read(tmp_path):
    """What it holds is taken, the rest is the default; a whole number is a number."""
    text = 'false_alarms = 0.01\nmax_noise = 1\n[[case]]\nmatch = "draw*"\nmin_slowdown = 0.2\n'
    assert read_tolerances(written(tmp_path, text)) == Tolerances(0.01, 0.03, 1.0, 0.05, (Override("draw*", 0.2),))
    assert read_tolerances(written(tmp_path, "")) == Tolerances(0.005, 0.03, 0.10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("false_alarms = ", "isn't TOML: ", id="file=no TOML"),
        pytest.param(
            "budget = 0.1",
            "budget: Unexpected .*, not '0.1'; keys: false_alarms, min_slowdown, max_noise, max_busy, case",
            id="key=unknown",
        ),
        pytest.param("false_alarms = 0", "false_alarms: .* greater than 0, not '0'", id="number=none"),
        pytest.param("false_alarms = 0.2", "false_alarms: .* less than or equal to 0.1, not '0.2'", id="number=large"),
        pytest.param("min_slowdown = -0.1", "min_slowdown: .* greater than 0, not '-0.1'", id="number=below"),
        pytest.param("max_noise = true", "max_noise: .* a valid number, not 'True'", id="number=truth"),
        pytest.param("max_noise = nan", "max_noise: .* a finite number, not 'nan'", id="number=nan"),
        pytest.param('max_noise = "10 %"', "max_noise: .* a valid number, not '10 %'", id="number=text"),
        pytest.param("case = 1", "case: .* a valid tuple, not '1'", id="case=number"),
        pytest.param("[[case]]\nmax_noise = 0.1", "case.0.match: Field required", id="match=missing"),
        pytest.param('[[case]]\nmatch = ""', "case.0.match: .* at least 1 character, not ''", id="match=empty"),
        pytest.param(
            '[[case]]\nmatch = "a"\n[[case]]\nmatch = "b"\nfalse_alarms = 0.01',
            "case.1.false_alarms: Unexpected .*; of a case: match, min_slowdown, max_noise",
            id="case=tolerance of all",
        ),
    ],
)
def test_what_isnt_allowed_is_named(tmp_path, text, message):
    """File and key are named, with what is allowed and what was found."""
    path = written(tmp_path, text)
    with pytest.raises(ValueError, match=message) as error:
        read_tolerances(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path):
    """Tolerances aren't made up where there are none; the message has the command that brings them back."""
    with pytest.raises(
        ValueError, match=r"can't be read \(No such file or directory\): restore .*tolerances.toml, or remove it"
    ):
        read_tolerances(tmp_path / "tolerances.toml")


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        ("draw_train[batch=128]", (0.2, 0.5)),
        ("draw_train[batch=1]", (0.2, 0.10)),
        ("resize[side=28]", (0.03, 0.3)),
        ("resize[side=448]", (0.03, 0.10)),
        ("resizes", (0.03, 0.10)),
        ("redraw_train[batch=128]", (0.03, 0.10)),
    ],
)
def test_last_match_holds(case, tolerance):
    """Of the overrides that match a whole name the last holds, for each tolerance; brackets stand for themselves."""
    overrides = (
        Override("draw*", 0.1),
        Override("draw*", 0.2),
        Override("draw_train[batch=128]", max_noise=0.5),
        Override("resize[side=2?]", max_noise=0.3),
    )
    assert Tolerances(case=overrides).of(case) == tolerance
