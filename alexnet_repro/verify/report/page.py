"""The files that report on a run: a page that opens offline, its drawings, a summary for CI; and on two runs."""

import functools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alexnet_repro.files import atomic_write
from alexnet_repro.verify.report import cards, curves, drawing, plots, tables
from alexnet_repro.verify.report import text as wording
from alexnet_repro.verify.report.compare_runs import Comparison
from alexnet_repro.verify.report.fixes import steps
from alexnet_repro.verify.report.run_record import UNPRINTABLE, RunRecord

# What a page shows of a run that is larger than any real one; the rest is in results.json.
MAX_TIMINGS, MAX_TASKS, MAX_TASKS_IN_SUMMARY, MAX_LINES = 2000, 30, 8, 200
UNFOLDED = 2  # drawings of throughput that aren't folded


def write_report(record: RunRecord, folder: Path) -> list[Path]:
    """Write a run's `report.html`, `summary.md` and drawings; return their paths. OSError names what isn't written."""
    found, timings = [each for group in record.findings.values() for each in group], record.timings[:MAX_TIMINGS]
    drawings = {
        "throughput": plots.throughput(timings, record.invalid),
        "rooflines": plots.rooflines(timings, record.calibrations, record.invalid),
        "references": plots.against_reference(found),
        "steps": plots.step_times(timings),
        "curves": curves.learning_curves(found),
    }
    passed = {name: [each for each in group if each.status == "PASS"] for name, group in record.findings.items()}
    content = {"drawings": drawings, "record": record, "passed": passed}
    texts = {name: _rendered(name, content) for name in ("report.html", "summary.md")}
    return _write(folder, texts | {f"{each.name}.svg": each.standalone for kind in drawings.values() for each in kind})


def write_comparison(first: RunRecord, second: RunRecord, compared: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.md` and `comparison.json`, and return their paths; OSError names what isn't written."""
    here, there = (dict(wording.facts(each.machine)) for each in (first, second))
    pairs = [(name, here.get(name, "not recorded"), there.get(name, "not recorded")) for name in here | there]
    differences = [(name, one, other) for name, one, other in pairs if one != other]
    runs, table = {"A": first, "B": second}, tables.comparison_table(compared)
    content = {"runs": runs, "table": table, "only": compared.only, "differences": differences}
    data = {
        **{name: {"path": str(each.path), "verdict": each.verdict, "run": each.run} for name, each in runs.items()},
        "cases": [
            {
                "case": each.first.case,
                "seconds": {"A": _finite(each.first.median), "B": _finite(each.second.median)},
                "ratio": _finite(each.ratio),
                "interval": [_finite(each.low), _finite(each.high)],
                "result": each.result,
            }
            for each in compared.ratios
        ],
        "only": compared.only,
        "machines": {name: {"A": one, "B": other} for name, one, other in differences},
    }
    texts = {"comparison.md": _rendered("comparison.md", content), "comparison.json": json.dumps(data, indent=1) + "\n"}
    return _write(folder, texts)


def report_line(record: RunRecord) -> str:
    """Report on a run beside its results, and return the line with the page's path, or the error; never raises."""
    try:
        return f"report: {write_report(record, record.path.parent)[0]}"
    except Exception as error:  # noqa: BLE001 - a run's outcome doesn't depend on how it is drawn
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        return f"report: none; {reason}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    for file, text in texts.items():
        atomic_write(folder / file, UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text))
    return [folder / file for file in texts]


def _rendered(name: str, content: Mapping[str, Any]) -> str:
    text: str = _template(name).render(content)
    return text


@functools.cache
def _template(name: str) -> jinja2.Template:
    return page_template(
        name,
        loader=jinja2.PackageLoader("alexnet_repro.verify.report"),
        wording=wording,
        tables=tables,
        cards=cards,
        MAX_DRAWINGS=drawing.MAX_DRAWINGS,
        UNFOLDED=UNFOLDED,
        MAX_TASKS=MAX_TASKS,
        MAX_TASKS_IN_SUMMARY=MAX_TASKS_IN_SUMMARY,
        MAX_LINES=MAX_LINES,
        WORDS=tables.WORDS,
        LONG_WORDS=tables.LONG_WORDS,
    )


def page_template(name: str, loader: jinja2.BaseLoader, file: str = "results.json", **known: Any) -> jinja2.Template:
    """Return a template that escapes whatever comes from a file by default; `file` has what a page is too short for."""
    html = name.endswith(".html")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=html,  # noqa: S701 - Markdown has rules of its own, of `finalize`
        finalize=None if html else _markdown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(known, signs=wording.SIGNS, steps=steps, FILE=file, MAX_TIMINGS=MAX_TIMINGS)
    environment.globals.update(short=functools.partial(cards.short, file=file))
    environment.filters["code"] = _code
    return environment.get_template(name)


def _markdown(value: Any) -> str:
    """Return a text in which no character means anything to Markdown or HTML, on one line."""
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]()#+!|~$@])", r"\\\1", text)
    text = re.sub(r"^([-=])", r"\\\1", text)  # a rule, a heading's line, an item
    return re.sub(r"^(\d+)\.(?=\s|$)", r"\1\\.", text)


def _code(text: str) -> Markup:
    """Return code, whatever is in it, within a line of Markdown."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if "`" in text else ""
    return Markup(f"{fence}{padding}{' '.join(text.split())}{padding}{fence}")  # noqa: S704 - of Markdown
