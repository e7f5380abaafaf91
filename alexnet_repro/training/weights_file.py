"""The reader of weights files: recognized by content, whatever the name; nothing in a file is run."""

import hashlib
import itertools
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import h5py
import numpy as np

from alexnet_repro.model import LOSSES
from alexnet_repro.training.foreign_files import what_archive, what_file, what_folder

HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
INSIDE = "model.weights.h5"  # of a .keras archive
LONGEST_REASON = 600  # characters; names in a file may be long, and many
LARGEST_CONFIG = 1 << 24  # bytes of its configuration
KERAS_2_13 = "_layer_checkpoint_dependencies"  # where Keras 2.12 and 2.13 keep `layers`
DIGEST_ATTRIBUTE, LOSS_ATTRIBUTE = "alexnet_repro_sha256", "alexnet_repro_loss"  # of files by `save_weights`

# What h5py, zipfile and json raise for corrupt content. RuntimeError has RecursionError, and passwords; ValueError
# has UnicodeDecodeError and JSONDecodeError; AttributeError and TypeError come of an array where a group belongs.
DAMAGE = (
    *(AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)


class WeightsError(OSError):
    """A file doesn't hold the model's weights; the model is unchanged."""


class Refused(Exception):  # noqa: N818  # it says why, and becomes a WeightsError
    """Why a readable file is refused."""


class StoredArray(NamedTuple):
    """An array in a file, not read yet: a declared shape takes no memory."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


Layers = dict[str, list[StoredArray]]


class StoredWeights(NamedTuple):
    """What a file of weights holds."""

    arrays: dict[str, list[np.ndarray]]
    loss: str | None  # that they were trained by, where the file says


def read_weights(path: str | os.PathLike[str], wanted: Mapping[str, Sequence[Any]]) -> StoredWeights:
    """Return each layer's arrays in a weights file, in the order of `wanted`, and by which loss they were trained.

    The file is Keras 3's `.weights.h5` or `.keras`, or HDF5 as TensorFlow 2.0.0's `save_weights` or `save` wrote it;
    under TensorFlow also one of the files, or the folder, that those write by default.
    Of a `.keras` archive and of a full model only the arrays are read; no model is built from its configuration.
    `wanted` has the Keras variables of each layer with weights, by the layer's name, in the model's order.

    Raises:
        WeightsError: it can't be read, is none of these, has a Lambda layer, a layer or variable differs from the
            model's, isn't finite or isn't what was saved: the message has one line and names the first.
    """
    path = Path(path)
    try:
        try:
            if prefix := checkpoint_prefix(path):
                from alexnet_repro.training.tensorflow_checkpoint import stored_layers

                return StoredWeights(_match(stored_layers(prefix), True, wanted), None)
            with _hdf5(path) as file:
                arrays = _match(*_find(file), wanted)
                return StoredWeights(arrays, _intact(file, arrays))
        except DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise Refused(f"it is truncated or corrupt ({reason})") from error
    except Refused as refused:
        text = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(refused))
        text = f"{text[:LONGEST_REASON]} …" if len(text) > LONGEST_REASON else text
        raise WeightsError(f"{path} doesn't hold this model's weights: {text}") from refused.__cause__


def checkpoint_prefix(path: Path) -> Path | None:
    """Return what the names of a TensorFlow checkpoint's files begin with; None: it isn't one.

    `path` may be that, one of the files, or the folder of a SavedModel, which has one.
    """
    if path.name == "saved_model.pb":
        path = path.parent
    if os.path.isdir(path):  # noqa: PTH112 - as below
        prefix = path / "variables" / "variables"
    else:
        prefix = path.with_name(re.sub(r"\.(index|data-\d{5}-of-\d{5})$", "", path.name))
    # Not Path.is_file, which raises of a name too long.
    return prefix if os.path.isfile(f"{prefix}.index") and not os.path.isfile(prefix) else None  # noqa: PTH113


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    """Open the HDF5 file that is at `path`, or in the archive there."""
    try:
        if path.is_dir():
            raise Refused(what_folder(path))
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise Refused("it isn't a regular file")
        raw: IO[bytes] = path.open("rb")
    except OSError as error:
        raise Refused(f"it can't be read: {error.strerror}") from error
    with ExitStack() as stack:
        start = stack.enter_context(raw).read(64)
        raw.seek(0)
        if start.startswith(ZIP):
            archive = stack.enter_context(zipfile.ZipFile(raw))
            if missing := {"config.json", INSIDE} - set(archive.namelist()):
                raise Refused(what_archive(archive.namelist(), min(missing)))
            if (size := archive.getinfo("config.json").file_size) > LARGEST_CONFIG:
                raise Refused(f"its config.json has {size:,} bytes; a model's has a few thousand")
            _refuse_code(archive.read("config.json"))
            raw = stack.enter_context(archive.open(INSIDE))
        elif not start.startswith(HDF5):
            raise Refused(what_file(start))
        yield stack.enter_context(h5py.File(raw, "r"))


def _refuse_code(config: str | bytes) -> None:
    """Refuse a model with code in it: it would never be run, but this model doesn't compute what it does."""

    def check(part: dict[str, Any]) -> None:
        if part.get("class_name") in {"Lambda", "__lambda__"}:
            raise Refused("it has a Lambda layer, that is, code, which is never run; this model has none")

    json.loads(config, object_hook=check)


def _find(file: h5py.File) -> tuple[Layers, bool]:
    """Return each layer's datasets, and whether the layers are in the model's order, so that names may differ."""
    if "model_config" in file.attrs:  # of a full model
        _refuse_code(file.attrs["model_config"])
    for group in (file, *([_member(file, "model_weights")] if "model_weights" in file else [])):
        if names := _names(group, "layer_names"):  # TensorFlow 2.0.0's
            layers = {name: (_member(group, name), _names(_member(group, name), "weight_names")) for name in names}
            return {name: [_stored(layer, each) for each in own] for name, (layer, own) in layers.items() if own}, True
    if not (place := next((each for each in ("layers", KERAS_2_13) if each in file), None)):
        raise Refused(f"it is HDF5, but of another layout than Keras 3's or TensorFlow 2.0.0's: it has {sorted(file)}")
    group = _member(file, place)  # Keras 3's, named by class (`conv2d_1`), as the documented layers are
    variables = {name: _member(group, f"{name}/vars") for name in group if "vars" in _member(group, name)}
    found = {name: [_stored(each, str(n)) for n in range(len(each))] for name, each in variables.items() if len(each)}
    return _numbered(found) if place == KERAS_2_13 else found, False


def _numbered(found: Layers) -> Layers:
    """Return layers by class and number from zero; Keras 2.12 and 2.13 count each one twice."""
    numbers: dict[str, int] = {}
    renamed = {}
    for name in sorted(found, key=lambda name: (len(name), name)):
        kind = re.sub(r"_\d+$", "", name)
        number = numbers[kind] = numbers.get(kind, -1) + 1
        renamed[f"{kind}_{number}" if number else kind] = found[name]
    return renamed


def _stored(group: h5py.Group, name: str) -> StoredArray:
    dataset = _member(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"{dataset.name} is no array")

    def read() -> np.ndarray:
        chunks = dataset.chunks and math.prod(-(-n // of) for n, of in zip(dataset.shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() < chunks if chunks else dataset.id.get_storage_size() < dataset.nbytes:
            raise Refused(f"{dataset.name} was never written; it would be read as zeros")
        return np.asarray(dataset[()])

    return StoredArray(dataset.shape, str(dataset.dtype), read)


def _intact(file: h5py.File, arrays: Mapping[str, Sequence[np.ndarray]]) -> str | None:
    """Return the loss that `save_weights` kept beside the arrays; refuse arrays that aren't those it saved."""
    digest = arrays_digest((name, each) for name, own in arrays.items() for each in own)
    if file.attrs.get(DIGEST_ATTRIBUTE, digest) != digest:
        raise Refused("its SHA-256 isn't that of the weights that were saved in it; the disk or a copy changed them")
    loss = file.attrs.get(LOSS_ATTRIBUTE)
    return loss if loss in LOSSES else None


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names, which may be split over numbered attributes: HDF5 limits each to 64 kB."""
    numbered = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{n}" for n in itertools.count()))
    parts = [attribute] if attribute in group.attrs else numbered
    names = [name for part in parts for name in group.attrs[part]]
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _member(group: h5py.Group, name: str) -> Any:
    """Return the member of a group in this very file; a link could lead to any other file of this machine."""
    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise KeyError(f"no {part} in {group.name}")
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"{part} in {group.name} is a link to elsewhere")
        group = group[part]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise Refused(f"{group.name} lies in another file")
    return group


def _match(
    found: Mapping[str, Sequence[StoredArray]], in_order: bool, wanted: Mapping[str, Sequence[Any]]
) -> dict[str, list[np.ndarray]]:
    """Return the arrays of each layer wanted: by name if the names agree, otherwise by order if there is one."""
    if found.keys() != wanted.keys() and not (in_order and len(found) == len(wanted)):
        missing = ", ".join(name for name in wanted if name not in found) or "none"
        extra = ", ".join(name for name in found if name not in wanted) or "none"
        raise Refused(
            f"it has {len(found)} layer{'s' * (len(found) != 1)} with weights, the model has {len(wanted)}; "
            f"missing in the file: {missing}; only in the file: {extra}"
        )
    # By order: of a second model in one process, whose names are conv2d_5 …
    pairs = dict(zip(wanted, wanted if found.keys() == wanted.keys() else found, strict=True))
    for name, theirs in pairs.items():
        layer = f"layer {name}" if name == theirs else f"layer {name} ({theirs} in the file)"
        _compare(layer, found[theirs], wanted[name])
    arrays = {name: [stored.read() for stored in found[theirs]] for name, theirs in pairs.items()}
    for name, own in arrays.items():
        for variable, array in zip(wanted[name], own, strict=True):
            if wrong := np.count_nonzero(~np.isfinite(array)):
                of = f"{wrong:,} of its {array.size:,} values are NaN or infinite"
                raise Refused(f"layer {name}, variable {variable.name} isn't finite: {of}")
    return arrays


def _compare(layer: str, datasets: Sequence[StoredArray], variables: Sequence[Any]) -> None:
    if len(datasets) != len(variables):
        ours = ", ".join(variable.name for variable in variables)
        raise Refused(f"{layer} has {len(datasets)} variables in the file and {len(variables)} in the model ({ours})")
    for dataset, variable in zip(datasets, variables, strict=True):
        # Other dtypes are refused: converting would change the weights, or not be possible.
        shapes, dtypes = (dataset.shape, tuple(variable.shape)), (dataset.dtype, variable.dtype)
        for what, (there, here) in (("shape ", shapes), ("", dtypes)):
            if there != here:
                raise Refused(f"{layer}, variable {variable.name}: {what}{there} in the file, {here} in the model")


def arrays_digest(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """Return the SHA-256 of arrays: of their names, dtypes, shapes and values, in the order given."""
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()
