"""Fashion-MNIST's files: where they are looked for, and that only the published bytes are used."""

import gzip
import itertools
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_repro import CorruptDataError, MissingDataError, load_fashion_mnist
from alexnet_repro.data import fashion_mnist
from tests.helpers.data_server import ARRAYS, CONTENT, HTML, NAMES, assert_is_the_data, fill, idx, sha256

PLACES = ("data_dir", "variable", "cache")  # in the order they are looked in


@pytest.mark.parametrize(
    ("name", "size", "sha256"),
    [
        (NAMES[0], 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (NAMES[1], 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (NAMES[2], 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (NAMES[3], 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ],
    ids=[f"file={name}" for name in NAMES],
)
def test_published_files(name, size, sha256):
    """The files expected are the published ones, by name, size and SHA-256."""
    assert {file.name: (file.size, file.sha256) for file in fashion_mnist.FILES}[name] == (size, sha256)


@pytest.mark.parametrize(("split", "per_class"), [("train", 6_000), ("test", 1_000)])
def test_real_data(split, per_class):
    """The published files, where this machine has them, hold ten classes of 28x28 images, equally many of each."""
    places = fashion_mnist._places(None)
    if not all(fashion_mnist._find(file, places) for file in fashion_mnist.FILES):
        pytest.skip("no Fashion-MNIST here: name a folder with the four files by ALEXNET_REPRO_DATA")
    images, labels = dict(zip(("train", "test"), load_fashion_mnist(), strict=True))[split]
    assert (images.shape, images.dtype) == ((10 * per_class, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((10 * per_class,), np.uint8)
    assert np.bincount(labels).tolist() == [per_class] * 10


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(PLACES, 2)))
def test_order_of_places(places, server, first, second):
    """`data_dir` comes before the environment's folder, that before Keras's cache, and that before a download."""
    forged = {NAMES[1]: b"forged"}
    fill(places[first])
    fill(places[second], forged)
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    fill(places[first], forged)
    fill(places[second])
    with pytest.raises(CorruptDataError) as caught:
        load_fashion_mnist(places["data_dir"])
    assert str(places[first] / NAMES[1]) in str(caught.value)
    assert not server.requested


def test_each_file_is_looked_for_by_itself(places, server):
    """Three files in three places and the fourth on the server make one data set."""
    for place, name in zip(PLACES, NAMES, strict=False):
        (places[place] / name).write_bytes(CONTENT[name])
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert server.requested == [NAMES[3]]


def _mutations(name):
    """Return what a file may have become: flipped, cut, longer, empty, another file's format, or anything."""
    content = CONTENT[name]

    def flip(changes):
        flipped = bytearray(content)
        for position, bits in changes.items():
            flipped[position] ^= bits
        return bytes(flipped)

    flips = st.dictionaries(st.integers(0, len(content) - 1), st.integers(1, 255), min_size=1).map(flip)
    cuts = st.integers(0, len(content) - 1).map(lambda size: content[:size])
    longer = st.binary(min_size=1).map(lambda tail: content + tail)
    same_pixels = gzip.compress(gzip.decompress(content), mtime=1)
    others = st.sampled_from([b"", HTML, same_pixels, idx(ARRAYS[name][::-1]), gzip.decompress(content)])
    return st.one_of(flips, cuts, longer, others, st.binary())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_mutated_file(places, server, name, place, data):
    """Whatever a file has become, the error says which, what was expected and found and what to type; it stays."""
    found = data.draw(_mutations(name))
    fill(places[place], {name: found})
    path = places[place] / name
    with pytest.raises(CorruptDataError) as caught:
        load_fashion_mnist(places["data_dir"])
    for part in (
        f"{path} is not the published file",
        f"expected {len(CONTENT[name]):,} bytes with SHA-256 {sha256(CONTENT[name])}",
        f"found {len(found):,} bytes with SHA-256 {sha256(found)}",
        f"rm {shlex.quote(str(path))}",
        "export ALEXNET_REPRO_DATA=",
    ):
        assert part in str(caught.value)
    assert path.read_bytes() == found
    assert not server.requested


@pytest.mark.parametrize(
    ("make", "reason", "remove"),
    [
        pytest.param(Path.mkdir, "Is a directory", "rm -r ", id="instead=folder"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "No such file", "rm ", id="instead=dangling_link"),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_unreadable_file(places, place, make, reason, remove):
    """What can't be read is named, with the reason and what to type, and is neither passed over nor replaced."""
    fill(places[place])
    path = places[place] / NAMES[0]
    path.unlink()
    make(path)
    with pytest.raises(CorruptDataError) as caught:
        load_fashion_mnist(places["data_dir"])
    for part in (f"{path} can't be read: {reason}", remove + shlex.quote(str(path)), "export ALEXNET_REPRO_DATA="):
        assert part in str(caught.value)
    assert not path.is_file()


def test_offline(places):
    """Without data and network, one message has the places looked in, the four names, and where to put them."""
    places["variable"].rmdir()
    with pytest.raises(MissingDataError) as caught:
        load_fashion_mnist(places["data_dir"])
    message = str(caught.value)
    for part in (*map(str, places.values()), *NAMES, fashion_mnist.URL, "no connection", "export ALEXNET_REPRO_DATA="):
        assert part in message
    assert f"{places['variable']} (not there" in message
    assert f"{places['data_dir']} (not there" not in message


def test_home_that_is_unknown(places, monkeypatch):
    """A user without a home, or another's that isn't there, keeps no one from the files in a folder that is named."""
    fill(places["data_dir"])
    monkeypatch.setenv("ALEXNET_REPRO_DATA", "~nobody-of-this-name/data")
    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.delenv("HOME", raising=False)
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
