"""What the documents have of the code: `python -m docs.tables` writes tables between their markers, and schemas."""

import argparse
import importlib
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alexnet_repro.cli.parser import parser
from alexnet_repro.fleet.fleet_file import fleet_schema
from alexnet_repro.verify.benchmark import timing
from alexnet_repro.verify.checks.registry import CORRECT
from alexnet_repro.verify.doctor import cuda_software
from alexnet_repro.verify.doctor.doctor import DRIVER_CHECKS, LAST_CHECKS, MACHINE_CHECKS
from alexnet_repro.verify.doctor.inventory import DeviceInventory
from alexnet_repro.verify.finding import Status, exit_status
from alexnet_repro.verify.report.results_schema import MachineFields, RunFields, results_schema
from alexnet_repro.verify.verdict import pytest_exit_status

ROOT = Path(__file__).resolve().parents[1]
JUDGED = ("valid", "synchronized", "no_thermal_drift", "no_throttling", "low_noise", "peak_fraction")
# The modules of `benchmarks`, by group, in the order of a run; a test compares them with the folder.
TIMED = (
    "calibration",
    "forward",
    "train_step",
    "training",
    "evaluate",
    "input_pipeline",
    "resize",
    "overhead",
    "profile",
)
REPEATABLE = ("repeatable", "burn_in")
REFERENCE = ("reference",)


def promise(documented: Any) -> str:
    """Return the first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def exits() -> str:
    """Return what each exit status means, of a verification, of the doctor and of a fleet."""
    verdicts: tuple[Status, ...] = ("PASS", "FAIL", "INCONCLUSIVE")
    ended: dict[str, Callable[[Status], int]] = {
        "`pytest benchmarks`": partial(pytest_exit_status, pytest_status=0, fail_inconclusive=False),
        "`pytest benchmarks --fail-inconclusive`": partial(pytest_exit_status, pytest_status=0, fail_inconclusive=True),
        "`python -m alexnet_repro doctor`": exit_status,
        "`python -m alexnet_repro fleet results`": exit_status,
    }
    rows = [[name, *(str(status(each)) for each in verdicts)] for name, status in ended.items()]
    codes = (
        (pytest.ExitCode.INTERRUPTED, "interrupted by Ctrl-C"),
        (pytest.ExitCode.INTERNAL_ERROR, "an error within pytest"),
        (pytest.ExitCode.USAGE_ERROR, "wrong options, or a backend that can't be used"),
        (pytest.ExitCode.NO_TESTS_COLLECTED, "nothing was selected"),
    )
    others = [[str(code.value), meaning] for code, meaning in codes]
    others.append(["128 + N", "ended by signal N, as 143 by SIGTERM"])
    return (
        table(["command", *verdicts], rows)
        + "\n\n`pytest benchmarks` besides:\n\n"
        + table(["status", "meaning"], others)
        + "\n\nWrong arguments of `python -m alexnet_repro` end with 2, a failed command with 1."
    )


def pytest_options() -> str:
    """Return the options of the root's conftest.py, but for hidden ones."""
    spec = importlib.util.spec_from_file_location("conftest_of_the_root", ROOT / "conftest.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    options = pytest.Parser(_ispytest=True)
    module.pytest_addoption(options)
    group = options.getgroup("alexnet-repro")
    return table(("option", "meaning"), filter(None, (_row(each.attrs(), each.names()) for each in group.options)))


def commands() -> str:
    """Return each command of the command line with its options."""
    (subs,) = (each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001
    texts = []
    for name, sub in subs.choices.items():
        rows = [_row(vars(each), each.option_strings) for each in sub._actions]  # noqa: SLF001
        texts.append(
            f"### {name}\n\n{_sentence(sub.description)}\n\n{table(('option', 'meaning'), filter(None, rows))}"
        )
    return "\n\n".join(texts)


def _sentence(text: str | None) -> str:
    """Return the first line of a description, as a sentence."""
    line = (text or "").partition("\n")[0]
    return f"{line[:1].upper()}{line[1:].removesuffix('.')}."


def _row(option: dict[str, Any], names: Iterable[str]) -> list[str] | None:
    """Return an option's name, with what it takes, and its help; None if it is hidden or the help itself."""
    name, meaning = next(iter(names), ""), option.get("help") or ""
    if meaning == argparse.SUPPRESS or name == "-h":
        return None
    choices = [f"`{each}`" for each in option.get("choices") or ()]
    takes = option.get("metavar") or ("…" if choices else "")
    meaning = meaning.replace("%(default)s", str(option.get("default"))).replace("%%", "%")
    return [
        f"`{name}={takes}`" if name and takes else f"`{name or takes}`",
        "; ".join(filter(None, (", ".join(choices), meaning))),
    ]


def correct() -> str:
    """Return the checks of the group correct, and what must pass before each."""
    rows = [
        [f"`{name}`", promise(check.run), "yes" if check.in_each_precision else "", _code(check.depends_on)]
        for name, check in CORRECT.items()
    ]
    own = [["`gpu_to_gpu_copies`", f"{promise(_tests('correct')['test_copies_between_gpus'])} Two GPUs.", "", ""]]
    return table(("check", "promise", "each precision", "needs"), [*rows, *own])


def judged() -> str:
    """Return how a timing is judged."""
    return table(("check", "promise"), ([f"`{name}`", promise(getattr(timing, name))] for name in JUDGED))


def of_modules(names: Iterable[str]) -> str:
    """Return the tests of these modules of `benchmarks`, each with the question of its module where it has one test."""
    rows = []
    for module in (name for name in names if (ROOT / f"benchmarks/test_{name}.py").exists()):
        tests = _tests(module)
        rows += [
            [f"`{name.removeprefix('test_')}`", promise(test if len(tests) > 1 else _module(module))]
            for name, test in tests.items()
        ]
    return table(("name", "what it answers or promises"), rows)


def doctor() -> str:
    """Return the doctor's checks in their order."""
    checks = (*MACHINE_CHECKS, *DRIVER_CHECKS, cuda_software.driver_version, cuda_software.libraries, *LAST_CHECKS)
    return table(("check", "promise"), ([f"`{each.__name__}`", promise(each)] for each in checks))


def of_results(name: str) -> str:
    """Return the fields of a part of results.json, of which the schema has this name."""
    part = results_schema()["$defs"][name]
    needed = part.get("required", ())
    rows = []
    for field, each in part["properties"].items():
        kinds = [each, *each.get("anyOf", ())]
        words = [_kind(kind) for kind in kinds if _kind(kind)]
        rows.append([f"`{field}`", " or ".join(words), "yes" if field in needed else "", each.get("description", "")])
    return table(("field", "type", "always", "meaning"), rows)


def _kind(schema: dict[str, Any]) -> str:
    """Return a field's type in words; empty where it is one of several."""
    if reference := schema.get("$ref"):
        return f"`{reference.rpartition('/')[2]}`"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    return str(schema.get("type", ""))


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.test_{name}")


def _tests(name: str) -> dict[str, Any]:
    members = vars(_module(name)).items()
    return {name: each for name, each in members if name.startswith("test_") and inspect.isfunction(each)}


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


TABLES: dict[str, Callable[[], str]] = {
    "exit": exits,
    "pytest": pytest_options,
    "commands": commands,
    "correct": correct,
    "repeatable": partial(of_modules, REPEATABLE),
    "judged": judged,
    "timed": partial(of_modules, TIMED),
    "reference": partial(of_modules, REFERENCE),
    "doctor": doctor,
    "run": partial(of_results, RunFields.__name__),
    "machine": partial(of_results, MachineFields.__name__),
    "device": partial(of_results, DeviceInventory.__name__),
}
SCHEMAS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "fleet.schema.json": fleet_schema,
    "results.schema.json": results_schema,
}
MARKED = re.compile(r"(?<=<!-- table: )(\w+)( -->\n).*?(?=<!-- /table -->)", re.DOTALL)


def renewed(text: str) -> str:
    """Return a page's text with its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{found[2]}\n{TABLES[found[1]]()}\n\n", text)


def schema_text(name: str) -> str:
    """Return the text of a JSON Schema of the documents."""
    return json.dumps(SCHEMAS[name](), indent=1) + "\n"


def pages() -> list[Path]:
    """Return the documents."""
    return sorted((ROOT / "docs").rglob("*.md"))


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT), file=sys.stderr)


if __name__ == "__main__":
    for page in pages():
        _write(page, renewed(page.read_text(encoding="utf-8")))
    for schema in SCHEMAS:
        _write(ROOT / "docs" / schema, schema_text(schema))
