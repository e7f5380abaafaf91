"""The report of a run: one page that opens offline, the same as Markdown for a CI's summary, and the drawings."""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from alexnet_repro.files import atomic_write
from alexnet_repro.verify.report import curves, plots, series, side_by_side
from alexnet_repro.verify.report import roofline_plot as roofline
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.compare_runs import MIN_ROUNDS, Comparison
from alexnet_repro.verify.report.drawing import Drawing
from alexnet_repro.verify.report.read import Results, read_results

FEW = 8  # drawings of one kind; more are folded away


def write_report(results: Results, folder: Path) -> list[Path]:
    """Write `report.html`, `report.md` and the drawings of a run, and return their paths, the page's first.

    Raises:
        OSError: one can't be written; the message names it.
    """
    found = [each for group in results.findings.values() for each in group]
    drawings = {
        "throughput": plots.throughput(results.timings),
        "rooflines": roofline.rooflines(results.timings, results.rates),
        "references": plots.against_reference(found),
        "steps": series.step_times(results.timings),
        "curves": curves.learning(found),
    }
    said = {
        "groups": wording.groups(results),
        "unwell": wording.unwell(results),
        "not_run": [group for group, found in results.findings.items() if not found],
        "improvable": wording.improvable(results),
        "facts": list(wording.facts(results.machine)),
        "rows": wording.rows(results),
        "costs": wording.costs(results),
        "devices": side_by_side.device_rows(results.findings.get("fast", ())),
        "together": side_by_side.together_rows(results.findings.get("fast", ())),
        "few": FEW,
    }
    every = [drawing for kind in drawings.values() for drawing in kind]
    return _write(folder, "report", {"results": results, **said, **drawings}, every)


def write_comparison(first: Results, second: Results, compared: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.html`, `comparison.md` and their drawing, and return their paths, the page's first.

    Raises:
        OSError: one can't be written; the message names it.
    """
    here, there = (dict(wording.facts(each.machine)) for each in (first, second))
    drawings = plots.ratios(compared.ratios)
    said = {
        "runs": [("A", first), ("B", second)],
        "facts": [(name, here.get(name, "not recorded"), there.get(name, "not recorded")) for name in here | there],
        "unwell": [(name, wording.unwell(each)) for name, each in (("A", first), ("B", second))],
        "compared": compared,
        "only": [("A", compared.only_first), ("B", compared.only_second)],
        "drawings": drawings,
        "fewest": MIN_ROUNDS,
    }
    return _write(folder, "comparison", said, drawings)


def report_line(path: Path) -> str:
    """Report on a results file beside it, and return the line that says where, or why not; never an exception."""
    try:
        return f"report: {write_report(read_results(path), path.parent)[0]}"
    except Exception as error:  # noqa: BLE001 - a run's outcome doesn't hang on how it is drawn
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return f"report: none; {reason}"


def _write(folder: Path, name: str, said: dict[str, Any], drawings: Sequence[Drawing]) -> list[Path]:
    texts = {f"{each.name}.svg": each.alone for each in drawings}
    texts = {
        f"{name}.{kind}": _templates(kind).get_template(f"{name}.{kind}").render(said) for kind in ("html", "md")
    } | texts
    for file, text in texts.items():
        atomic_write(folder / file, text)
    return [folder / file for file in texts]


@cache
def _templates(kind: str) -> jinja2.Environment:
    """Return the templates of a kind, in which whatever comes from a file is escaped, without their asking for it."""
    finalize: Callable[[Any], Any] | None = _markdown if kind == "md" else None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("alexnet_repro.verify.report"),
        autoescape=kind == "html",  # noqa: S701 - Markdown has rules of its own, of `finalize`
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(wording=wording, signs=wording.SIGNS)
    environment.filters["fenced"] = _fenced
    return environment


class _Raw(str):
    """Markdown that is meant to be."""

    __slots__ = ()


def _markdown(value: Any) -> str:
    """Return a text in which no character means anything to Markdown or HTML, on one line."""
    if isinstance(value, _Raw):
        return value
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", text)
    text = re.sub(r"^([-=])", r"\\\1", text)  # a rule, a heading's line, an item
    return re.sub(r"^(\d+)\.(?=\s|$)", r"\1\\.", text)


def _fenced(text: str) -> _Raw:
    """Return a block of code, whatever is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return _Raw(f"{fence}\n{text}\n{fence}")
