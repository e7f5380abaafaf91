"""The reader of weights files: recognized by content, whatever the name; nothing in a file is run."""

import itertools
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

HDF5, ZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"
INSIDE = "model.weights.h5"  # of a .keras archive

# What h5py, zipfile and json raise for corrupt content. RuntimeError has RecursionError, and passwords; ValueError
# has UnicodeDecodeError and JSONDecodeError; AttributeError and TypeError come of an array where a group belongs.
DAMAGE = (
    *(AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)


class WeightsError(OSError):
    """A file doesn't hold the model's weights; the model is unchanged."""


class _Refused(Exception):  # noqa: N818  # it says why, and becomes a WeightsError
    """Why a readable file is refused."""


def read_weights(path: str | os.PathLike[str], wanted: Mapping[str, Sequence[Any]]) -> dict[str, list[np.ndarray]]:
    """Return each layer's arrays in a weights file, in the order of `wanted`.

    The file is Keras 3's `.weights.h5` or `.keras`, or HDF5 as TensorFlow 2.0.0's `save_weights` or `save` wrote it.
    Of a `.keras` archive and of a full model only the arrays are read; no model is built from its configuration.
    `wanted` has the Keras variables of each layer with weights, by the layer's name, in the model's order.

    Raises:
        WeightsError: it can't be read, is none of these, has a Lambda layer, or a layer or variable differs from the
            model's: the message has one line and names the first.
    """
    try:
        try:
            with _hdf5(Path(path)) as file:
                return _match(*_find(file), wanted)
        except DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise _Refused(f"it is truncated or corrupt ({reason})") from error
    except _Refused as refused:
        raise WeightsError(f"{path} doesn't hold this model's weights: {refused}") from refused.__cause__


@contextmanager
def _hdf5(path: Path) -> Iterator[h5py.File]:
    """Open the HDF5 file that is at `path`, or in the archive there."""
    try:
        if path.is_dir():
            raise _Refused("it is a folder; name a file in it")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise _Refused("it isn't a regular file")
        raw: IO[bytes] = path.open("rb")
    except OSError as error:
        raise _Refused(f"it can't be read: {error.strerror}") from error
    with ExitStack() as stack:
        start = stack.enter_context(raw).read(64)
        raw.seek(0)
        if start.startswith(ZIP):
            archive = stack.enter_context(zipfile.ZipFile(raw))
            if missing := {"config.json", INSIDE} - set(archive.namelist()):
                raise _Refused(f"it is a ZIP archive, but not a .keras one: it has no {min(missing)}")
            _refuse_code(archive.read("config.json"))
            raw = stack.enter_context(archive.open(INSIDE))
        elif not start.startswith(HDF5):
            other = f"neither HDF5 nor .keras; it starts with {start[:24]!r}"
            raise _Refused(f"it is {other if start else 'empty'}")
        yield stack.enter_context(h5py.File(raw, "r"))


def _refuse_code(config: str | bytes) -> None:
    """Refuse a model with code in it: it would never be run, but this model doesn't compute what it does."""

    def check(part: dict[str, Any]) -> None:
        if part.get("class_name") in {"Lambda", "__lambda__"}:
            raise _Refused("it has a Lambda layer, that is, code, which is never run; this model has none")

    json.loads(config, object_hook=check)


def _find(file: h5py.File) -> tuple[dict[str, list[Any]], bool]:
    """Return each layer's datasets, and whether the layers are in the model's order, so that names may differ."""
    if "model_config" in file.attrs:  # of a full model
        _refuse_code(file.attrs["model_config"])
    for group in (file, *([_member(file, "model_weights")] if "model_weights" in file else [])):
        if names := _names(group, "layer_names"):  # TensorFlow 2.0.0's
            layers = {name: (_member(group, name), _names(_member(group, name), "weight_names")) for name in names}
            return {name: [_member(layer, each) for each in own] for name, (layer, own) in layers.items() if own}, True
    if "layers" not in file:
        raise _Refused(f"it is HDF5, but of another layout than Keras 3's or TensorFlow 2.0.0's: it has {sorted(file)}")
    group = _member(file, "layers")  # Keras 3's, named by class (`conv2d_1`), as the documented layers are
    variables = {name: _member(group, f"{name}/vars") for name in group if "vars" in _member(group, name)}
    found = {name: [_member(each, str(n)) for n in range(len(each))] for name, each in variables.items()}
    return {name: datasets for name, datasets in found.items() if datasets}, False


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
            raise _Refused(f"{part} in {group.name} is a link to elsewhere")
        group = group[part]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise _Refused(f"{group.name} lies in another file")
    return group


def _match(
    found: Mapping[str, Sequence[Any]], in_order: bool, wanted: Mapping[str, Sequence[Any]]
) -> dict[str, list[np.ndarray]]:
    """Return the arrays of each layer wanted: by name if the names agree, otherwise by order if there is one."""
    if found.keys() != wanted.keys() and not (in_order and len(found) == len(wanted)):
        missing = ", ".join(name for name in wanted if name not in found) or "none"
        extra = ", ".join(name for name in found if name not in wanted) or "none"
        raise _Refused(
            f"it has {len(found)} layers with weights, the model has {len(wanted)}; "
            f"missing in the file: {missing}; only in the file: {extra}"
        )
    # By order: of a second model in one process, whose names are conv2d_5 …
    pairs = dict(zip(wanted, wanted if found.keys() == wanted.keys() else found, strict=True))
    for name, theirs in pairs.items():
        layer = f"layer {name}" if name == theirs else f"layer {name} ({theirs} in the file)"
        _compare(layer, found[theirs], wanted[name])
    return {name: [np.asarray(dataset[()]) for dataset in found[theirs]] for name, theirs in pairs.items()}


def _compare(layer: str, datasets: Sequence[Any], variables: Sequence[Any]) -> None:
    if len(datasets) != len(variables):
        ours = ", ".join(variable.name for variable in variables)
        raise _Refused(f"{layer} has {len(datasets)} variables in the file and {len(variables)} in the model ({ours})")
    for dataset, variable in zip(datasets, variables, strict=True):
        if not isinstance(dataset, h5py.Dataset):
            raise TypeError(f"{dataset.name} is no array")
        # Other dtypes are refused: converting would change the weights, or not be possible.
        shapes, dtypes = (dataset.shape, tuple(variable.shape)), (str(dataset.dtype), variable.dtype)
        for what, (there, here) in (("shape ", shapes), ("", dtypes)):
            if there != here:
                raise _Refused(f"{layer}, variable {variable.name}: {what}{there} in the file, {here} in the model")
