"""Stand-ins for the published files, small and always the same, and a server of them on this machine."""

import contextlib
import gzip
import hashlib
import itertools
import socket
import struct
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import NamedTuple

import numpy as np

NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
HTML = b"<!DOCTYPE html><title>Sign in to this network</title>"


def idx(array):
    """Return an array as the published files hold theirs."""
    return gzip.compress(np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes() + array.tobytes(), mtime=0)


# Stand-ins for the published files: five training and three test images.
PIXELS = np.arange(8 * 28 * 28).astype(np.uint8).reshape(8, 28, 28)
LABELS = np.arange(8, dtype=np.uint8)
ARRAYS = dict(zip(NAMES, (PIXELS[:5], LABELS[:5], PIXELS[5:], LABELS[5:]), strict=True))
CONTENT = {name: idx(array) for name, array in ARRAYS.items()}


def sha256(content):
    """Return the digest of a file's content."""
    return hashlib.sha256(content).hexdigest()


def fill(folder, changed=None):
    """Write all four files, those in `changed` with other content."""
    for name, content in (CONTENT | (changed or {})).items():
        (folder / name).write_bytes(content)


def assert_is_the_data(data):
    """Compare what was loaded with the stand-ins."""
    for found, expected in zip(itertools.chain(*data), ARRAYS.values(), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


class Answer(NamedTuple):
    """The server's answer to a request: status 0 is nothing at all; `stalls` and `resets` are after the body.

    `length` is announced instead of the body's own; where it is negative, none is. `pause`, in seconds, is before each
    byte.
    """

    body: bytes
    status: int = 200
    length: int | None = None
    stalls: bool = False
    resets: bool = False
    kind: str = "application/x-gzip"
    pause: float = 0.0


class Server(ThreadingHTTPServer):
    """Serves the stand-ins on this machine and records the requests; a test may act halfway through a file."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {name: Answer(content) for name, content in CONTENT.items()}
        self.first_answers = {}  # lists by name, of answers that come before
        self.requested = []
        self.halfway = lambda _: None
        self.closing = Event()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.requested.append(name)
        before = self.server.first_answers.get(name)
        answer = before.pop(0) if before else self.server.answers[name]
        if answer.status:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            length = len(answer.body) if answer.length is None else answer.length
            if length >= 0:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for byte in answer.body if answer.pause else b"":
                    time.sleep(answer.pause)
                    self.wfile.write(bytes([byte]))
            if answer.pause:
                return
            half = len(answer.body) // 2
            self.wfile.write(answer.body[:half])
            self.server.halfway(name)
            self.wfile.write(answer.body[half:])
        if answer.stalls:
            self.server.closing.wait()
        if answer.resets:  # what is closed without lingering is reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, *_):
        """Say nothing."""
