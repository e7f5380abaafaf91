"""A run that goes on although the doctor failed: never a PASS, and every output says why."""

import pytest

from alexnet_repro.verify.checks import devices
from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report.junit import write_junit
from alexnet_repro.verify.report.page import write_report
from alexnet_repro.verify.report.run_record import read_results
from alexnet_repro.verify.report.text import summary, verdict_line
from benchmarks import session as module
from tests.helpers.html_pages import Page
from tests.helpers.machines import A100, UNSEEN, box
from tests.helpers.sessions import session_of

DISK = Finding("disk", "FAIL", "too little space for data", "/full", "df -h /full")
REASON = "ignored by --ignore-doctor: too little space for data"
WORDS = "no check failed, but what the doctor failed (disk) was ignored"


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """Return a function that begins a run on a machine that the doctor failed, and returns its session."""

    def begin(here, *findings, **options):
        monkeypatch.setattr(module, "Watcher", lambda *_: None)
        monkeypatch.setattr(devices, "read_machine", lambda: here)
        monkeypatch.setattr(devices, "examine", lambda *_, **__: ((here, each) for each in findings))
        session = session_of(tmp_path, ignore_doctor=True, **options)
        session.pytest_collection()
        session._ending.close()
        return session

    return begin


def test_every_output_has_the_reason(begun, tmp_path):
    """Where all checks passed the verdict is inconclusive; its line and the finding are in each output."""
    session = begun(box(), DISK)
    record = session.record
    for each in record.plan:
        each.state, each.status = "answered", "PASS"
        record.add(each.group, Finding(each.short, "PASS", "well", device=each.device))
    record.write(complete=True)
    assert (session.not_ready, session.devices) == ("", ("cpu:0",))
    assert verdict_line(record) == f"INCONCLUSIVE: {WORDS}"
    write_report(record, tmp_path)
    write_junit(record, tmp_path / "junit.xml")
    reread = read_results(tmp_path / "results.json")
    assert (reread.verdict, reread.findings["doctor"][0].message) == ("INCONCLUSIVE", REASON)
    texts = {name: (tmp_path / name).read_text() for name in ("junit.xml", "report.html", "summary.md")}
    texts["report.html"] = Page(texts["report.html"]).text
    texts["terminal"] = " ".join("\n".join(summary(record)).split())
    for name, text in texts.items():
        plain = text.replace("\\", "").lower()
        assert (REASON in plain, WORDS in plain) == (True, True), name


def test_device_that_doesnt_work_is_left_out(begun):
    """It is in the plan, and isn't run: the reason is the doctor's, not an option's."""
    session = begun(box(A100, results=UNSEEN), DISK)
    assert (session.devices, session.unusable) == (("cpu:0",), {"gpu:0"})
    session.keeper.collected((), session.devices, {}, session.unusable)
    reasons = {(each.device, each.why) for each in session.record.plan if each.device}
    assert reasons == {
        ("cpu:0", "deselected, or not named"),
        ("gpu:0", "the doctor found that it can't be used"),
    }


def test_required_gpu_is_missed(begun):
    """It can't be ignored that a GPU that is required isn't there: the run ends as a failure."""
    session = begun(box(), DISK, require_gpu=True)
    assert session.not_ready == "--require-gpu: tensorflow can use cpu:0 only"
    assert session.record.findings["doctor"][-1] == Finding("devices", "FAIL", session.not_ready)
