"""Fashion-MNIST's files: where they are looked for, and that only the published bytes are used."""

import gzip
import itertools
import os
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


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        (NAMES[0], "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        (NAMES[1], "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        (NAMES[2], "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        (NAMES[3], "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ],
    ids=[f"file={name}" for name in NAMES],
)
def test_published_content(name, sha256):
    """What the published files hold, by SHA-256: `gunzip --stdout FILE | sha256sum`."""
    assert {file.name: file.unpacked_sha256 for file in fashion_mnist.FILES}[name] == sha256


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


UNPACKED = {name: gzip.decompress(content) for name, content in CONTENT.items()}


def _as_torchvision(folder):
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in UNPACKED.items():
        (raw / name.removesuffix(".gz")).write_bytes(content)


def _as_published(folder):
    (folder / "data" / "fashion").mkdir(parents=True)
    fill(folder / "data" / "fashion")


def _by_a_browser(folder):
    for number, content in enumerate(CONTENT.values()):
        (folder / f"download ({number})").write_bytes(content)
        (folder / f"as long as {number}").write_bytes(bytes(len(content)))


@pytest.mark.parametrize(
    "put",
    [
        lambda folder: [(folder / name[:-3]).write_bytes(content) for name, content in UNPACKED.items()],
        lambda folder: fill(folder, UNPACKED),
        _as_torchvision,
        _as_published,
        _by_a_browser,
    ],
    ids=[f"put={how}" for how in ("unpacked", "unpacked_as_gz", "torchvision", "repository", "browser")],
)
@pytest.mark.parametrize("place", PLACES)
def test_as_people_have_it(places, server, place, put):
    """The files are found unpacked, where others put them and under other names, each by its own checksum."""
    put(places[place])
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert not server.requested


def test_of_tensorflow_datasets(places, server, tmp_path):
    """What TensorFlow Datasets downloaded is found by its checksum, under the names that it gives."""
    (tmp_path / "tfds" / "downloads").mkdir(parents=True)
    _by_a_browser(tmp_path / "tfds" / "downloads")
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert not server.requested


def test_no_silent_download(places, server, caplog):
    """A folder that was named and hasn't the files is named before anything is downloaded, with what it has."""
    (places["data_dir"] / "MNIST").mkdir()
    (places["data_dir"] / "notes.txt").touch()
    places["variable"].rmdir()
    assert_is_the_data(load_fashion_mnist(places["data_dir"]))
    assert len(server.requested) == 4
    assert [record.message for record in caplog.records] == [
        (
            f"not all of Fashion-MNIST is in {places['data_dir']} (it has MNIST, notes.txt); "
            f"downloading 4 files into {places['cache']}"
        ),
        (
            f"not all of Fashion-MNIST is in {places['variable']} (not there, or not accessible); "
            f"downloading 4 files into {places['cache']}"
        ),
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is not the published file, but a Git LFS pointer to it (git lfs",
        ),
        (HTML, "is not the published file, but a web page: expected"),
        (UNPACKED[NAMES[0]][:-1], "is not the published file: expected what that has unpacked, with SHA-256"),
    ],
    ids=["content=git_lfs", "content=html", "content=cut_off"],
)
def test_what_it_is_instead(places, server, content, words):
    """What else a file is known to be is named."""
    (places["data_dir"] / NAMES[0].removesuffix(".gz")).write_bytes(content)
    with pytest.raises(CorruptDataError) as caught:
        load_fashion_mnist(places["data_dir"])
    assert words in str(caught.value)
    assert set(server.requested) <= set(NAMES[1:])


@pytest.mark.parametrize(
    "digest",
    [
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ],
    ids=lambda digest: f"digest={digest[:8]}",
)
def test_digits(digest):
    """MNIST's four files, which have the same names, are known by their published checksums, packed and unpacked."""
    assert fashion_mnist._what_else(b"", digest).startswith(", but MNIST's handwritten digits")


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
    others = st.sampled_from([b"", HTML, same_pixels, idx(ARRAYS[name][::-1]), gzip.decompress(content)[:-1]])
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
        pytest.param(os.mkfifo, "it isn't a regular file", "rm ", id="instead=pipe"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), "it isn't a regular file", "rm ", id="instead=device"),
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


def test_file_without_end(places, monkeypatch):
    """Of a file that is far too long no more is read than the longest published one has."""
    monkeypatch.setattr(fashion_mnist, "LARGEST_DATA_FILE", 100)
    fill(places["data_dir"], {NAMES[0]: bytes(99)})
    with pytest.raises(CorruptDataError, match="found 99 bytes with"):
        load_fashion_mnist(places["data_dir"])
    fill(places["data_dir"], {NAMES[0]: bytes(101)})
    with pytest.raises(CorruptDataError, match="found 100 bytes or more with"):
        load_fashion_mnist(places["data_dir"])


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
