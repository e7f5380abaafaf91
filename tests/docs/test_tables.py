"""Tables in the documents that are made from the code."""

import pytest

from docs import tables
from tests.helpers.paths import ROOT


@pytest.mark.parametrize("path", sorted(path.relative_to(ROOT).as_posix() for path in tables.pages()))
def test_tables_are_those_of_the_code(path):
    """Each page has what `python -m docs.tables` would write."""
    text = (ROOT / path).read_text(encoding="utf-8")
    assert tables.renewed(text) == text


@pytest.mark.parametrize("name", tables.SCHEMAS)
def test_schemas_are_those_of_the_code(name):
    """Each published schema is what `python -m docs.tables` would write."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == tables.schema_text(name)


def test_every_table_is_on_a_page():
    """No table is made for nothing, and none is on two pages."""
    texts = [path.read_text(encoding="utf-8") for path in tables.pages()]
    assert {name: sum(f"<!-- table: {name} -->" in text for text in texts) for name in tables.TABLES} == dict.fromkeys(
        tables.TABLES, 1
    )


def test_every_benchmark_is_in_a_table():
    """Each module of the benchmarks is in one of the tables; those of several devices have a page of their own."""
    modules = {path.stem.removeprefix("test_") for path in (ROOT / "benchmarks").glob("test_*.py")}
    listed = {*tables.TIMED, *tables.REPEATABLE, *tables.REFERENCE, "correct"}
    assert modules - listed == {"scaling", "workers"}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("exit", "| `pytest benchmarks` | 0 | 1 | 0 |"),
        ("exit", "| `pytest benchmarks --fail-inconclusive` | 0 | 1 | 1 |"),
        ("exit", "| `python -m alexnet_repro doctor` | 0 | 1 | 3 |"),
        ("pytest", "| `--require-gpu` | fail on a machine without a usable GPU |"),
        ("commands", "| `--json` | one JSON object per line; the last has the verdict |"),
        ("correct", "| `copies` | What is copied to the device and back is what was sent. |  |  |"),
        ("judged", "| `synchronized` | The clock was stopped after the device was done. |"),
        ("repeatable", "| `processes` | Another process gives the same bits. |"),
        ("run", "| `id` | string | yes | 32 hexadecimal digits that no other run has |"),
        ("run", "| `level` | `quick`, `standard`, `long` | yes |  |"),
        ("machine", "| `inventory` | object |  | by device, as gpu:0 |"),
        ("device", "| `power_limit` | number or null |  | W, as enforced |"),
        ("doctor", "| `disk` | Folders that can be written to, with free space for the files; "),
    ],
)
def test_rows(name, line):
    """A table says what the code's docstrings, options and statuses say."""
    assert line in tables.TABLES[name]()


@pytest.mark.parametrize("hidden", ["--cpu-replicas", "--replicas=", "--help"])
def test_hidden_options_stay_hidden(hidden):
    """Options for developers, and the help itself, are in no table."""
    made = tables.commands() if hidden != "--cpu-replicas" else tables.pytest_options()
    assert hidden not in made
