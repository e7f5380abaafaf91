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
from pathlib import Path
from typing import Any

import jinja2

from alexnet_repro import documented
from alexnet_repro.files import atomic_write
from alexnet_repro.verify.report.training_record import CURVE, RECORD, read_records
from benchmarks.records.tools import combinations as combined
from benchmarks.records.tools.bands import INCONCLUSIVE, MAX_BANDS, NOT_REPRODUCED, REPRODUCED, band
from benchmarks.records.tools.claims import NOT_RUN, Claim, claims, layer_table, others, printed
from benchmarks.records.tools.passing import both_reproduced, epochs, passed
from benchmarks.records.tools.runs import (
    FOLDER,
    LOSSES,
    ON_GPU,
    RUNS,
    Record,
    Records,
    after_epochs,
    check,
    documented_run,
    evaluated,
    same_but_seed,
)

ROOT = Path(__file__).parents[3]
PAGE = ROOT / FOLDER / "README.md"
TEMPLATE = Path(__file__).with_name("page.md.jinja")
HEADER = ("what", "the document", "measured", "band at 95 %", "verdict")
SOFTMAX = "documented_softmax"
LONG = ("documented", SOFTMAX)
# Source: github.com/zalandoresearch/fashion-mnist, labels 0 to 9.
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def page(records: Records) -> str:
    """Return the page.

    Raises:
        ValueError: a record is of another training than its name says.
    """
    check(records)
    name, found = documented_run(records), combined.combinations(records)
    main, softmax = _figures(records, name), _figures(records, SOFTMAX)
    known = {"of_the_text": claims(records), "layers": layer_table(records), "others": others(records)}
    counts = Counter(each.verdict for rows in (*known.values(), main["figures"], softmax["figures"]) for each in rows)
    verdicts = (REPRODUCED, NOT_REPRODUCED, INCONCLUSIVE, NOT_RUN)
    names = [*RUNS, *(each for each in records if each not in RUNS)]
    environment = jinja2.Environment(  # noqa: S701 - Markdown; `_text` escapes what records say
        trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"table": _table, "claims": _claims, "by_epoch": _by_epoch}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        **known,
        verdicts=", ".join(f"{counts[each]} {each}" for each in verdicts if counts[each]),
        max_bands=MAX_BANDS,
        main=main,
        passing=_passing(main["runs"]) if name in ON_GPU else None,
        older=_older(records) if name in ON_GPU and "documented" in records else None,
        softmax=softmax,
        losses=[
            (f"`{each}`", *(f"{evaluated(records[each])['losses'][loss]:.4f}" for loss in LOSSES))
            for each in LONG
            if each in records
        ],
        combinations=[_combination(*key, each) for key, each in found.items()],
        unlike=combined.unlike(found),
        effects=combined.effects(found),
        seeds=list(_seeds(records)),
        runs=[_run(each, records.get(each)) for each in names],
        confusions={
            each: [(CLASSES[n], *map(str, row)) for n, row in enumerate(evaluated(records[each])["confusion"])]
            for each in (name, SOFTMAX)
            if each in records
        },
        curve=CURVE,
        classes=CLASSES,
        details=[line for each in names for line in _details(each, records.get(each))],
    )


def _table(rows: Iterable[Sequence[str]], *header: str) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell or '–' for cell in line)} |" for line in lines)


def _claims(rows: Sequence[Claim]) -> str:
    """Return claims as a table, without the columns that none of them fills."""
    lines = [(row.what, row.says, row.measured, row.band, f"**{row.verdict}**: {row.why}") for row in rows]
    filled = [n for n in range(len(HEADER)) if any(line[n] for line in lines)]
    return _table([[line[n] for n in filled] for line in lines], *(HEADER[n] for n in filled))


def _figures(records: Records, name: str) -> dict[str, Any]:
    """Return the printed figures beside a run's, and the runs whose learning curves are shown."""
    runs = [each for each in same_but_seed(records, name) if after_epochs(each)]
    title = f"`{name}`: `{RUNS[name].loss}`, what the document trained"
    if name in ON_GPU:
        run, seeds = records[name], f"{len(runs)} seeds" if len(runs) > 1 else "one seed"
        title = f"The document's own program on {_device(run)}: `{run['recipe']['loss']}`, {run['precision']}, {seeds}"
    else:
        runs = runs[:1]
    tf32 = bool(runs) and runs[0]["precision"] == "tf32"
    return {"title": title, "figures": printed(records, name), "runs": runs, "tf32": tf32 and name in ON_GPU}


def _older(records: Records) -> dict[str, Any]:
    run = records["documented"]
    title = f"The same in {run['precision']} on {_device(run)}, not counted above"
    return {**_figures(records, "documented"), "title": title}


def _by_epoch(runs: Sequence[Record]) -> str:
    ends = list(zip(*map(after_epochs, runs), strict=True))
    accuracies, losses = ([statistics.fmean(each[n] for each in found) for found in ends] for n in ("accuracy", "loss"))
    means = f", means of {len(runs)} seeds" if len(runs) > 1 else ""
    found = ", ".join(f"{accuracy:.4f} ({loss:.4f})" for accuracy, loss in zip(accuracies, losses, strict=True))
    return f"After each epoch, on all 10,000 test images, accuracy and loss{means}: {found}."


def _passing(runs: Sequence[Record]) -> Mapping[str, str]:
    """Return after how many updates the curves pass through both printed figures, and where both are reproduced."""
    found = [passed(run) for run in runs]
    pairs = [[math.inf if each is None else each for each in (run.accuracy, run.loss)] for run in found]

    def text(updates: float) -> str:
        return f"{updates:,.0f} ({epochs(updates, runs[0]['recipe']):.2f})" if math.isfinite(updates) else "never"

    lines = [(f"seed {run.seed}", *map(text, pair)) for run, pair in zip(found, pairs, strict=True)]
    if len(runs) > 1:
        columns = list(zip(*pairs, strict=True))
        lines.append(("median", *(text(statistics.median(each)) for each in columns)))
        lines.append(("least to most", *(f"{text(min(each))} to {text(max(each))}" for each in columns)))
    header = (f"accuracy reaches {documented.TEST_ACCURACY}", f"loss falls to {documented.TEST_LOSS}")
    table = _table(lines, "updates (epochs)", *header)
    both = [f"{text(first)} to {text(last)} updates" for first, last in both_reproduced(runs)]
    where = f"Both are reproduced at once from {', and from '.join(both)}." if both else "Nowhere are both reproduced."
    sentences = [*_order([accuracy - loss for accuracy, loss in pairs]), where]
    return {"table": table, "sentences": " ".join(sentences)}


def _order(later: Sequence[float]) -> Iterator[str]:
    """Yield which figure is passed first, from by how many updates accuracy is later than the loss, one per seed."""
    known = [each for each in later if math.isfinite(each)]
    if known and (min(known) > 0 or max(known) < 0):
        low, high = sorted((min(map(abs, known)), max(map(abs, known))))
        by = f"{low:,.0f} to {high:,.0f}" if len(known) > 1 else f"{low:,.0f}"
        yield f"Accuracy comes {by} updates {'after' if min(known) > 0 else 'before'} the loss."
    elif known:
        yield f"Accuracy comes between {abs(min(known)):,.0f} updates before and {max(known):,.0f} after the loss."


def _combination(loss: str, size: int, found: combined.Combination | None) -> tuple[str, ...]:
    if found is None:
        name = combined.NAMES[loss, size]
        return (f"`{loss}`", str(size), *[""] * 4, f"**{NOT_RUN}**: [`{name}`](#runs)")
    measured = (f"{found.updates:,}", f"{found.images:,}", f"{found.accuracy:.4f}", f"{found.loss:.4f}")
    return (f"`{loss}`", str(size), *measured, f"[`{found.name}`](#runs){', its first epoch' * (found.name in LONG)}")


def _seeds(records: Records) -> Iterator[str]:
    names = [name for name in RUNS if name.startswith("quick")]
    runs = [records[name] for name in names if name in records]
    for precision in dict.fromkeys(run["precision"] for run in runs):
        of_seed = {run["seed"]: run["final"]["accuracy"] for run in runs if run["precision"] == precision}
        seeds, shares = ", ".join(map(str, of_seed)), list(of_seed.values())
        found = ", ".join(f"{each:.4f}" for each in shares)
        yield f"`quick` on all 10,000 test images, {precision}, seed{'s' * (len(shares) > 1)} {seeds}: {found}"
        if len(shares) > 1:
            low, high = band(shares, 0.0).ends
            yield f"mean {statistics.fmean(shares):.4f}, standard deviation {statistics.stdev(shares):.4f}"
            yield f"one more seed would lie from {low:.4f} to {high:.4f} (Student's, n = {len(shares)})"
    if missing := [f"`{name}`" for name in names if name not in records]:
        yield f"**{NOT_RUN}**: {', '.join(missing)}"


def _run(name: str, record: Record | None) -> tuple[str, ...]:
    if record is None:
        return (f"`{name}`", f"**{NOT_RUN}**", *[""] * 7)
    final, saved, drawn = record["final"], record["saved"], evaluated(record)["document_draw"]["accuracy"]
    accuracies, training = [each["accuracy"] for each in (final, saved) if each], record["training"]
    return (
        f"[`{name}`]({name}/{RECORD})",
        f"{record['precision']}, {record['seed']}",
        _device(record),
        f"{training['images']:,}",
        " / ".join(f"{each:.4f}" for each in accuracies),
        f"{drawn['low']:.4f} to {drawn['high']:.4f}",
        f"{training['seconds'] - training['first_update_seconds']:,.0f} s",
        f"{training['images_per_second']:,.1f}",
        f"[curve]({name}/{CURVE})",
    )


def _details(name: str, record: Record | None) -> Iterator[str]:
    if record is None:
        yield f"- `{name}`: **{NOT_RUN}**: `{RUNS[name].command(name)}`"
        return
    here, confusion = record["environment"], evaluated(record)["confusion"]
    confused = ((n, m) for n in range(len(CLASSES)) for m in range(len(CLASSES)) if n != m)
    label, answer = max(confused, key=lambda pair: (confusion[pair[0]][pair[1]], pair))
    wrong = confusion[label][answer]
    named = [each for each in ("tensorflow", "keras", "numpy") if each in here["packages"]]
    named += [each for each in here["packages"] if here["gpus"] and each.startswith(("nvidia-cublas", "nvidia-cudnn"))]
    packages = ", ".join(f"{each} {here['packages'][each]}" for each in named)
    yield f"- `{name}`: `{record['command']}`"
    yield f"  with {packages}; revision {record['revision']}, {record['recorded']}."
    if record["note"]:
        yield f"  Note: {_text(record['note'])}."
    yield f"  Most often wrong: {CLASSES[label]} taken for {CLASSES[answer]}, {wrong:,} of {sum(confusion[label]):,}."


def _device(record: Record) -> str:
    here = record["environment"]
    return _text(", ".join(here["gpus"]) or here["cpu"])


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
