"""The reader of weights files: recognized by content, whatever the name; nothing in a file is run."""

import itertools
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

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


class Variable(NamedTuple):
    """One of a layer's variables, in the model."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class _Refused(Exception):  # noqa: N818  # it says why, and becomes a WeightsError
    """Why a readable file is refused."""


class _Found(NamedTuple):
    layers: dict[str, list[Any]]
    """The datasets of each layer with weights, in the layer's own order."""
    in_order: bool
    """Whether the layers are in the model's order, so that names may differ."""


def read_weights(path: str | os.PathLike[str], wanted: Mapping[str, Sequence[Variable]]) -> dict[str, list[np.ndarray]]:
    """Return each layer's arrays in a weights file, in the order of `wanted`.

    The file is Keras 3's `.weights.h5` or `.keras`, or HDF5 as TensorFlow 2.0.0's `save_weights` or `save` wrote it.
    Of a `.keras` archive and of a full model only the arrays are read; no model is built from its configuration.

    Args:
        path: the file, under any name.
        wanted: the variables of each layer that has some, by the layer's name, in the model's order.

    Raises:
        WeightsError: it can't be read, is none of these, has a Lambda layer, or a layer or variable differs from the
            model's: the message has one line and names the first.
    """
    path = Path(path)
    try:
        with _open(path) as raw:
            try:
                with _hdf5(raw) as file:
                    matched = _match(_find(file), wanted)
                    return {name: [np.asarray(dataset[()]) for dataset in matched[name]] for name in wanted}
            except DAMAGE as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                raise _Refused(f"it is truncated or corrupt ({reason})") from error
    except _Refused as refused:
        raise WeightsError(f"{path} doesn't hold this model's weights: {refused}") from refused.__cause__


def _open(path: Path) -> BinaryIO:
    try:
        if path.is_dir():
            raise _Refused("it is a folder; name a file in it")
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise _Refused("it isn't a regular file")
        return path.open("rb")
    except OSError as error:
        raise _Refused(f"it can't be read: {error.strerror}") from error


@contextmanager
def _hdf5(raw: BinaryIO) -> Iterator[h5py.File]:
    """Open the HDF5 file that `raw` is, or that is in its archive."""
    start = raw.read(64)
    raw.seek(0)
    if start.startswith(HDF5):
        with h5py.File(raw, "r") as file:
            yield file
    elif start.startswith(ZIP):
        with zipfile.ZipFile(raw) as archive:
            _refuse_other_archives(archive)
            with archive.open(INSIDE) as inside, h5py.File(inside, "r") as file:
                yield file
    elif start:
        raise _Refused(f"it is neither HDF5 nor .keras; it starts with {start[:24]!r}")
    else:
        raise _Refused("it is empty")


def _refuse_other_archives(archive: zipfile.ZipFile) -> None:
    missing = {"config.json", INSIDE} - set(archive.namelist())
    if missing:
        raise _Refused(f"it is a ZIP archive, but not a .keras one: it has no {min(missing)}")
    _refuse_code(archive.read("config.json"))


def _refuse_code(config: str | bytes) -> None:
    """Refuse a model with code in it: it would never be run, but this model doesn't compute what it does."""

    def check(part: dict[str, Any]) -> None:
        if part.get("class_name") in {"Lambda", "__lambda__"}:
            raise _Refused("it has a Lambda layer, that is, code, which is never run; this model has none")

    json.loads(config, object_hook=check)


def _find(file: h5py.File) -> _Found:
    if "model_config" in file.attrs:  # of a full model
        _refuse_code(file.attrs["model_config"])
    if _names(file, "layer_names"):
        return _Found(_tensorflow_2(file), in_order=True)
    if "model_weights" in file and _names(_member(file, "model_weights"), "layer_names"):
        return _Found(_tensorflow_2(_member(file, "model_weights")), in_order=True)
    if "layers" in file:
        return _Found(_keras_3(_member(file, "layers")), in_order=False)
    raise _Refused(f"it is HDF5, but of another layout than Keras 3's or TensorFlow 2.0.0's: it has {sorted(file)}")


def _tensorflow_2(group: h5py.Group) -> dict[str, list[Any]]:
    layers = {name: _member(group, name) for name in _names(group, "layer_names")}
    variables = {name: _names(layer, "weight_names") for name, layer in layers.items()}
    return {name: [_member(layers[name], each) for each in names] for name, names in variables.items() if names}


def _keras_3(group: h5py.Group) -> dict[str, list[Any]]:
    """Read Keras 3's groups, named by class (`conv2d_1`), as the documented layers are."""
    variables = {name: _member(group, f"{name}/vars") for name in group if "vars" in _member(group, name)}
    return {name: [_member(each, str(n)) for n in range(len(each))] for name, each in variables.items() if len(each)}


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


def _match(found: _Found, wanted: Mapping[str, Sequence[Variable]]) -> dict[str, list[Any]]:
    """Return the datasets of each layer wanted: by name if the names agree, otherwise by order if there is one."""
    if found.layers.keys() == wanted.keys():
        theirs = {name: name for name in wanted}
    elif found.in_order and len(found.layers) == len(wanted):  # of a second model in one process: conv2d_5 …
        theirs = dict(zip(wanted, found.layers, strict=True))
    else:
        missing = ", ".join(name for name in wanted if name not in found.layers) or "none"
        extra = ", ".join(name for name in found.layers if name not in wanted) or "none"
        raise _Refused(
            f"it has {len(found.layers)} layers with weights, the model has {len(wanted)}; "
            f"missing in the file: {missing}; only in the file: {extra}"
        )
    for name, variables in wanted.items():
        _compare(name, theirs[name], found.layers[theirs[name]], variables)
    return {name: found.layers[theirs[name]] for name in wanted}


def _compare(name: str, theirs: str, datasets: Sequence[Any], variables: Sequence[Variable]) -> None:
    layer = f"layer {name}" if name == theirs else f"layer {name} ({theirs} in the file)"
    if len(datasets) != len(variables):
        ours = ", ".join(variable.name for variable in variables)
        raise _Refused(f"{layer} has {len(datasets)} variables in the file and {len(variables)} in the model ({ours})")
    for dataset, variable in zip(datasets, variables, strict=True):
        if not isinstance(dataset, h5py.Dataset):
            raise TypeError(f"{dataset.name} is no array")
        shape, dtype = dataset.shape, str(dataset.dtype)
        if shape != variable.shape:
            raise _Refused(
                f"{layer}, variable {variable.name}: shape {shape} in the file, {variable.shape} in the model"
            )
        if dtype != variable.dtype:  # converting would change the weights, or not be possible
            raise _Refused(f"{layer}, variable {variable.name}: {dtype} in the file, {variable.dtype} in the model")
