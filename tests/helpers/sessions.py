"""Sessions of the verification, without pytest."""

from types import SimpleNamespace

from benchmarks.session import VerificationSession


def session_of(folder, *, plugins=("benchmark", "skipping"), **options):
    """Return the session of a run with these options, which reports into a folder."""
    options = {
        "report": folder,
        "benchmark_timer": "time.perf_counter",
        "benchmark_max_time": "1.0",
        "deadline": 600.0,
        "level": "standard",
        **options,
    }
    config = SimpleNamespace(
        option=SimpleNamespace(collectonly=False, xmlpath=None, keyword=options.get("keyword", ""), markexpr=""),
        getoption=lambda name, default=None: options.get(name, default),
        get_terminal_writer=lambda: SimpleNamespace(line=lambda _: None),
        pluginmanager=SimpleNamespace(has_plugin=plugins.__contains__),
        rootpath=folder,
        invocation_params=SimpleNamespace(args=(), plugins=()),
        hook=SimpleNamespace(pytest_deselected=lambda **_: None),
        stash={},
    )
    return VerificationSession(config)
