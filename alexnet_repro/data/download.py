"""Fetch published files into a folder: one process at a time, and each under its name only when it is verified."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pooch
import requests
import urllib3
from tqdm import tqdm

# Seconds, and the tests' to shorten.
TIMEOUT = 30.0  # without an answer, or without a byte
LONGEST = 3_600.0  # for one file, however steadily it trickles
PAUSES = (2.0, 10.0)  # before the second and the third try; there is no fourth
SILENCE = 10.0  # that others may be waited for without a word

INCOMING = ".incoming-"
CHUNK = 1 << 12  # bytes; as often is the time looked at
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP's words for: later, perhaps


class DownloadError(OSError):
    """A file couldn't be fetched; the message says why."""


class _BrokenError(DownloadError):
    """It may work another time."""


@contextmanager
def downloads_into(folder: Path) -> Iterator[Path]:
    """Make `folder`, wait while other processes download into it, and give an empty folder in it for what comes in.

    That folder is gone afterwards, and those that killed processes left are gone before.

    Raises:
        OSError: `folder` can't be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".download.lock")
    try:
        lock.acquire(timeout=SILENCE)
    except filelock.Timeout:
        print(f"waiting for another process that downloads: it holds {lock.lock_file}", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        for left in folder.glob(f"{INCOMING}*"):
            shutil.rmtree(left, ignore_errors=True)  # another user's, in a shared cache, may stay
        # Of its own name, since one that stays would be in the way.
        with tempfile.TemporaryDirectory(prefix=INCOMING, dir=folder, ignore_cleanup_errors=True) as incoming:
            yield Path(incoming)
    finally:
        lock.release()


def fetch(url: str, incoming: Path, *, size: int, sha256: str) -> Path:
    """Download one file into `incoming`, and return its path there; a bar on stderr shows how far it is.

    A server that gives no answer, stalls or breaks off is asked three times in all.

    Raises:
        DownloadError: it doesn't come, or something else does.
        OSError: it can't be written.
    """
    name = url.rpartition("/")[2]
    pooch.get_logger().setLevel("WARNING")  # the bar says what is fetched
    pauses = iter(PAUSES)
    while True:
        try:
            fetched = Path(
                pooch.retrieve(
                    url,
                    known_hash=f"sha256:{sha256}",
                    fname=name,
                    path=incoming,
                    downloader=lambda url, output, _: _stream(url, Path(output), size),
                )
            )
        except _BrokenError as error:
            pause = next(pauses, None)
            if pause is None:
                raise DownloadError(f"{name}: {error}; tried {len(PAUSES) + 1} times") from error
            print(f"{name}: {error}; again in {pause:g} s", file=sys.stderr, flush=True)
            time.sleep(pause)
        except ValueError as error:  # pooch's word for the wrong hash
            raise DownloadError(f"what came isn't the published file: {error}") from error
        else:
            fetched.chmod(0o644)  # pooch leaves it to its owner alone, and a cache may be shared
            return fetched


def _stream(url: str, output: Path, size: int) -> None:
    """Write what a server sends to `output`; no more than `size` bytes, and not for ever."""
    name, came, end = url.rpartition("/")[2], 0, time.monotonic() + LONGEST
    with (
        _answer(url) as answer,
        output.open("wb") as file,
        tqdm(desc=name, total=size, unit="B", unit_scale=True) as bar,
    ):
        _check_announced(answer, name, size)
        try:
            while chunk := answer.raw.read1(CHUNK, decode_content=True):  # what is there, be it a byte
                came += len(chunk)
                if came > size:
                    raise DownloadError(f"{name}: more than the published file's {size:,} bytes came")
                if time.monotonic() > end:
                    raise DownloadError(f"{name}: only {came:,} of {size:,} bytes came in {LONGEST:g} s")
                file.write(chunk)
                bar.update(len(chunk))
        except urllib3.exceptions.HTTPError as error:
            what = f"no byte in {TIMEOUT:g} s" if "timed out" in str(error) else "the connection broke off"
            raise _BrokenError(f"{what} after {came:,} of {size:,} bytes") from error
        if came < size:  # of a server that didn't say how many there would be
            raise _BrokenError(f"the connection ended after {came:,} of {size:,} bytes")
        file.flush()
        os.fsync(file.fileno())  # before it gets its name: a name may reach the disk sooner than what it names


def _answer(url: str) -> requests.Response:
    try:
        # As it is: a .gz file that was unpacked on the way has another hash.
        answer = requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    except requests.ConnectTimeout as error:
        raise DownloadError(f"no connection in {TIMEOUT:g} s") from error
    except requests.Timeout as error:
        raise _BrokenError(f"no answer in {TIMEOUT:g} s") from error
    except requests.ConnectionError as error:
        # urllib3's MaxRetryError has the reason why there was no connection; others come of one that broke off.
        if hasattr(next(iter(error.args), None), "reason"):
            raise DownloadError(f"no connection ({type(error).__name__})") from error
        raise _BrokenError("the connection broke off before an answer") from error
    except requests.RequestException as error:
        raise DownloadError(str(error)) from error
    if answer.status_code != requests.codes.ok:
        answer.close()
        said = f"the server answered {answer.status_code} {answer.reason} to {url}"
        raise (_BrokenError if answer.status_code in TRANSIENT else DownloadError)(said)
    return answer


def _check_announced(answer: requests.Response, name: str, size: int) -> None:
    if "html" in answer.headers.get("Content-Type", ""):
        raise DownloadError(f"{name}: the server sent a web page; is a sign-in or a proxy in between?")
    announced = answer.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) != size and "Content-Encoding" not in answer.headers:
        raise DownloadError(f"{name}: the server announces {int(announced):,} bytes, the published file has {size:,}")
