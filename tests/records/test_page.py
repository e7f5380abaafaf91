"""benchmarks/records/README.md: made from the committed records, and from any others."""

import shlex
from pathlib import Path

import pytest

from alexnet_repro import Recipe
from alexnet_repro.cli import parser as command_line
from alexnet_repro.verify.report.training_record import read_records
from benchmarks.records.tools import claims, make_page
from benchmarks.records.tools.combinations import combinations, effects, unlike
from benchmarks.records.tools.runs import GPU_PRECISION, ON_GPU, RUNS, after_epochs, check, same_but_seed
from tests.helpers.paths import ROOT
from tests.helpers.records import LAYERS, measured, record

ALL = {name: record(name) for name in RUNS}


def test_page_is_of_the_records():
    """The committed page is what its script makes of the committed records."""
    text = make_page.page(read_records(ROOT / "benchmarks/records"))
    assert make_page.PAGE.read_text(encoding="utf-8") == text, "type: python -m benchmarks.records.tools.make_page"


@pytest.mark.parametrize("name", list(RUNS))
def test_page_without_a_record(name):
    """A missing record is listed with a command that works; one that is there isn't."""
    without = make_page.page({each: found for each, found in ALL.items() if each != name})
    command = next(line for line in without.splitlines() if line.startswith(f"- `{name}`: **not run yet**"))
    words = shlex.split(command.split("`")[3])
    assert words[:3] == ["python", "-m", "alexnet_repro"]
    arguments = command_line.parser().parse_args(words[3:], command_line.argparse.Namespace(words=words))
    assert arguments.record == Path("benchmarks/records") / name
    assert (arguments.recipe, arguments.seed, arguments.precision) == (
        RUNS[name].recipe,
        RUNS[name].seed,
        RUNS[name].precision,
    )
    assert "not run yet" not in make_page.page(ALL)


@pytest.mark.parametrize("names", [[], ["epoch_softmax_128"], ["quick_bfloat16_seed3"], ["documented_softmax"]])
def test_page_of_a_few_records(names):
    """Whatever records there are, each figure and claim of the document has its line."""
    text = make_page.page({name: ALL[name] for name in names})
    for figure in ("2.3014", "0.0547", "0.8395", "0.4867", "0.5035", "15 ms", *(f"| {n}. " for n in range(1, 10))):
        assert figure in text
    for layer in LAYERS:
        assert f"| `{layer['name']}` |" in text


def test_verdicts_of_claims():
    """The nine claims: those of size and channels are loose, the others hold for a run of accuracy 0.84."""
    rows = claims.claims(ALL)
    assert [(row.measured, row.verdict) for row in rows] == [
        ("5 convolutions, 2 hidden dense, 1 output", "reproduced"),
        ("after 1, 2, 5", "reproduced"),
        ("11×11, 5×5, 3×3, 3×3, 3×3", "reproduced"),
        ("16, 16 times", "not reproduced"),
        ("172 MB", "not reproduced"),
        ("1; 4.5e-05 at 10", "reproduced"),
        ("after dense 1, 2", "reproduced"),
        ("0.01", "reproduced"),
        ("0.8400", "reproduced"),
    ]


def test_verdicts_of_printed_figures():
    """The first draw and the 2,000 images, by bands worked out by hand."""
    rows = claims.printed(ALL, "documented")
    assert [(row.says, row.measured, row.band, row.verdict) for row in rows] == [
        # s = 0.00816497, t(3) = 3.18245, sqrt(2 / 4); sqrt(2 * 0.0625 * 0.9375 / 128) * 1.96; 0.0081976 * 1.96.
        ("2.3014", "2.3000", "2.2816 to 2.3184", "reproduced"),
        ("0.0547", "0.0625", "0.0032 to 0.1218", "reproduced"),
        ("0.8395", "0.8400", "0.8239 to 0.8561", "reproduced"),
        ("0.4867", "0.4867", "0.4671 to 0.5063", "reproduced"),
        ("0.5035", "0.4867", "0.4671 to 0.5063", "reproduced"),
    ]


@pytest.mark.parametrize(
    ("accuracy", "expected"), [(0.84, "reproduced"), (0.80, "inconclusive"), (0.70, "not reproduced")]
)
def test_verdict_of_a_worse_run(accuracy, expected):
    """The verdict of the claim of 0.84 follows the run's accuracy."""
    assert claims.claims({"documented": record("documented", accuracy=accuracy)})[-1].verdict == expected


def test_more_seeds_widen_the_band():
    """Runs of the same training with other seeds are taken together; those of others aren't."""
    more = {**ALL, "documented_seed1": record("documented", accuracy=0.842, seed=1)}
    assert [each["seed"] for each in same_but_seed(more, "documented")] == [0, 1]
    accuracy = claims.printed(more, "documented", [claims.TEST_ACCURACY])[0]
    assert accuracy.measured == "0.8410"
    assert accuracy.why == "inside the band of 2 seeds"
    # Of first draws, that is what draws differ by: 1.96 sqrt(1.5 * 0.0675 * 0.9325 / 128)
    draw = {"losses": [2.30, 2.32, 2.30, 2.32], "accuracies": [0.0725] * 4}
    more["documented_seed1"] = record("documented", updates=draw, seed=1)
    loss, accuracy = claims.printed(more, "documented", claims.FIGURES[:2])
    assert (accuracy.measured, accuracy.band) == ("0.0675", "0.0143 to 0.1207")
    # s² = (0.0066667 + 0.0133333) 1e-2 / 2, t(6) = 2.446912: 2.446912 sqrt(1e-4 * 1.5 / 4)
    assert (loss.measured, loss.band) == ("2.3050", "2.2900 to 2.3200")


def test_layers_that_differ():
    """A layer that isn't as printed, or is one too many, is named."""
    other = [*LAYERS[:-1], {**LAYERS[-1], "parameters": 40_971}, {**LAYERS[-1], "name": "dense_3"}]
    rows = claims.layer_table({"documented": record("documented", layers=other)})
    assert [row.what for row in rows if row.verdict != "reproduced"] == ["`dense_2`", "`dense_3`", "parameters in all"]
    assert len(rows) == 16
    assert all(row.verdict == "reproduced" for row in claims.layer_table(ALL))


def test_four_combinations():
    """Loss and update size are compared at equal images seen; the first of five epochs stands in for one."""
    found = combinations(
        {name: ALL[name] for name in ("documented", "documented_softmax", "epoch_normalised_sigmoid_128")}
    )
    shown = {
        key: each and tuple(each[n] for n in ("name", "updates", "images", "accuracy")) for key, each in found.items()
    }
    assert shown == {
        ("normalised_sigmoid", 32): ("documented", 1_876, 60_032, 0.8),
        ("softmax", 32): ("documented_softmax", 1_876, 60_032, 0.75),
        ("normalised_sigmoid", 128): ("epoch_normalised_sigmoid_128", 469, 60_032, 0.8),
        ("softmax", 128): None,
    }
    assert unlike(found) == []
    # sqrt(0.8 * 0.2 / 1e4 + 0.75 * 0.25 / 1e4) * 1.96, and sqrt(2 * 0.8 * 0.2 / 1e4) * 1.96
    assert effects(found) == [
        (
            "`softmax` instead of `normalised_sigmoid`, updates of 32: -0.0500 in accuracy, "
            "more than the test images explain (at most ±0.0116)"
        ),
        (
            "Updates of 128 instead of 32, `normalised_sigmoid`: +0.0000 in accuracy, "
            "which the test images alone may explain (at most ±0.0111)"
        ),
    ]


def test_measured_within_epochs():
    """What was measured within epochs, besides, is no epoch's: neither on the page nor in the combinations."""
    often = measured((404, 0.5, 1.2), (1_604, 0.79, 0.62), (1_876, 0.8, 0.6), (2_276, 0.82, 0.55), (3_748, 0.85, 0.45))
    records = {**ALL, "documented": record("documented", evaluations=often)}
    assert [each["updates"] for each in after_epochs(records["documented"])] == [1_876, 3_748]
    assert combinations(records)["normalised_sigmoid", 32]["accuracy"] == 0.8
    assert "accuracy and loss: 0.8000 (0.6000), 0.8500 (0.4500)." in make_page.page(records)


def test_combinations_of_different_trainings():
    """Combinations that differ in more than loss and update size are shown, but nothing is concluded."""
    mixed = {**ALL, "epoch_softmax_128": record("epoch_softmax_128", precision="float32", seed=0)}
    assert unlike(combinations(mixed)) == ["precision"]
    assert "These differ in precision as well" in make_page.page(mixed)
    assert " in accuracy, " not in make_page.page(mixed)


@pytest.mark.parametrize(
    ("name", "other", "text"),
    [
        ("documented", record("documented_softmax"), "loss softmax"),
        ("quick_bfloat16_seed0", record("quick_bfloat16_seed1"), "seed 1"),
        ("documented_softmax", record("epoch_softmax_128"), "batch_size 128, epochs 1"),
        ("documented", record("documented", evaluations=[]), "no accuracy after any epoch"),
        (
            "documented_softmax",
            record("documented_softmax", evaluations=[{"updates": 404}]),
            "no accuracy after any epoch",
        ),
        ("quick_bfloat16_seed0", record("quick_bfloat16_seed0", data="synthetic"), "synthetic images"),
        ("another", record("quick_bfloat16_seed0", data="synthetic"), "synthetic images"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else None,
)
def test_records_of_another_training(name, other, text):
    """A record that isn't what its name says, or of generated images, is refused by name."""
    with pytest.raises(ValueError, match=f"{name} is of another training than its name says: {text}"):
        check({name: other})


def test_command_on_a_gpu():
    """The command of a run on a GPU evaluates within epochs, too, and trains as fast as the GPU can."""
    name = f"documented_{GPU_PRECISION}_seed3"
    assert RUNS[name].command(name) == (
        f"python -m alexnet_repro train --recipe=documented --precision={GPU_PRECISION} --seed=3 --evaluate-every=100 "
        f"--nondeterministic --weights={name}.weights.h5 --record=benchmarks/records/{name}"
    )


def on_gpu(*later):
    """Return records on a GPU, a seed each, whose accuracy passes 0.8395 so much later than their loss 0.4867."""
    found = {}
    for seed, (name, more) in enumerate(zip(ON_GPU, later, strict=False)):
        curve = measured((404, 0.5, 1.2), (1_876, 0.8195 - more / 1e4, 0.5067), (2_276, 0.8595 - more / 1e4, 0.4667))
        found[name] = record(name, accuracy=0.87 + seed / 1000, seed=seed, evaluations=curve)
        found[name]["environment"] = {**found[name]["environment"], "gpus": ["NVIDIA H100 80GB HBM3"]}
    return found


def test_document_on_a_gpu():
    """Where its program was run on a GPU, that is what the document is compared with; the older run is folded."""
    old = {name: ALL[name] for name in ("documented", "documented_softmax")}
    text = make_page.page(old | on_gpu(10, 20, 30, 40, 50))
    head = f"### The document's own program on NVIDIA H100 80GB HBM3: `normalised_sigmoid`, {GPU_PRECISION}, 5 seeds"
    assert [line for line in text.splitlines() if line.startswith("### ")] == [
        head,
        "### `documented_softmax`: what the same code trains today",
        "### Beside the training",
    ]
    # s = 0.0015811, t(1,537) = 1.96, sqrt(1.2 s^2 + 0.872 * 0.128 / 2000)
    row = "| 0.8395 | 0.8720 | 0.8570 to 0.8870 | **not reproduced**: 0.0325 from what was measured, 5 seeds |"
    assert text.count(row) == 1
    assert f"About 0.84 on test data {row.removeprefix('| 0.8395 ')}" in text
    assert "accuracy and loss, means of 5 seeds: 0.8165 (0.5067)." in text
    folded = text[text.index("<details><summary>The same in mixed_bfloat16 on A processor, 2 processors") :]
    assert "| 0.8395 | 0.8400 | 0.8239 to 0.8561 | **reproduced**" in folded[: folded.index("</details>")]
    assert f"![Learning curve of documented_{GPU_PRECISION}_seed0]" in text
    # An epoch is 1,872 updates, after the first draw's 4.
    for line in (
        "| updates (epochs) | accuracy reaches 0.8395 | loss falls to 0.4867 |",
        "| seed 0 | 2,086 (1.11) | 2,076 (1.11) |",
        "| seed 4 | 2,126 (1.13) | 2,076 (1.11) |",
        "| median | 2,106 (1.12) | 2,076 (1.11) |",
        "| least to most | 2,086 (1.11) to 2,126 (1.13) | 2,076 (1.11) to 2,076 (1.11) |",
    ):
        assert line in text.splitlines()
    both = "Both are reproduced at once from 1,936 (1.03) to 2,260 (1.21) updates."
    assert f"\nAccuracy comes 10 to 50 updates after the loss. {both}\n" in text


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ((-20, -10), "Accuracy comes 10 to 20 updates before the loss. Both are"),
        ((-20, 10), "Accuracy comes between 20 updates before and 10 after the loss. Both are"),
        ((30,), "Accuracy comes 30 updates after the loss. Both are"),
        ((300,), "\nNowhere are both reproduced."),
        ((30, 300), "Accuracy comes 30 updates after the loss."),
    ],
)
def test_which_figure_comes_first(later, expected):
    """The page says by how many updates, and leaves out a figure that is never passed."""
    found = on_gpu(*later)
    if later == (300,):
        found[next(iter(ON_GPU))]["evaluations"][-1]["loss"] = 0.51
    assert expected in make_page.page(found)


def quick(shares, precision="float32"):
    """Return records of the quick recipe of these accuracies, a seed each, in one precision."""
    names = [f"quick_{precision.removeprefix('mixed_')}_seed{seed}" for seed in range(len(shares))]
    return {name: record(name, accuracy=share) for name, share in zip(names, shares, strict=True)}


def test_seeds():
    """Five seeds have their mean, their spread and where one more would lie."""
    text = make_page.page(quick((0.82, 0.83, 0.825, 0.835, 0.815)))
    # s = 0.00790569, t(4) = 2.776445, sqrt(1.2)
    assert (
        "\n- `quick` on all 10,000 test images, float32, seeds 0, 1, 2, 3, 4: 0.8200, 0.8300, 0.8250, 0.8350, 0.8150; "
        "mean 0.8250, standard deviation 0.0079 (mean - 3 standard deviations: 0.8013); "
        "one more seed would lie from 0.8010 to 0.8490 (Student's, n = 5).\n"
    ) in text


def test_seeds_of_two_precisions():
    """Trainings in another precision are other trainings: they have a mean of their own."""
    text = make_page.page(quick([0.82] * 5) | quick([0.9] * 4, "mixed_bfloat16"))
    assert "float32, seeds 0, 1, 2, 3, 4: 0.8200, 0.8200, 0.8200, 0.8200, 0.8200; mean 0.8200, standard dev" in text
    assert "mixed_bfloat16, seeds 0, 1, 2, 3: 0.9000, 0.9000, 0.9000, 0.9000; mean 0.9000, standard dev" in text
    assert "\n- **not run yet**: `quick_bfloat16_seed4`.\n" in text


def test_recipe_as_it_was():
    """Records of the quick recipe from before it changed are marked by what was trained, and have their own line."""
    recipe = {**Recipe.quick().as_data(), "draws_per_epoch": 200, "draw_size": 32, "batch_size": 32}
    old = record("quick_float32_seed0", accuracy=0.83, recipe=recipe)
    text = make_page.page({**ALL, "quick_seed0": old})
    assert "- `quick` on all 10,000 test images, float32, seeds 0, 1, 2, 3, 4: 0.8400" in text
    before = "`quick` as it was before, 200 updates of 32, on all 10,000 test images, float32, seed 0: 0.8300."
    assert f"\n- {before}\n" in text
    assert "| [`quick_seed0`](quick_seed0/record.json), the recipe before | float32, 0 |" in text
    assert text.count("By the recipe as it was then: 200 updates of 32.") == 1


def test_runs_name_their_device():
    """A row says on what it was trained and how long its updates took, but for the first; the list says with what."""
    here = record("documented")["environment"]
    packages = {
        **here["packages"],
        "nvidia-cublas": "13.2.0",
        "nvidia-cuda-nvcc": "13.2.1",
        "nvidia-cudnn-cu13": "9.15",
    }
    on_gpu = {**here, "gpus": ["NVIDIA H100 80GB HBM3"], "packages": packages}
    found = {
        "documented": record("documented", environment=on_gpu),
        "quick_bfloat16_seed0": record("quick_bfloat16_seed0"),
    }
    text = make_page.page(found)
    assert "| mixed_bfloat16, 0 | NVIDIA H100 80GB HBM3 | 299,648 |" in text
    assert (
        "| mixed_bfloat16, 0 | A processor, 2 processors | 5,120 | 0.8400 | 0.8240 to 0.8560 | 997 s | 40.0 |" in text
    )
    assert (
        "  with tensorflow 2.21.0, keras 3.15.1, numpy 2.4.0, nvidia-cublas 13.2.0, nvidia-cudnn-cu13 9.15; rev" in text
    )


def test_notes_are_text():
    """What a record's note holds is shown, and can't break the page."""
    text = make_page.page({"documented": record("documented", note="two | three\n<b>*cores*</b>")})
    assert r"Note: two \| three \<b\>\*cores\*\</b\>." in text
