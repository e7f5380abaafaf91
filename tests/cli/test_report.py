"""python -m alexnet_repro report: paths and a table on stdout, one line on stderr, and no TensorFlow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import alexnet_repro
from alexnet_repro.cli import parser as command_line
from tests.helpers.results_files import FAILED, finding, run, timing, written

DRAWN = ["throughput-cpu-0-train-step.svg", "steps-train-step-device-cpu-0-batch-32-precision-float32.svg"]


def test_one_run(tmp_path, capsys):
    """Page, summary and drawings go beside the file and are named; that the run failed is no failure of this."""
    path = written(tmp_path / "run", FAILED)
    assert command_line.main(["report", str(path)]) == 0
    paths = [str(path.parent / name) for name in ("report.html", "summary.md", *DRAWN)]
    assert capsys.readouterr() == ("\n".join(paths) + "\n", "")
    assert all(Path(each).stat().st_size for each in paths)


def test_other_folder(tmp_path, capsys):
    """--out takes them, is made if need be, and leaves nothing beside the file."""
    path, out = written(tmp_path / "run", run()), tmp_path / "new/folder"
    assert command_line.main(["report", str(path), f"--out={out}"]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n{out / 'summary.md'}\n"
    assert [each.name for each in path.parent.iterdir()] == ["results.json"]


def test_two_runs(tmp_path, capsys):
    """A table of ratios and of the cases that only one run has; it is written beside the second file."""
    before = written(tmp_path / "a", run(timings=[timing(rounds=[1.0] * 5), timing("forward[batch=1]")]))
    after = written(tmp_path / "b", run(timings=[timing("draw_train"), timing(rounds=[0.5] * 5)]))
    assert command_line.main(["report", str(before), str(after)]) == 0
    paths = [str(tmp_path / "b" / name) for name in ("comparison.md", "comparison.json")]
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "case                                    A       B    B/A   95 % interval  B is",
        "train_step, cpu:0, batch 32, float32  1 s  500 ms  0.500  0.500 to 0.500  faster",
        "only in A: forward[batch=1]",
        "only in B: draw_train",
        *paths,
    ]
    assert [each.name for each in before.parent.iterdir()] == ["results.json"]


def test_nothing_in_common(tmp_path, capsys):
    """A comparison of runs without a common case says that there is none."""
    paths = [str(written(tmp_path / name, run())) for name in "ab"]
    assert command_line.main(["report", *paths]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "no case was timed in both"
    assert "No case was timed in both." in (tmp_path / "b/comparison.md").read_text()


@pytest.mark.parametrize("place", [pytest.param(0, id="unreadable=first"), pytest.param(1, id="unreadable=second")])
def test_unreadable(tmp_path, capsys, place):
    """A file that can't be read exits 1 with one line that names it, and writes nothing."""
    paths = [str(written(tmp_path, run()))]
    paths.insert(place, str(tmp_path / "gone.json"))
    assert command_line.main(["report", *paths]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"python -m alexnet_repro: {tmp_path / 'gone.json'}: no such file; ")
    assert [each.name for each in tmp_path.iterdir()] == ["results.json"]


def test_unwritable(tmp_path, capsys):
    """A folder that can't be made exits 1 with one line that names the file."""
    path = written(tmp_path, run())
    assert command_line.main(["report", str(path), f"--out={path / 'below'}"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"python -m alexnet_repro: {path / 'below/report.html'} can't be written: ")


@pytest.mark.parametrize("arguments", [[], ["a", "b", "c"], ["a", "--output=b"]])
def test_wrong_arguments(capsys, arguments):
    """No file, three files or another option exit 2 with one line that says where help is."""
    with pytest.raises(SystemExit) as exited:
        command_line.main(["report", *arguments])
    assert exited.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--help" in err


def test_without_keras(tmp_path):
    """It starts fast: neither Keras nor a backend is imported; nor does it need a display."""
    path = written(tmp_path, FAILED)
    command = [sys.executable, "-X", "importtime", "-m", "alexnet_repro", "report", str(path), str(path)]
    package = Path(alexnet_repro.__file__).parents[1]
    done = subprocess.run(
        command,
        cwd=package,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "alexnet_repro.verify.report.page" in imported
    assert not imported & {"keras", "tensorflow", "jax", "torch", "matplotlib.pyplot"}


def test_bytes_are_those_of_another_process(tmp_path):
    """Another process writes the same bytes, whatever its hashes start from."""
    here, there = (written(tmp_path / name, FAILED) for name in ("here", "there"))
    assert command_line.main(["report", str(here)]) == 0
    command = [sys.executable, "-m", "alexnet_repro", "report", str(there)]
    package = Path(alexnet_repro.__file__).parents[1]
    seed = "1" if os.environ.get("PYTHONHASHSEED") == "2" else "2"
    subprocess.run(command, cwd=package, env={"PYTHONHASHSEED": seed, "HOME": str(tmp_path)}, check=True)
    files, others = ({each.name: each.read_bytes() for each in path.parent.iterdir()} for path in (here, there))
    assert files == others
    assert len(files) == 5


def test_folder_that_cannot_be_written(tmp_path, capsys):
    """Where the report can't be written beside the results, the message names the option for another folder."""
    (tmp_path / "file").write_text("")
    path = written(tmp_path / "run", run())
    assert command_line.main(["report", str(path), f"--out={tmp_path / 'file' / 'folder'}"]) == 1
    assert (
        f"can't be written: {tmp_path}/file is a file, not a folder; name another folder: --out=DIR\n"
        in capsys.readouterr().err
    )


def _learned(**data):
    data = {"losses": [2.0, 1.0], "accuracies": [0.1, 0.2], "batch": 20, **data}
    return finding(check="learning", status="PASS", message="learned", data=data)


def test_numbers_that_no_run_measures(tmp_path, capsys):
    """What can't be drawn ends with one line that names the file, and says what to do."""
    path = written(tmp_path / "run", run(correct=[_learned(batch=1e308)]))
    assert command_line.main(["report", str(path), f"--out={tmp_path / 'out'}"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"python -m alexnet_repro: {path}: what it holds can't be drawn: ")
    assert err.endswith("make a new one: python -m alexnet_repro verify\n")


HUGE = {"cpu_mhz": [1e308, -1e308], "seconds": [0, 1e308], "load": [1, 1]}
ODD = {
    "infinite_rounds": timing(rounds=["inf"] * 3),
    "no_numbers": timing(rounds=["inf", 1.0, "nan"] * 5),
    "huge_rounds": timing(rounds=[1e308, 1e-308] * 5),
    "huge_samples": timing(samples=HUGE),
    "no_bytes": timing(bytes=5e-324),
    "han": timing("train_step[device=漢字-batch=1-precision=float32]", device="漢字😀"),
    "long": timing(f"train_step[device={'x' * 300}-batch=1-precision=float32]", device="x" * 300),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ODD)
def test_odd_numbers_and_names(tmp_path, capsys, odd):
    """Numbers that no run measures, and names in any script, give a page or one line, without a library's warnings."""
    content = run(timings=[ODD[odd], timing("forward")], correct=[_learned(losses=["inf", "nan"])])
    rates = {"device": ODD[odd]["device"], "matmul": {"float32": 2e11}, "memory": 1e10}
    paths = [str(written(tmp_path / name, content | {"calibrations": [rates]})) for name in "ab"]
    for given in (paths[:1], paths):
        status = command_line.main(["report", *given])
        err = capsys.readouterr().err
        assert (status, err) == (0, "") or (status, err.count("\n"), paths[0] in err) == (1, 1, True)


def test_file_without_end(tmp_path, capsys):
    """A file that has no end is read up to what a results file may have."""
    (tmp_path / "results.json").symlink_to("/dev/zero")
    assert command_line.main(["report", str(tmp_path / "results.json")]) == 1
    wrong = "can't be read: it has more than 33,554,432 bytes, which no run writes"
    assert capsys.readouterr().err == f"python -m alexnet_repro: {tmp_path / 'results.json'} {wrong}\n"
