"""The options of `pytest benchmarks` reach what they are for."""

from types import SimpleNamespace

import pytest

from alexnet_repro.verify.checks.config import CheckConfig
from alexnet_repro.verify.checks.devices import MachineNotReadyError
from alexnet_repro.verify.checks.runner import CheckRunner
from benchmarks import conftest, test_burn_in
from benchmarks import session as module
from tests.helpers.machines import A100, UNSEEN, box, results
from tests.helpers.sessions import session_of

DEVICE = "cpu:0"
KEPT = {"ignore_doctor": False}


@pytest.fixture(autouse=True)
def _unwatched(monkeypatch):
    """No process watches: nothing runs."""
    monkeypatch.setattr(module, "Watcher", lambda *_: None)


def start(monkeypatch, folder, **options):
    """Return what the doctor, and then the choice of devices, is called with as the run starts."""
    asked = []

    def diagnose(wanted, _say, **options):
        asked.append((wanted, options))
        return box(), []

    def choose(_machine, wanted, **options):
        diagnose(wanted, None, **options)
        raise MachineNotReadyError("that was all")

    monkeypatch.setattr(module, "diagnose_machine", diagnose)
    monkeypatch.setattr(module, "choose_devices", choose)
    session = session_of(folder, **options)
    session.pytest_collection()
    session.pytest_unconfigure()
    return asked


def checks(_monkeypatch, folder, **options):
    """Return the number of replays and the time limit of checks."""
    session = session_of(folder, **options)
    request = SimpleNamespace(session=SimpleNamespace(items=[]), config=session.config)
    runner = conftest.runner.__wrapped__(request, session)
    return runner.config.replays, runner.deadline


def burn_in(monkeypatch, folder, **options):
    """Return the seconds that each device burns in for, and the time limit of its checks."""
    monkeypatch.setattr(test_burn_in, "burn_in", lambda *given, deadline, **_: (given[2], deadline))
    session = session_of(folder, **options)
    session.config.pluginmanager.getplugin = lambda _: None
    runner = CheckRunner(CheckConfig(), {}, box(), options["deadline"])
    burning = test_burn_in.burning_in.__wrapped__(session, runner)
    return {device: each.result() for device, each in next(burning).items()}


@pytest.mark.parametrize(
    ("reached", "options", "expected"),
    [
        pytest.param(
            start,
            {"require_gpu": True},
            [((), {"require_gpu": True, "deadline": 180.0, **KEPT}), ((), {"require_gpu": True, **KEPT})],
            id="start=require_gpu",
        ),
        pytest.param(
            start,
            {"device": ["cpu:0"]},
            [(["cpu:0"], {"require_gpu": None, "deadline": 180.0, **KEPT}), (["cpu:0"], {"require_gpu": None, **KEPT})],
            id="start=device",
        ),
        pytest.param(
            start,
            {"deadline": 1200.0},
            [((), {"require_gpu": None, "deadline": 360.0, **KEPT}), ((), {"require_gpu": None, **KEPT})],
            id="start=deadline",
        ),
        pytest.param(
            start,
            {"ignore_doctor": True},
            [
                ((), {"require_gpu": None, "deadline": 180.0, "ignore_doctor": True}),
                ((), {"require_gpu": None, "ignore_doctor": True}),
            ],
            id="start=ignore_doctor",
        ),
        pytest.param(checks, {"replays": 5, "deadline": 90.0}, (5, 90.0), id="checks=replays and deadline"),
        pytest.param(burn_in, {"burn_in": 7200.0, "deadline": 90.0}, {DEVICE: (7200.0, 90.0)}, id="burn_in=seconds"),
    ],
)
def test_option(monkeypatch, tmp_path, reached, options, expected):
    """Each is what it was set to where it is used, not a default."""
    assert reached(monkeypatch, tmp_path, **options) == expected


def test_burn_in_ends_with_its_tests(monkeypatch, tmp_path):
    """Where the run is interrupted nothing burns in for the hours that it was to."""
    monkeypatch.setattr(test_burn_in, "burn_in", lambda *_, stop, **__: stop.wait(60) and "stopped")
    session = session_of(tmp_path, burn_in=7200.0)
    session.config.pluginmanager.getplugin = lambda _: None
    runner = CheckRunner(CheckConfig(), {}, box(), 90.0)
    burning = test_burn_in.burning_in.__wrapped__(session, runner)
    found = next(burning)
    burning.close()
    assert found[DEVICE].result(0) == "stopped"


@pytest.mark.parametrize(
    "here",
    [
        pytest.param(box(results=results("cpu:0", ("A100", "A100"))), id="gpus=used"),
        pytest.param(box(A100, A100, results=UNSEEN), id="gpus=unused"),  # the driver has them, and the backend doesn't
    ],
)
def test_devices_of_the_plan(monkeypatch, tmp_path, here):
    """All of the machine is planned, whether it is chosen, and whether the backend takes it."""
    monkeypatch.setattr(module, "diagnose_machine", lambda *_, **__: (here, []))
    monkeypatch.setattr(module, "choose_devices", lambda *_, **__: ("cpu:0",))
    session = session_of(tmp_path, device=["cpu:0"], level="quick")
    session.pytest_collection()
    session.pytest_unconfigure()
    assert session.devices == ("cpu:0",)
    assert {each.device for each in session.record.plan} == {"cpu:0", "gpu:0", "gpu:1"}


@pytest.mark.parametrize(
    ("option", "attribute", "value"),
    [
        pytest.param({"level": "quick"}, "level", "quick", id="option=level"),
        pytest.param({"burn_in": 60.0}, "burn_in", True, id="option=burn_in"),
        pytest.param({"level": "long"}, "burn_in", True, id="option=long"),
        pytest.param({"burn_in": 0.0}, "burn_in", False, id="option=no burn_in"),
        pytest.param({"cpu_replicas": 2}, "cpu_replicas", 2, id="option=cpu_replicas"),
    ],
)
def test_option_of_the_plan(tmp_path, option, attribute, value):
    """What the options ask for is planned."""
    assert getattr(session_of(tmp_path, **option).asked, attribute) == value
