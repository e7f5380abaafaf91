"""What surrounds a verification: plugins without which nothing can be timed, and options that don't go with it."""

import pytest

from tests.helpers.sessions import session_of

BOTH = ("benchmark", "skipping")
ALONE = "benchmarks are timed one at a time, in this process: leave out -n and --forked, or run `pytest tests -n …`"
WITHOUT = "benchmarks need the plugin pytest-benchmark: "
NOT_LOADED = f"{WITHOUT}unset PYTEST_DISABLE_PLUGIN_AUTOLOAD, or add -p pytest_benchmark.plugin"


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
