"""Write benchmarks/records/README.md: what the document prints and claims, beside what the records there measured.

A record is made by `python -m alexnet_repro train … --record=benchmarks/records/NAME`; the page says what to type for
those that are missing. The same records give the same page, to the byte.
"""

import argparse
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alexnet_repro import documented
from alexnet_repro.files import atomic_write
from alexnet_repro.verify.report.training_record import CURVE, RECORD, read_records
from benchmarks.records.tools.bands import NOT_REPRODUCED, REPRODUCED, UNKNOWN, WITHIN_REACH, band
from benchmarks.records.tools.claims import NOT_RUN, Row, claims, layer_table, others, printed
from benchmarks.records.tools.combinations import NAMES, combinations, effects, unlike
from benchmarks.records.tools.passing import both_reproduced, epochs, passed
from benchmarks.records.tools.planned import (
    FOLDER,
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
HEADER = ("what", "the document", "measured", "band at 95 %", "verdict")
RUN_HEADER = (
    *("run", "precision, seed", "on", "images", "accuracy, last / saved", "2,000 drawn: 95 %", "time", "images/s"),
    "curve",
)
LONG = ("documented", "documented_softmax")
# Source: github.com/zalandoresearch/fashion-mnist, labels 0 to 9.
CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

ABOUT = """\
# The record: what the document says, and what was measured

The document is section 5.6 of "Dive into Deep Learning", TensorFlow 2 edition, run there under TensorFlow 2.0.0.
`python -m benchmarks.records.tools.make_page` wrote this page from the `record.json` of each folder here; a test
fails where they
disagree. The document trained in float32; the precision of each run here is in the [table of runs](#runs)."""

BANDS = f"""\
A band is where the same thing done once more lies 19 times of 20. For accuracy it is the binomial spread of 2,000
images drawn with replacement (1.96 standard deviations), for a test loss the spread of 1,000 such draws, for the
first draw that of the draws of 128 that were made and one more (its loss: Student's, of their updates). Where several
seeds were run, what test figures differ by comes on top, as Student's interval for one more seed. A figure inside its
band is reproduced; where a few seeds make the band over {WITHIN_REACH} times as wide, it can't be told. Nor can, of one
seed, a figure outside its band but within {WITHIN_REACH}: seeds differ, by how much one doesn't tell. Test figures
are of the weights that the document evaluates too: those saved at iteration 460 of the last epoch."""

TWO_OBJECTIVES = """\
The document puts a sigmoid under `sparse_categorical_crossentropy`, which expects shares that add up to 1. TensorFlow
2.0.0 divided the sigmoids by their sum: the loss was `−log(σ(z_y) / Σ σ(z_j))`, here `normalised_sigmoid`. Keras 3 on
TensorFlow finds what went into the sigmoid and takes `−log softmax(z)_y` instead, here `softmax`: the same code trains
another objective today."""

PASSING = """\
After how many updates does the curve pass through both printed figures? In brackets: epochs of the document's five, of
1,872 updates each, after the first draw's 4. Between what was measured on all 10,000 test images it is a straight line;
both are reproduced where both are inside the bands above, drawn after so many updates (what 2,000 images add to the
loss: of the weights that were evaluated)."""

TF32 = """\
`tf32` is Keras's float32 with products in TensorFloat-32, TensorFlow's default there: what the document's code computes
in today on such a GPU."""

HIDDEN_BATCH = """\
`fit` is called on each draw of 128 without a batch size, and its default is 32: a draw is four updates, an epoch 1,872
instead of 468, and the first loss that is printed is a mean over four. With `--batch-size=128` a draw is one update.
Each row below has seen the same images: one epoch, and the draw before it. Its loss is the one it was trained on."""


def page(records: Records) -> str:
    """Return the page.

    Raises:
        ValueError: a record is of another training than its name says.
    """
    check(records)
    main = documented_run(records)
    tables = {
        _title(records, main): printed(records, main),
        "`documented_softmax`: what the same code trains today": printed(records, "documented_softmax"),
        "Beside the training": others(records),
    }
    rows, of_layers = claims(records), layer_table(records)
    counts = Counter(row.verdict for row in [*rows, *of_layers, *(row for table in tables.values() for row in table)])
    told = [f"{counts[each]} {each}" for each in (REPRODUCED, NOT_REPRODUCED, UNKNOWN, NOT_RUN) if counts[each]]
    blocks = [ABOUT, f"Of its figures and claims: **{', '.join(told)}**.", BANDS, "## Printed figures"]
    for (title, table), name in zip(tables.items(), (main, "documented_softmax", ""), strict=True):
        blocks += [f"### {title}", _verdicts(table)]
        blocks += _while_training(records, name) if name in records else []
    blocks += [*_folded("The layer table, 14 rows", _verdicts(of_layers)), "## Claims of the text", _verdicts(rows)]
    blocks += ["## One program, two objectives, and `fit`'s hidden batch of 32", *_objectives(records)]
    blocks += ["## Seeds", _seeds(records), "## Runs", *_runs(records)]
    return "\n\n".join(blocks) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell or '–' for cell in line)} |" for line in lines)


def _verdicts(rows: Sequence[Row]) -> str:
    """Return rows as a table, without the columns that none of them fills."""
    lines = [(row.what, row.says, row.measured, row.band, f"**{row.verdict}**: {row.why}") for row in rows]
    filled = [n for n in range(len(HEADER)) if any(line[n] for line in lines)]
    return _table([HEADER[n] for n in filled], [[line[n] for n in filled] for line in lines])


def _title(records: Records, name: str) -> str:
    if name not in ON_GPU:
        return f"`{name}`: `{RUNS[name].loss}`, what the document trained"
    run, count = records[name], len(same_but_seed(records, name))
    seeds = f"{count} seeds" if count > 1 else "one seed"
    return f"The document's own program on {_device(run)}: `{run['recipe']['loss']}`, {run['precision']}, {seeds}"


def _while_training(records: Records, name: str) -> Iterator[str]:
    """Yield what the weights came to while they were trained, to see where the printed figures would lie."""
    if name not in ON_GPU:
        yield _by_epoch([records[name]])
        return
    runs = [each for each in same_but_seed(records, name) if after_epochs(each)]
    yield from [TF32] * (runs[0]["precision"] == "tf32")
    yield _by_epoch(runs)
    yield from _passing(runs)
    if "documented" in records:
        old = records["documented"]
        title = f"The same in {old['precision']} on {_device(old)}, not counted above"
        yield from _folded(title, _verdicts(printed(records, "documented")), _by_epoch([old]))


def _by_epoch(runs: Sequence[Record]) -> str:
    told = [[f"{statistics.fmean(each[what] for each in epoch):.4f}" for what in ("accuracy", "loss")]
            for epoch in zip(*map(after_epochs, runs), strict=True)]  # fmt: skip
    means = f", means of {len(runs)} seeds" if len(runs) > 1 else ""
    found = ", ".join(f"{accuracy} ({loss})" for accuracy, loss in told)
    return f"After each epoch, on all 10,000 test images, accuracy and loss{means}: {found}."


def _passing(runs: Sequence[Record]) -> Iterator[str]:
    """Yield after how many updates the curves pass through both printed figures, and what follows."""
    found = [passed(run) for run in runs]
    pairs = [[math.inf if each is None else each for each in (run.accuracy, run.loss)] for run in found]

    def told(updates: float) -> str:
        return f"{updates:,.0f} ({epochs(updates, runs[0]['recipe']):.2f})" if math.isfinite(updates) else "never"

    lines = [(f"seed {run.seed}", *map(told, pair)) for run, pair in zip(found, pairs, strict=True)]
    if len(runs) > 1:
        columns = list(zip(*pairs, strict=True))
        lines.append(("median", *(told(statistics.median(each)) for each in columns)))
        lines.append(("least to most", *(f"{told(min(each))} to {told(max(each))}" for each in columns)))
    yield PASSING
    header = (f"accuracy reaches {documented.TEST_ACCURACY}", f"loss falls to {documented.TEST_LOSS}")
    yield _table(("updates (epochs)", *header), lines)
    both = [f"{told(first)} to {told(last)} updates" for first, last in both_reproduced(runs)]
    where = f"Both are reproduced at once from {', and from '.join(both)}." if both else "Nowhere are both reproduced."
    yield " ".join([*_order([accuracy - loss for accuracy, loss in pairs]), where])


def _order(later: Sequence[float]) -> Iterator[str]:
    """Yield which figure is passed first, from by how many updates accuracy is later than the loss, a seed each."""
    known = [each for each in later if math.isfinite(each)]
    if known and (min(known) > 0 or max(known) < 0):
        low, high = sorted((min(map(abs, known)), max(map(abs, known))))
        by = f"{low:,.0f} to {high:,.0f}" if len(known) > 1 else f"{low:,.0f}"
        yield f"Accuracy comes {by} updates {'after' if min(known) > 0 else 'before'} the loss."
    elif known:
        yield f"Accuracy comes between {abs(min(known)):,.0f} updates before and {max(known):,.0f} after the loss."


def _folded(title: str, *blocks: str) -> list[str]:
    return [f"<details><summary>{title}</summary>", *blocks, "</details>"]


def _objectives(records: Records) -> Iterator[str]:
    yield TWO_OBJECTIVES
    both = [evaluated(records[name]) for name in LONG if name in records]
    if both:
        lines = [
            (f"`{name}`", *(f"{found['losses'][loss]:.4f}" for loss in ("normalised_sigmoid", "softmax")))
            for name, found in zip([name for name in LONG if name in records], both, strict=True)
        ]
        yield "One and the same weights on the 10,000 test images, by each loss:"
        yield _table(("weights of", "`normalised_sigmoid` loss", "`softmax` loss"), lines)
    yield HIDDEN_BATCH
    found = combinations(records)
    lines = []
    for (loss, size), each in found.items():
        if each is None:
            lines.append((f"`{loss}`", str(size), *[""] * 4, f"**{NOT_RUN}**: [`{NAMES[loss, size]}`](#runs)"))
        else:
            measured = (f"{each.accuracy:.4f}", f"{each.test_loss:.4f}")
            record = f"[`{each.name}`](#runs){', its first epoch' if each.name in LONG else ''}"
            lines.append((f"`{loss}`", str(size), f"{each.updates:,}", f"{each.images:,}", *measured, record))
    header = ("loss", "images an update", "updates", "images seen", "accuracy on 10,000", "its loss", "record")
    yield _table(header, lines)
    if other := unlike(found):
        yield f"These differ in {', '.join(other)} as well, so that nothing follows from them."
    elif changes := effects(found):
        yield "\n".join(f"- {each}." for each in changes)
        yield "One seed each: what another seed changes is not in these bounds."


def _seeds(records: Records) -> str:
    names = [name for name in RUNS if name.startswith("quick")]
    runs = [records[name] for name in names if name in records]
    said = []
    for precision in dict.fromkeys(run["precision"] for run in runs):
        seeds, shares = zip(
            *((run["seed"], run["final"]["accuracy"]) for run in runs if run["precision"] == precision), strict=True
        )
        told = f"{'seeds' if len(seeds) > 1 else 'seed'} {', '.join(map(str, seeds))}"
        found = ", ".join(f"{each:.4f}" for each in shares)
        said.append(f"`quick` on all 10,000 test images, {precision}, {told}: {found}")
        if len(shares) > 1:
            low, high = band(shares, 0.0).ends
            said.append(
                f"mean {statistics.fmean(shares):.4f}, standard deviation {statistics.stdev(shares):.4f}; "
                f"one more seed would lie from {low:.4f} to {high:.4f} (Student's, n = {len(shares)})"
            )
    missing = [f"`{name}`" for name in names if name not in records]
    if missing:
        said.append(f"**{NOT_RUN}**: {', '.join(missing)}")
    return "; ".join(said) + "."


def _runs(records: Records) -> Iterator[str]:
    names = [*RUNS, *(name for name in records if name not in RUNS)]
    yield _table(RUN_HEADER, [_run(name, records.get(name)) for name in names])
    yield (
        "Accuracy is on all 10,000 test images, after the last update / of the weights saved last. Time is that of all "
        "updates but the first, images/s with it."
    )
    for name in (documented_run(records), "documented_softmax"):
        if name in records:
            yield f"![Learning curve of {name}]({name}/{CURVE})"
            confusion = evaluated(records[name])["confusion"]
            lines = [(CLASSES[label], *map(str, row)) for label, row in enumerate(confusion)]
            yield from _folded(f"Confusion of {name}: rows are labels, columns answers", _table(("", *CLASSES), lines))
    yield "What was typed, with what, and what else was going on:"
    yield "\n".join(line for name in names for line in _made(name, records.get(name)))


def _run(name: str, record: Record | None) -> tuple[str, ...]:
    if record is None:
        return (f"`{name}`", f"**{NOT_RUN}**", *[""] * (len(RUN_HEADER) - 2))
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


def _made(name: str, record: Record | None) -> Iterator[str]:
    if record is None:
        yield f"- `{name}`: **{NOT_RUN}**: `{RUNS[name].command(name)}`"
        return
    here, confusion = record["environment"], evaluated(record)["confusion"]
    wrong, label, answer = max(
        (count, label, answer)
        for label, row in enumerate(confusion)
        for answer, count in enumerate(row)
        if label != answer
    )
    told = [each for each in ("tensorflow", "keras", "numpy") if each in here["packages"]]
    told += [each for each in here["packages"] if here["gpus"] and each.startswith(("nvidia-cublas", "nvidia-cudnn"))]
    packages = ", ".join(f"{each} {here['packages'][each]}" for each in told)
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
    """Write the page; return the exit status: 1 if the records aren't fit."""
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
