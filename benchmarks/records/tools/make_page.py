"""Write benchmarks/records/README.md: what the document prints and claims, beside what the records there measured.

A record is made by `python -m alexnet_repro train … --record=benchmarks/records/NAME`; the page has the commands of
those that are missing. The same records give the same page, to the byte. Its text is in page.md.jinja.
"""

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import jinja2

from alexnet_repro import documented
from alexnet_repro.files import atomic_write
from alexnet_repro.verify.report.training_record import read_records
from benchmarks.records.tools import bands, claims, combinations, passing, runs
from benchmarks.records.tools.runs import ON_GPU, RUNS, Record, Records, evaluated

ROOT = Path(__file__).parents[3]
PAGE = ROOT / runs.FOLDER / "README.md"
TEMPLATE = Path(__file__).with_name("page.md.jinja")
HEADER = ("what", "the document", "measured", "band at 95 %", "verdict")
SOFTMAX = "documented_softmax"
LONG = ("documented", SOFTMAX)
# Source: github.com/zalandoresearch/fashion-mnist, labels 0 to 9.
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def page(records: Records) -> str:
    """Return the page; ValueError: a record is of another training than its name says."""
    runs.check(records)
    name = runs.documented_run(records)
    main, softmax, older = _figures(records, name), _figures(records, SOFTMAX), None
    if name in ON_GPU and (run := records.get("documented")):
        title = f"The same in {run['precision']} on {_device(run)}, not counted above"
        older = {**_figures(records, "documented"), "title": title}
    text, layers, others = claims.claims(records), claims.layer_table(records), claims.others(records)
    counts = Counter(each.verdict for each in [*text, *layers, *others, *main["figures"], *softmax["figures"]])
    verdicts = (bands.REPRODUCED, bands.NOT_REPRODUCED, bands.INCONCLUSIVE, claims.NOT_RUN)
    environment = jinja2.Environment(  # noqa: S701 - Markdown; `_text` escapes what records say
        trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"table": _table, "claims": _claims, "by_epoch": _by_epoch, "text": _text, "device": _device}
    environment.filters |= {"packages": _packages, "mistake": _mistake}
    environment.globals |= {"bands": bands, "combinations": combinations, "runs": runs}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        verdicts=", ".join(f"{counts[each]} {each}" for each in verdicts if counts[each]),
        main=main,
        passing=_passing(main["runs"]) if name in ON_GPU else None,
        older=older,
        softmax=softmax,
        others=others,
        layers=layers,
        of_the_text=text,
        seeds=list(_seeds(records)),
        records=records,
        names=list(dict.fromkeys((*RUNS, *records))),
        shown=[each for each in (name, SOFTMAX) if each in records],
        long=LONG,
        classes=CLASSES,
    )


def _table(rows: Iterable[Sequence[str]], *header: str) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell or '–' for cell in line)} |" for line in lines)


def _claims(rows: Sequence[claims.Claim]) -> str:
    """Return claims as a table, without the columns that none of them fills."""
    lines = [(row.what, row.says, row.measured, row.band, f"**{row.verdict}**: {row.why}") for row in rows]
    filled = [n for n in range(len(HEADER)) if any(line[n] for line in lines)]
    return _table([[line[n] for n in filled] for line in lines], *(HEADER[n] for n in filled))


def _figures(records: Records, name: str) -> dict[str, Any]:
    """Return the printed figures beside a run's, and the runs whose learning curves are shown."""
    found = [each for each in runs.same_but_seed(records, name) if runs.after_epochs(each)]
    title = f"`{name}`: `{RUNS[name].loss}`, what the document trained"
    if name in ON_GPU:
        run, seeds = records[name], f"{len(found)} seeds" if len(found) > 1 else "one seed"
        title = f"The document's own program on {_device(run)}: `{run['recipe']['loss']}`, {run['precision']}, {seeds}"
    shown = found[: None if name in ON_GPU else 1]
    return {"title": title, "figures": claims.printed(records, name), "runs": shown}


def _by_epoch(trained: Sequence[Record]) -> str:
    ends = list(zip(*map(runs.after_epochs, trained), strict=True))
    means = [[statistics.fmean(each[n] for each in found) for n in ("accuracy", "loss")] for found in ends]
    of = f", means of {len(trained)} seeds" if len(trained) > 1 else ""
    found = ", ".join(f"{accuracy:.4f} ({loss:.4f})" for accuracy, loss in means)
    return f"After each epoch, on all 10,000 test images, accuracy and loss{of}: {found}."


def _passing(trained: Sequence[Record]) -> Mapping[str, str]:
    """Return after how many updates the curves pass through both printed figures, and where both are reproduced."""

    def text(updates: float) -> str:
        epochs = passing.epochs(updates, trained[0]["recipe"])
        return f"{updates:,.0f} ({epochs:.2f})" if math.isfinite(updates) else "never"

    found = [passing.passed(run) for run in trained]
    lines = [(f"seed {seed}", text(accuracy), text(loss)) for seed, accuracy, loss in found]
    if len(trained) > 1:
        _, *columns = zip(*found, strict=True)
        lines.append(("median", *(text(statistics.median(each)) for each in columns)))
        lines.append(("least to most", *(f"{text(min(each))} to {text(max(each))}" for each in columns)))
    header = (f"accuracy reaches {documented.TEST_ACCURACY}", f"loss falls to {documented.TEST_LOSS}")
    both = [f"{text(first)} to {text(last)} updates" for first, last in passing.both_reproduced(trained)]
    where = f"Both are reproduced at once from {', and from '.join(both)}." if both else "Nowhere are both reproduced."
    sentences = [*_order([accuracy - loss for _, accuracy, loss in found]), where]
    return {"table": _table(lines, "updates (epochs)", *header), "sentences": " ".join(sentences)}


def _order(later: Sequence[float]) -> Iterator[str]:
    """Yield which figure is passed first, from by how many updates accuracy is later than the loss, one per seed."""
    known = sorted((each for each in later if math.isfinite(each)), key=abs)
    if known and min(known) < 0 < max(known):
        yield f"Accuracy comes between {-min(known):,.0f} updates before and {max(known):,.0f} after the loss."
    elif known:
        by = " to ".join(dict.fromkeys(f"{abs(each):,.0f}" for each in (known[0], known[-1])))
        yield f"Accuracy comes {by} updates {'after' if known[0] > 0 else 'before'} the loss."


def _seeds(records: Records) -> Iterator[str]:
    """Yield a line for each recipe and precision that `quick` was trained in, by several seeds or in a planned run."""
    names = [name for name, run in RUNS.items() if run.recipe == "quick"]
    names += [name for name in records if name.startswith("quick_seed")]  # of the recipe before
    groups: dict[tuple[str, str], list[Record]] = {}
    for run in (records[name] for name in names if name in records):
        groups.setdefault((runs.earlier(run), run["precision"]), []).append(run)
    for (earlier, precision), trained in groups.items():
        shares = [run["final"]["accuracy"] for run in trained]
        seeds, found = ", ".join(str(run["seed"]) for run in trained), ", ".join(f"{each:.4f}" for each in shares)
        recipe = f"`quick` as it was before, {earlier}," if earlier else "`quick`"
        line = f"{recipe} on all 10,000 test images, {precision}, seed{'s' * (len(shares) > 1)} {seeds}: {found}"
        if len(shares) > 1:
            low, high = bands.band(shares, 0.0).ends
            mean, deviation = statistics.fmean(shares), statistics.stdev(shares)
            line += f"; mean {mean:.4f}, standard deviation {deviation:.4f}"
            line += f" (mean - 3 standard deviations: {mean - 3 * deviation:.4f})"
            line += f"; one more seed would lie from {low:.4f} to {high:.4f} (Student's, n = {len(shares)})"
        yield line
    if missing := [f"`{name}`" for name in names if name not in records]:
        yield f"**{claims.NOT_RUN}**: {', '.join(missing)}"


def _packages(record: Record) -> str:
    known, on_gpu = record["environment"]["packages"], record["environment"]["gpus"]
    names = [each for each in ("tensorflow", "keras", "numpy") if each in known]
    names += [each for each in known if on_gpu and each.startswith(("nvidia-cublas", "nvidia-cudnn"))]
    return ", ".join(f"{each} {known[each]}" for each in names)


def _mistake(record: Record) -> str:
    """Return the label that is most often taken for another, and how often."""
    confusion = evaluated(record)["confusion"]
    pairs = permutations(range(len(CLASSES)), 2)
    label, answer = max(pairs, key=lambda pair: (confusion[pair[0]][pair[1]], pair))
    wrong = f"{confusion[label][answer]:,} of {sum(confusion[label]):,}"
    return f"{CLASSES[label]} taken for {CLASSES[answer]}, {wrong}"


def _device(record: Record) -> str:
    return _text(", ".join(record["environment"]["gpus"]) or record["environment"]["cpu"])


def _text(text: str) -> str:
    """Return a text of a record as Markdown in which it means nothing but itself."""
    return " ".join(text.split()).rstrip(".").translate({ord(each): f"\\{each}" for each in r"\`*_[]<>|"})


def main() -> int:
    """Write the page; return the exit status: 1 if a record is of another training than its name says."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        atomic_write(PAGE, page(read_records(PAGE.parent)))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
