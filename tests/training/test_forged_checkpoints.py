"""Checkpoints made to mislead, their SHA-256 right: each is skipped in one line, and the training is as asked."""

import functools
import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from alexnet_repro import build_alexnet
from alexnet_repro.training.weights_file import arrays_digest
from tests.helpers.models import narrow_layers
from tests.helpers.short_runs import short_run

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A model whose updates nobody makes; a folder with the checkpoints of updates 4 and 8 of 24; all 24 losses."""
    folder, settings = tmp_path_factory.mktemp("stopped"), {"keep": 100}
    with narrow_layers():
        model = build_alexnet((67, 67, 1), kernel_initializer="zeros")
        whole, _, _ = short_run(model, folder, settings=settings)
    for path in sorted(folder.glob("*.npz"))[2:]:
        path.unlink()
    return model, folder, whole.losses


@pytest.fixture
def run(stopped, tmp_path):
    """The rest of that training, in the test's folder."""
    for path in stopped[1].glob("*.npz"):
        shutil.copy2(path, tmp_path)
    return functools.partial(short_run, stopped[0], tmp_path, settings={"every": 100})


def bytes_of(text):
    """Return a text as an archive holds it."""
    return np.frombuffer(text.encode(), np.uint8)


def forged(arrays=(), **description):
    """Return a change of a checkpoint: arrays (None: left out) and the description's values (None: left out)."""

    def change(path):
        with np.load(path) as archive:
            kept = {name: each for name, each in {**archive, **dict(arrays)}.items() if each is not None}
        if "description" not in dict(arrays):
            data = {**json.loads(kept["description"].tobytes()), **description}
            text = json.dumps({name: each for name, each in data.items() if each is not None})
            kept["description"] = bytes_of(text)
        del kept["sha256"]
        digest = bytes.fromhex(arrays_digest(sorted(kept.items())))
        np.savez(path, **kept, sha256=np.frombuffer(digest, np.uint8))

    return change


def declaring(shape, *, compressed=b""):
    """Return a change into an archive of one array that declares a shape, in a few kilobytes."""

    def change(path):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("000.npy", header.getvalue() + compressed)

    return change


def array_file(path):
    """Replace a checkpoint by a plain array's file."""
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def pipe(path):
    """Replace a checkpoint by a pipe, which would be waited for."""
    path.unlink()
    os.mkfifo(path)


def link(target):
    """Return a change into a symbolic link; a dangling one too."""

    def change(path):
        path.unlink()
        path.symlink_to(target)

    return change


SIX, EIGHT = np.ones(6), np.ones(8)
FORGED = {  # of a checkpoint after draw 4 and update 8
    "no_variables": (forged({"000": None, "001": None}), "its arrays aren't the model's"),
    "one_variable": (forged({"001": None}), "its arrays aren't the model's"),
    "extra_variable": (forged({"002": SIX}), "its arrays aren't the model's"),
    "shape": (forged({"000": np.zeros((3, 1), np.float32)}), "its arrays aren't the model's"),
    "dtype": (forged({"000": np.zeros(3)}), "its arrays aren't the model's"),
    "infinite": (forged({"000": np.full(3, np.inf, np.float32)}), "its arrays aren't all finite"),
    "no_losses": (forged({"losses": None}), "'losses'"),
    "few_losses": (forged({"losses": SIX, "accuracies": SIX}), "its losses or accuracies aren't those of 8 updates"),
    "no_updates": (forged({"losses": SIX[:0]}, draws=2), "2 draws, 32 images"),
    "texts_as_losses": (forged({"losses": EIGHT.astype("U3")}), "its losses or accuracies aren't those of 8 updates"),
    "nan_as_loss": (forged({"losses": EIGHT * np.nan}), "its losses or accuracies aren't those of 8 updates"),
    "more_draws": (forged(draws=12), "12 draws, 32 images"),
    "beyond_the_end": (
        forged({"losses": np.ones(26), "accuracies": np.ones(26)}, draws=13, images=104),
        "13 draws, 10",
    ),
    "no_draws": (forged({"losses": SIX[:0], "accuracies": SIX[:0]}, draws=0, images=0), "0 draws, 0 images"),
    "draws_below_0": (forged(draws=-5), "1 validation error for History draws"),
    "draws_as_text": (forged(draws="x"), "1 validation error for History draws"),
    "draws_by_half": (forged(draws=4.5), "1 validation error for History draws"),
    "begun_below_0": (forged(begun=-7), "1 validation error for History begun"),
    "begun_beyond_32_bits": (forged(begun=2**32 - 1), "4 draws, 32 images"),
    "endless": (forged(seconds=float("inf")), "4 draws, 32 images and inf s"),
    "evaluations": (forged(evaluations=[[1, {"bogus": 1}]]), "3 validation errors for History"),
    "versions": (forged(versions=3), "'int' object is not iterable"),
    "list_as_identity": (forged(identity=[1, 2]), ""),
    "no_identity": (forged(identity=None), "'identity'"),
    "list_as_description": (forged({"description": bytes_of("[1, 2]")}), "list indices must be integers"),
    "deep_description": (forged({"description": bytes_of("[" * 100_000)}), ""),
    "bytes_as_description": (forged({"description": np.array([255, 254], np.uint8)}), ""),
    "description_changed": (lambda path: forged()(path) or _swap(path), "its SHA-256 isn't that of its content"),
    "declares_373_gib": (declaring((10**11,), compressed=bytes(10**6)), "it declares more bytes than it has"),
    "declares_and_lacks": (declaring((10**11,)), "cannot reshape array of size 0 into shape (100000000000,)"),
    "array": (array_file, "File is not a zip file"),
    "pipe": (pipe, "it isn't a regular file"),
    "endless_device": (link("/dev/zero"), "it isn't a regular file"),
    "dangling_link": (link("nowhere"), "it isn't a regular file"),
    "loop": (link("update-00000008.npz"), ""),
}


def _swap(path):
    """Change the description alone, as no hash of the arrays would notice."""
    with np.load(path) as archive:
        kept = dict(archive)
    kept["description"] = bytes_of(kept["description"].tobytes().decode().replace('"draws": 4', '"draws": 9'))
    np.savez(path, **kept)


@pytest.mark.parametrize(("change", "reason"), FORGED.values(), ids=[f"forged={name}" for name in FORGED])
def test_forged_checkpoints(run, stopped, tmp_path, change, reason):
    """A forged checkpoint is corrupt, the one before is used, and the result is the same."""
    before, latest = sorted(tmp_path.glob("*.npz"))
    time = latest.stat().st_mtime_ns
    change(latest)
    os.utime(latest, ns=(time, time), follow_symlinks=False)
    resumed, _, messages = run()
    assert messages[0].startswith(f"{latest} skipped: corrupt ({reason}")
    assert messages[0].isprintable()
    assert messages[1:] == [f"resuming from {before}, after update 4"]
    np.testing.assert_array_equal(resumed.losses, stopped[2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (forged(format="\x1b[31mRED\x07"), "its format is '\\x1b[31mRED\\x07', this version reads 4"),
        (forged(format=3), "its format is 3, this version reads 4"),
        (
            forged(identity={"\x1b]0;x": "\n"}),
            "belongs to a different run: \\x1b]0;x is '\\n' there, 'None' here; data",
        ),
    ],
    ids=[f"foreign={name}" for name in ("format", "earlier_format", "key")],
)
def test_foreign_descriptions(run, tmp_path, change, reason):
    """What a foreign checkpoint says is quoted, in characters that no terminal obeys."""
    latest = max(tmp_path.glob("*.npz"))
    change(latest)
    os.utime(latest)
    _, _, messages = run()
    assert messages[0].startswith(f"{latest} skipped: {reason}")
    assert messages[0].isprintable()


def test_folder_under_a_checkpoints_name(run, tmp_path):
    """A folder is no checkpoint: it is neither read, nor counted among the latest, nor removed."""
    (tmp_path / "update-00000024.npz").mkdir()
    _, _, messages = run(stop_after=1)
    assert messages == [f"resuming from {tmp_path}/update-00000008.npz, after update 8"]
    assert len(list(tmp_path.glob("*.npz"))) == 4
