"""Tables of devices side by side: in the terminal, in the page and in Markdown, whatever a file holds."""

import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import side_by_side
from tests.helpers.html_pages import Page, reported, tables
from tests.helpers.results_files import WELL, run

ALONE = {"images": 64, "seconds": {"gpu:0": 0.1, "gpu:1": 0.2, "gpu:2": 0.1}, "slow": ["gpu:1"]}
POINT = {"kind": "weak", "devices": 4, "images": 64, "seconds": 0.128, "communicating": 0.21875}
FOUND = [
    Finding("stragglers", "FAIL", "gpu:1 is behind", device="gpu:1", data=ALONE),
    Finding("scaling", "INCONCLUSIVE", "weak", number=0.78125, bound=0.7917, data=POINT),
    Finding("gpu_bitwise_parity", "PASS", "another check", data={"seconds": {"gpu:9": 1.0}}),
]


def test_table_of_devices():
    """Images/s of each alone, its share of the best, and its own verdict; the slowest is named."""
    assert [vars(row) for row in side_by_side.device_rows(FOUND)] == [
        {"device": "gpu:0", "images": "640.0", "relative": "100.0 %", "status": "PASS", "note": ""},
        {"device": "gpu:1", "images": "320.0", "relative": "50.0 %", "status": "FAIL", "note": "slowest"},
        {"device": "gpu:2", "images": "640.0", "relative": "100.0 %", "status": "PASS", "note": ""},
    ]


def test_tables_in_the_terminal():
    """Both tables, aligned; nothing where nothing was measured."""
    assert side_by_side.lines(FOUND) == [
        "device alone  images/s  of the best  verdict",
        "gpu:0            640.0      100.0 %  PASS",
        "gpu:1            320.0       50.0 %  FAIL slowest",
        "gpu:2            640.0      100.0 %  PASS",
        "scaling  devices  images each  images/s  efficiency  at least  communicating  verdict",
        "weak           4           64   2,000.0      78.1 %    79.2 %         21.9 %  INCONCLUSIVE",
    ]
    assert side_by_side.lines(FOUND[2:]) == []


def test_report_shows_both_tables(tmp_path):
    """Page and Markdown have a row a device and a row a number of devices, the slowest named."""
    content = run(fast=[{**WELL, **vars(each)} for each in FOUND])
    page, markdown, _ = reported(tmp_path, content)
    assert "320.0 50.0 % ✗ FAIL slowest" in " ".join(Page(page).text.split())
    assert "78.1 % 79.2 % 21.9 % ? INCONCLUSIVE" in " ".join(Page(page).text.split())
    assert [len(table) for table in tables(markdown)][-2:] == [5, 3]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(data, id=f"data={data}")
        for data in ({}, {"seconds": 1}, {"seconds": {"gpu:0": "fast"}, "slow": 3}, 5, None, "text", [1])
    ],
)
def test_data_that_isnt_what_a_run_writes_has_no_row(data):
    """A file's finding may hold anything: no row, and no error."""
    found = [Finding(check, "FAIL", "forged", number=1.0, data=data) for check in ("stragglers", "scaling")]
    assert side_by_side.lines(found) == []
