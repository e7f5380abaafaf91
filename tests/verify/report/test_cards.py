"""What the page says of findings: titles, subjects, measures with their units, and things to do, each once."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import cards
from alexnet_repro.verify.report.run_record import RunRecord
from alexnet_repro.verify.report.text import grouped, suggestions

CASE = "forward[device=cpu:0-batch=1-precision=float32]"
AGAIN = "python -m alexnet_repro verify 'benchmarks/test_forward.py::test_forward[batch={}]'; sudo dmesg | tail"


def found(check="layers", status="FAIL", text="off by 0.5", **fields):
    """Return a finding."""
    return Finding(check, status, text, **fields)


@pytest.mark.parametrize(
    ("check", "number", "bound", "expected"),
    [
        ("speed", 1.10, 1.16, "1.1 × the reference; fails beyond 1.16 ×"),
        ("low_noise", 0.332, 0.25, "33.2 % spread; at most 25.0 %"),
        ("no_thermal_drift", 1.2, 1.05, "1.2 × its time at first; at most 1.05 ×"),
        ("synchronized", 0.4, 0.9, "0.4 × the time until its result is read; at least 0.9 ×"),
        ("peak_fraction", 0.44, 0.25, "44.0 % of the roofline; at least 25.0 %"),
        ("nominal", 0.9, 0.75, "90.0 % of the data sheet's; at least 75.0 %"),
        ("scaling", 0.913, 0.9, "91.3 % of linear scaling; at least 90.0 %"),
        ("gpu_speed_parity", 0.12, 0.05, "12.0 % slower; at most 5.0 %"),
        ("layers", 0.5, 0.25, "0.5; bound 0.25"),
        ("layers", 0.5, None, "0.5"),
        ("speed", 1.1, None, "1.1 × the reference"),
        ("speed", float("inf"), float("nan"), "inf × the reference; fails beyond nan ×"),
        ("layers", None, 0.5, ""),
    ],
)
def test_numbers_have_units(check, number, bound, expected):
    """A number has its unit and what it is of, and its bound says on which side it fails."""
    assert cards.number_with_unit(found(check, number=number, bound=bound)) == expected


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ([found(device="gpu:1", precision="tf32")], "gpu:1 layers tf32"),
        ([found("speed", device="cpu:0", case=CASE)], "speed of forward, cpu:0, batch 1, float32"),
        ([found(device="gpu:1")] * 3, "gpu:1 layers: 3 cases"),
        ([found(device="gpu:1"), found("update", device="gpu:0")], "layers, update: 2 cases"),
        ([found(f"check{n}") for n in range(6)], "check0, check1, check2, check3 and 2 other checks: 6 cases"),
    ],
    ids=["of=one", "of=a timing", "of=one device", "of=two devices", "of=six checks"],
)
def test_titles(findings, expected):
    """One finding is named by its check and where; several by their checks, number, and their device if it is one."""
    assert cards.title(findings) == expected


@pytest.mark.parametrize(
    ("text", "apart", "expected"),
    [
        (f"{CASE} is too noisy", False, "forward, cpu:0, batch 1, float32 is too noisy"),
        (f"{CASE} is too noisy", True, "is too noisy"),
        (f"{CASE}: too noisy", True, "too noisy"),
        (CASE, True, "as it should be"),
        (f"gpu:1 is slower in {CASE}", True, f"gpu:1 is slower in {CASE}"),
    ],
)
def test_messages_name_cases_for_people(text, apart, expected):
    """A case's id in a message is its name for people; beside that name, it is left out."""
    assert cards.message(found(text=text, case=CASE), apart=apart) == expected


def test_cases_of_a_task():
    """A row per case with what was found, at most a hundred; the verdict only where cases differ in it."""
    table = cards.case_table([found(text=f"{CASE} is slow", case=CASE, evidence="seen")] * 150)
    assert table.headings == ("case", "finding", "evidence")
    assert table.rows == [("forward, cpu:0, batch 1, float32", "is slow", "seen")] * 100
    table = cards.case_table([found(), found("update", "INCONCLUSIVE", "unsure", number=0.5)])
    assert table.headings == ("case", "verdict", "measured", "finding")
    assert table.rows == [("layers", "FAIL", "–", "off by 0.5"), ("update", "INCONCLUSIVE", "0.5", "unsure")]


def test_long_texts_are_cut():
    """A text of a thousand characters is whole; a longer one says where the rest is."""
    assert cards.short("x" * 1000) == "x" * 1000
    assert cards.short("x" * 1001) == f"{'x' * 1000}… (the rest is in results.json)"


def test_one_fix_is_one_task():
    """Findings of one fix are one task, with the worst status; tests to run again are named in one command."""
    tasks = grouped(
        [
            found(fix="reboot"),
            found("update", "INCONCLUSIVE", fix="reboot"),
            found("forward", fix=AGAIN.format(1)),
            found("forward", fix=AGAIN.format(2)),
            found("forward", fix=AGAIN.format(2)),
            found("golden", "INCONCLUSIVE", "recorded elsewhere"),
            found("golden", "INCONCLUSIVE", "recorded elsewhere"),
            found("golden", "INCONCLUSIVE", "not recorded"),
        ]
    )
    node = "'benchmarks/test_forward.py::test_forward[batch={}]'"
    assert [(each.fix, each.status, len(each.findings)) for each in tasks] == [
        ("reboot", "FAIL", 2),
        (f"python -m alexnet_repro verify {node.format(1)} {node.format(2)}; sudo dmesg | tail", "FAIL", 3),
        ("", "INCONCLUSIVE", 2),
        ("", "INCONCLUSIVE", 1),
    ]


def test_same_commands_of_a_check_are_one_task():
    """Fixes of one check that differ in prose alone are one task, with the first one's words; of two checks, two."""
    fixes = ["of 8 processes: pytest benchmarks # when idle", "pytest benchmarks", "run it alone", "alone, if you can"]
    tasks = grouped([found("speed", "INCONCLUSIVE", fix=each) for each in fixes] + [found("golden", fix=fixes[0])])
    assert [(each.fix, len(each.findings)) for each in tasks] == [
        (fixes[0], 2),
        (fixes[2], 1),
        (fixes[3], 1),
        (fixes[0], 1),
    ]


def test_many_tests_are_run_again_as_a_whole():
    """More than eight tests to run again are the whole suite."""
    (task,) = grouped([found(fix=AGAIN.format(number)) for number in range(9)])
    assert task.fix == "python -m alexnet_repro verify; sudo dmesg | tail"


def test_suggestions_are_grouped():
    """What passed and could be better is listed by what would make it so."""
    passed = [found(status="PASS", fix="nvidia-smi -pm 1", device=f"gpu:{n}") for n in range(8)]
    record = RunRecord(Path("results.json"), findings={"doctor": [*passed, found(status="PASS"), found(fix="x")]})
    assert [(each.fix, len(each.findings)) for each in suggestions(record)] == [("nvidia-smi -pm 1", 8)]


def channel(value):
    """Return a colour channel's linear light (WCAG 2.2, relative luminance)."""
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def luminance(colour):
    """Return a colour's relative luminance; `#fff` and `#ffffff` are alike."""
    digits = colour[1:] if len(colour) == 7 else "".join(each * 2 for each in colour[1:])
    red, green, blue = (channel(int(digits[place : place + 2], 16) / 255) for place in (0, 2, 4))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def schemes():
    """Return the page's colours by scheme."""
    style = (files("alexnet_repro.verify.report") / "templates" / "report.css").read_text()
    light, dark = (
        dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]+)", each))
        for each in re.findall(r":root {(.*?)}", style, re.DOTALL)
    )
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["paper", "wash"])
@pytest.mark.parametrize("ink", ["ink", "soft", "link", "pass", "fail", "doubt", "plot"])
def test_contrast(scheme, ground, ink):
    """Text and lines have a contrast of at least 4.5 to 1 with what they are on, in light and in dark (WCAG 1.4.3)."""
    colours = schemes()[scheme]
    darker, lighter = sorted(luminance(colours[each]) for each in (ground, ink))
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("bar", ["float32", "tf32", "bfloat16", "float16"])
def test_bars_stand_out(scheme, bar):
    """The outline and hatch of a bar have a contrast of at least 3 to 1 with its filling (WCAG 1.4.11)."""
    colours = schemes()[scheme]
    for line in ("ink", "hatch"):
        darker, lighter = sorted(luminance(colours[each]) for each in (bar, line))
        assert (lighter + 0.05) / (darker + 0.05) >= 3
