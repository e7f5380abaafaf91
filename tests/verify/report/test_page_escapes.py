"""Whatever a results file holds is shown as text, in page, summary and drawings."""

import html
import json
import re

import pytest

from alexnet_repro.verify.report import page as report
from tests.helpers.html_pages import FORGED, Page, reported, tables
from tests.helpers.results_files import EVERYTHING, WELL, WRONG, run, timing


@pytest.mark.parametrize("place", ["message", "evidence", "fix", "check", "device", "precision"])
@pytest.mark.parametrize("status", ["PASS", "FAIL"])
def test_forged_finding_is_text(tmp_path, place, status):
    """A forged finding shows as it was written, and makes no tag, in page and summary."""
    page, markdown, _ = reported(tmp_path, run(correct=[{**WELL, "status": status, place: FORGED}]))
    assert {tag for tag, _ in Page(page).tags} & {"script", "img"} == set()
    assert FORGED in html.unescape(page)
    assert "<" not in markdown


@pytest.mark.parametrize("text", [FORGED, "a`b", "``", "`", "a\n\n# b", "a|b", "</code>"])
def test_forged_command_is_code(tmp_path, text):
    """A command from a file is one span of code, in page and summary, whatever it holds."""
    page, markdown, _ = reported(tmp_path, run(correct=[{**WRONG, "fix": f"sudo {text}"}]))
    assert {tag for tag, _ in Page(page).tags} & {"script", "img"} == set()
    line = next(line for line in markdown.splitlines() if "Fix: " in line)
    fence, code = re.fullmatch(r".*Fix: (`+) ?(sudo .*?) ?\1", line).groups()
    assert code == " ".join(f"sudo {text}".split())
    assert fence not in code


def test_forged_machine_groups_and_cases_are_text(tmp_path):
    """A forged machine, group, device, precision and case are text, in drawings too."""
    case = f"train_step[device={FORGED}-batch={FORGED}-precision={FORGED}]"
    content = run(machine={FORGED: [FORGED]}, timings=[timing(case, device=FORGED, precision=FORGED, limit=FORGED)])
    content["findings"][FORGED] = []
    page, markdown, paths = reported(tmp_path, content)
    assert {tag for tag, _ in Page(page).tags} & {"script", "img"} == set()
    assert "<" not in markdown
    assert {path.parent for path in paths} == {tmp_path}
    assert len(paths) == 2 + 2


def test_forged_names_are_text_in_every_drawing(tmp_path):
    """Forged names are text in each section of the page, and no path leaves the folder."""
    content = json.loads(json.dumps(EVERYTHING).replace(json.dumps("cpu:0"), json.dumps(FORGED)))
    content["findings"]["reference"][0]["case"] = FORGED
    page, markdown, paths = reported(tmp_path, content)
    assert {tag for tag, _ in Page(page).tags} & {"script", "img"} == set()
    assert "<" not in markdown
    assert {path.name.partition("-")[0] for path in paths[2:]} == {
        "throughput",
        "roofline",
        "reference",
        "steps",
        "learning",
    }
    assert {path.parent for path in paths} == {tmp_path}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("---", r"\---"), ("===", r"\==="), ("- item", r"\- item"), ("1. one", r"1\. one"), ("66.7 %", "66.7 %"),
     ("a - b = c", "a - b = c"), ("*a*", r"\*a\*"), ("<b>\n&", "&lt;b&gt; &amp;")],
)  # fmt: skip
def test_markdown_is_escaped(text, expected):
    """A text that looks like a rule, an underline or a list item is escaped."""
    assert report._markdown(text) == expected


@pytest.mark.parametrize("text", ["a|b", "a\nb", "```\n# heading", "[a](b)", "@all", "*a* _b_ ~c~ #1"])
def test_markdown_holds_any_text(tmp_path, text):
    """No text from a file ends a table's row, a heading or a block of code, or means anything to Markdown."""
    wrong = {**WRONG, "message": text, "fix": text, "check": text}
    content = run(correct=[wrong])
    content["findings"][text] = []
    _, markdown, _ = reported(tmp_path, content)
    assert [{len(row) for row in table} for table in tables(markdown)] == [{3}]
    assert len(re.findall(r"^#", markdown, re.MULTILINE)) == 1
    assert len(re.findall(r"^- ", markdown, re.MULTILINE)) == 1
