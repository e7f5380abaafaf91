"""Downloads into a shared folder: one process at a time, and each file under its name only once it is verified."""

import contextlib
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import requests
import urllib3
from tqdm import tqdm

from alexnet_repro.data.connection import Proxy, why_not
from alexnet_repro.files import make_folder, sync
from alexnet_repro.locks import locked

# Seconds; the tests shorten them.
TIMEOUT = 30.0  # without an answer, or without a byte
MAX_SECONDS = 3_600.0  # per file, however steadily it trickles
PAUSES = (2.0, 10.0)  # before the second and the third try, which is the last
QUIET_WAIT = 10.0  # for other processes, before a message
MAX_WAIT = 3_600.0  # for other processes

INCOMING = ".incoming-"


class DownloadError(OSError):
    """A file couldn't be downloaded; the message has the reason."""


class _TransientError(DownloadError):
    """Another try may succeed."""


@contextlib.contextmanager
def downloads_into(folder: Path) -> Iterator[Path]:
    """Make `folder`, wait while other processes download into it, and yield an empty folder in it for what comes in.

    That folder is removed afterwards, and those that killed processes left are removed before.

    Raises:
        HeldError: another process still downloads after an hour.
        OSError: `folder` can't be made or written to.
    """
    make_folder(folder)
    with locked(folder / ".download.lock", timeout=MAX_WAIT, quiet=QUIET_WAIT):
        for left in folder.glob(f"{INCOMING}*"):
            shutil.rmtree(left, ignore_errors=True)  # another user's, in a shared cache, may stay
        # Under a name of its own, since one that stays would be in the way.
        with tempfile.TemporaryDirectory(prefix=INCOMING, dir=folder, ignore_cleanup_errors=True) as incoming:
            yield Path(incoming)


def fetch(url: str, incoming: Path, *, size: int, sha256: str) -> Path:
    """Download one file into `incoming`, with a progress bar on stderr, and return its path.

    A server that gives no answer, stalls or breaks off gets three tries in all.

    Raises:
        DownloadError: the file doesn't come, or it isn't the one with this size and SHA-256.
        OSError: it can't be written.
    """
    path = incoming / url.rpartition("/")[2]
    for pause in (*PAUSES, None):
        try:
            _download(url, path, size, sha256)
            break
        except _TransientError as error:
            if pause is None:
                raise DownloadError(f"{path.name}: {error}; tried {len(PAUSES) + 1} times") from error
            print(f"{path.name}: {error}; again in {pause:g} s", file=sys.stderr, flush=True)
            time.sleep(pause)
    with contextlib.suppress(OSError):  # a few file systems have no permissions
        path.chmod(0o644)  # a cache may be shared
    return path


def _download(url: str, path: Path, size: int, sha256: str) -> None:
    name, received, end, digest = path.name, 0, time.monotonic() + MAX_SECONDS, hashlib.sha256()
    with (
        _request(url) as response,
        path.open("wb") as file,
        tqdm(desc=name, total=size, unit="B", unit_scale=True) as bar,
    ):
        _check_headers(response, name, size)
        try:
            while chunk := response.raw.read1(4096, decode_content=True):  # what is there, even a single byte
                received += len(chunk)
                if received > size:
                    raise DownloadError(f"{name}: more than the published file's {size:,} bytes came")
                if time.monotonic() > end:
                    raise DownloadError(f"{name}: only {received:,} of {size:,} bytes came in {MAX_SECONDS:g} s")
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        except urllib3.exceptions.HTTPError as error:
            what = f"no byte in {TIMEOUT:g} s" if "timed out" in str(error) else "the connection broke off"
            raise _TransientError(f"{what} after {received:,} of {size:,} bytes") from error
        if received < size:  # from a server that announced no length
            raise _TransientError(f"the connection ended after {received:,} of {size:,} bytes")
        if digest.hexdigest() != sha256:
            raise DownloadError(f"{name}: what came isn't the published file: its SHA-256 is {digest.hexdigest()}")
        file.flush()
        sync(file.fileno())  # before the rename: a name may reach the disk sooner than the content


def _request(url: str) -> requests.Response:
    try:
        # Unencoded: a .gz file that is unpacked on the way has another hash.
        response = requests.get(url, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"})
    except requests.ReadTimeout as error:
        raise _TransientError(f"no answer in {TIMEOUT:g} s") from error
    except (OSError, ValueError) as error:
        # urllib3's MaxRetryError has the reason why there was no connection; others come of one that broke off.
        if isinstance(error, requests.ConnectionError) and not hasattr(next(iter(error.args), None), "reason"):
            raise _TransientError("the connection broke off before an answer") from error
        raise DownloadError(why_not(error, url)) from error
    if response.status_code == requests.codes.proxy_authentication_required and (proxy := Proxy.of(url)):
        response.close()
        raise DownloadError(proxy.refused(url, f"{response.status_code} {response.reason}"))
    if response.status_code != requests.codes.ok:
        response.close()
        transient = response.status_code in {408, 425, 429, 500, 502, 503, 504}  # worth another try
        kind = _TransientError if transient else DownloadError
        raise kind(f"the server answered {response.status_code} {response.reason} to {url}")
    return response


def _check_headers(response: requests.Response, name: str, size: int) -> None:
    length = response.headers.get("Content-Length", "")
    if "html" in response.headers.get("Content-Type", ""):
        raise DownloadError(f"{name}: the server sent a web page; is a sign-in or a proxy in between?")
    if length.isdecimal() and int(length) != size and "Content-Encoding" not in response.headers:
        raise DownloadError(f"{name}: the server announces {int(length):,} bytes, the published file has {size:,}")
