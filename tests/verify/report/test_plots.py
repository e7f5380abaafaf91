"""Drawings: valid SVG, the same bytes each time, readable without colour, and one for each thing to be seen."""

import re
from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from alexnet_repro.verify.finding import Finding
from alexnet_repro.verify.report import plots, series
from alexnet_repro.verify.report.compare_runs import compare_case
from alexnet_repro.verify.report.curves import learning_curve
from alexnet_repro.verify.report.read import Case, Rates
from alexnet_repro.verify.report.roofline_plot import rooflines

PRECISIONS = ("float32", "tf32", "mixed_bfloat16", "mixed_float16")
SVG = "{http://www.w3.org/2000/svg}"


def case(title, batch=128, precision="float32", device="gpu:0", rounds=(1.0, 1.1, 1.2), **fields):
    """Return a case of as many images as its batch has."""
    name = f"{title}[device={device}-batch={batch}-precision={precision}]"
    return Case(name, device, precision, rounds, **{"images": batch, **fields})


def texts(drawing):
    """Return the texts in a drawing, in their order, as a reader or a search finds them."""
    return ["".join(each.itertext()) for each in ET.fromstring(drawing.svg).iter(f"{SVG}text")]


@pytest.fixture(scope="module")
def everything():
    """Every kind of drawing."""
    cases = [case(title, b, p) for title in ("forward", "train_step") for b in (1, 128) for p in PRECISIONS]
    drawn = [*plots.throughput(cases), *series.step_times(cases)]
    drawn += plots.against_reference([speed()])
    drawn += rooflines([case("forward", flop=1e12, bytes=1e10)], {"gpu:0": Rates({"float32": 5e13}, 3e12)})
    drawn.append(learning_curve("quick", range(100), [1.0] * 100, [0.5] * 100, [(50, 0.8)]))
    return [*drawn, *plots.ratios([compare_case(case("a", rounds=(1.0,) * 5), case("a", rounds=(1.1,) * 5))])]


def test_drawings_are_xml_without_loads(everything):
    """Each is XML whose root is an SVG; none has a script, an image, or an address other than XML's own names."""
    assert len(everything) == 2 + 8 + 4
    for drawing in everything:
        root = ET.fromstring(drawing.svg)
        assert root.tag == f"{SVG}svg"
        tags = {each.tag.removeprefix(SVG) for each in root.iter()}
        assert tags <= {"svg", "defs", "style", "g", "path", "text", "use", "clipPath", "rect", "pattern"}
        assert set(re.findall(r"https?://[^\"]*", drawing.svg)) <= {
            "http://www.w3.org/2000/svg",
            "http://www.w3.org/1999/xlink",
        }


def test_same_bytes_twice(everything):
    """The same numbers are drawn to the same bytes, whatever the user's own settings are."""
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "svg.hashsalt": "other", "lines.linewidth": 9}):
        cases = [case("train_step", b, p) for b in (1, 128) for p in PRECISIONS]
        again = series.step_times(cases)
    assert [each.svg for each in again] == [each.svg for each in everything if each.name.startswith("steps-")]


@pytest.mark.usefixtures("everything")
def test_settings_of_others_stay():
    """Drawing leaves Matplotlib's settings as they were."""
    assert mpl.rcParams["svg.fonttype"] == mpl.rcParamsDefault["svg.fonttype"]
    assert mpl.rcParams["text.parse_math"] is True


def test_ids_differ_between_drawings(everything):
    """Drawings stand side by side on one page: no id is in two of them, and each that is used is there."""
    seen = set()
    for drawing in everything:
        ids = set(re.findall(r' id="([^"]+)"', drawing.svg))
        used = set(re.findall(r'url\(#([^)]+)\)|xlink:href="#([^"]+)"', drawing.svg))
        assert {first or second for first, second in used} <= ids
        assert not ids & seen
        seen |= ids


def test_letters_are_large_enough(everything):
    """Every letter is at least 16 CSS pixels high: 12 of the points that the drawing is measured in."""
    found = [re.findall(r"font(?:-size)?:[^;\"]*?([\d.]+)px", each.svg) for each in everything]
    assert all(found)
    assert min(float(size) for sizes in found for size in sizes) >= 12


def test_bars_are_named_beside_themselves():
    """A bar has its precision and its images/s beside it, under its batch: no legend, no colour is needed."""
    cases = [case("forward", 1, "float32", images=1), case("forward", 128, "float32"), case("forward", 128, "tf32")]
    (drawing,) = plots.throughput(cases)
    assert sorted(texts(drawing)) == sorted(
        ["forward, gpu:0: images/s", "batch 1", "float32", "0.909", "batch 128", "float32", "116", "tf32", "116"]
    )


def test_hatches_differ():
    """Each precision's bars are hatched in their own way: one plain, the others by three patterns."""
    (drawing,) = plots.throughput([case("forward", 128, precision) for precision in PRECISIONS])
    patterns = re.findall(r"<pattern id=\"([^\"]+)\"", drawing.svg)
    assert len(set(patterns)) == 3
    assert [drawing.svg.count(f"fill: url(#{each})") for each in patterns] == [1, 1, 1]


def test_void_case_has_no_bar():
    """A failed case is there by name, as void, without a bar; nor does it set the others' scale."""
    cases = [case("forward", precision="float32"), case("forward", precision="tf32", rounds=(1e-9,), void=True)]
    void, alone = plots.throughput(cases)[0], plots.throughput(cases[:1])[0]
    assert "void" in texts(void)
    assert void.svg.count("stroke-width: 0.8") == alone.svg.count("stroke-width: 0.8") == 1


def test_one_drawing_a_device_and_kind():
    """Devices and kinds of case each have a drawing; cases without batch or precision have none."""
    cases = [case(title, device=device) for title in ("forward", "train_step") for device in ("gpu:0", "gpu:1")]
    cases += [Case("draw_train[batch=128]", "cpu:0", "", (1.0,), images=128)]
    cases += [Case("forward[device=gpu:1-batch=128-precision=tf32-xla=on]", "gpu:1", "tf32", (1.0,), images=128)]
    assert [each.name for each in plots.throughput(cases)] == [
        "throughput-gpu-0-forward",
        "throughput-gpu-1-forward",
        "throughput-gpu-0-train-step",
        "throughput-gpu-1-train-step",
        "throughput-gpu-1-forward-xla-on",
    ]
    assert len(series.step_times(cases)) == 2


@pytest.mark.parametrize(
    ("rounds", "axis"),
    [
        pytest.param((1.0,), "round", id="rounds=1"),
        pytest.param((1.0, float("nan"), float("inf")), "round", id="rounds=nan and inf"),
        pytest.param((0.0, 0.0), "round", id="rounds=0"),
        pytest.param(tuple(1 + i / 1e5 for i in range(1000)), "round, by medians of up to 5", id="rounds=1000"),
    ],
)
def test_any_series_can_be_drawn(rounds, axis):
    """One round, rounds that are no numbers, and more rounds than points, which the axis says."""
    (drawing,) = series.step_times([case("train_step", rounds=rounds)])
    assert axis in texts(drawing)
    assert len(drawing.svg) < 40_000


def speed(status="PASS", number=1.1, bound=1.03, device="gpu:0", **data):
    """Return what the gate found of a case."""
    case, held = f"forward[device={device}-batch=1-precision=tf32]", {"low": 1.05, "high": 1.15, **data}
    return Finding("speed", status, "a case", device=device, number=number, bound=bound, data=held, case=case)


def test_reference_is_drawn_with_its_bound():
    """A figure a device: each case with its ratio and, in a sign, what isn't well, its interval, and its bound."""
    found = [speed(), speed("FAIL"), speed("INCONCLUSIVE"), speed(device="gpu:1"), Finding("golden", "PASS", "bits")]
    first, second = plots.against_reference(found)
    assert (first.name, second.name) == ("reference-gpu-0", "reference-gpu-1")
    said = [text for text in texts(first) if text[-1] in "0✗?" and text.startswith("1.100")]
    assert said == ["1.100", "1.100 ✗", "1.100 ?"]
    assert texts(first).count("forward, batch 1, tf32") == 3
    bounds = [re.findall(r"stroke: #1b1f24; stroke-width: 2;", each.svg) for each in (first, second)]
    assert list(map(len, bounds)) == [3, 1]


@pytest.mark.parametrize(
    "finding",
    [
        pytest.param(speed(low=None), id="low=absent"),
        pytest.param(speed(low="1"), id="low=text"),
        pytest.param(speed(high=float("inf")), id="high=inf"),
        pytest.param(speed(high=10**400), id="high=huge"),
        pytest.param(speed(number=None), id="number=absent"),
        pytest.param(speed(bound=0.0), id="bound=0"),
        pytest.param(Finding("speed", "PASS", "a", data=[1]), id="data=list"),
        pytest.param(Finding("speed", "INCONCLUSIVE", "no reference is on file"), id="data=none"),
    ],
)
def test_findings_without_numbers_are_not_drawn(finding):
    """A case without a reference, an older file's, and whatever else isn't numbers has no figure."""
    assert plots.against_reference([finding]) == []


def test_forged_names_are_text():
    """Names from a file are neither markup, nor mathematics, nor paths; two that look alike are two files."""
    forged = "</text><script>alert(1)</script>$\\frac{1}$"
    drawn = plots.throughput([case("../../forward", device=device) for device in (forged, forged + "!")])
    assert len({each.name for each in drawn}) == 2
    for each in drawn:
        assert re.fullmatch(r"[a-z0-9-]+", each.name)
        assert "<script" not in each.svg
        assert any(forged in text for text in texts(each))


def test_ratios_are_drawn_with_what_they_say():
    """Each case is named above its interval; slower, faster, in doubt and without interval have their own markers."""
    base = (1.0, 1.01, 0.99, 1.0, 1.0)
    others = {"s": (2.0,) * 5, "f": (0.5,) * 5, "n": base, "t": (1.0,) * 4, "v": (float("nan"),) * 5}
    compared = [compare_case(case(name, rounds=base), case(name, rounds=rounds)) for name, rounds in others.items()]
    (drawing,) = plots.ratios(compared)
    named = [text for text in texts(drawing) if "batch" in text]
    assert named == [f"{name}, batch 128, float32" for name in "sfnt"]
    assert plots.ratios(compared[4:]) == []
