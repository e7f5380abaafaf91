"""While workers train together: who is there, how far each is, and the end of all of them when one is lost.

A worker in a collective can't be woken while another is missing, so a thread watches, and ends the process. Each
worker keeps the chief told of what its main thread is in, over the connection that their handshake left open, and the
chief them. A process that is killed closes its connection at once; one that is stopped, or cut off, falls silent; of
one whose main thread hangs, the chief hears where it hangs.
"""

import contextlib
import json
import os
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from alexnet_repro.training.distributed.cluster import Cluster
from alexnet_repro.training.distributed.handshake import MAX_BYTES

BEATS = 5  # in the time after which a worker is given up; one a second at least
TICK = 0.1  # seconds
FAREWELL = 1.0  # how long the last words may take to arrive, in seconds
APART, BUSY, TOGETHER = "apart", "busy", "together"
PATIENCE = {APART: 1, BUSY: 10, TOGETHER: 10}
"""For how many times the time of silence a main thread may be between updates, in something that takes its time
(saving, measuring), and in a collective (which may compile, or wait for who saves)."""


def _leave(line: str, status: int) -> NoReturn:
    """End this process, whatever its other threads are in, with one line, below the bar if there is one."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or its disk is full
        os.write(sys.stderr.fileno(), f"\npython -m alexnet_repro: {line}\n".encode())
    os._exit(status)


@dataclass
class _Place:
    """Where a worker's main thread is."""

    since: float
    what: str = BUSY
    updates: int = 0

    def move(self, what: str, updates: int) -> None:
        if (what, updates) != (self.what, self.updates):
            self.since, self.what, self.updates = time.monotonic(), what, updates


@dataclass
class _Peer:
    connection: socket.socket
    heard: float
    place: _Place
    received: bytes = b""
    left: bool = False


@dataclass
class Watch:
    """Watches the other workers from `start` until `finish`."""

    cluster: Cluster
    connections: Mapping[int, socket.socket]
    """To each other worker on the chief, to the chief on the others; `handshake.meet` returns them."""
    timeout: float
    """Seconds of silence after which a worker is given up."""
    leave: Callable[[str, int], None] = _leave
    """Ends this process with a line and an exit status."""
    _own: _Place = field(init=False)
    _peers: dict[int, _Peer] = field(init=False)
    _over: threading.Event = field(init=False, default_factory=threading.Event)
    _leaving: bool = field(init=False, default=False)
    _told: bool = field(init=False, default=False)
    _failure: str | None = field(init=False, default=None)
    _status: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        """Take everyone to be there now."""
        now = time.monotonic()
        self._own = _Place(now)
        self._peers = {task: _Peer(each, now, _Place(now)) for task, each in self.connections.items()}
        for each in self.connections.values():
            each.setblocking(False)

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watched, name="watchdog", daemon=True).start()

    def move(self, what: str, updates: int = 0) -> None:
        """Tell what the main thread is in from now on, and how many more updates it has begun."""
        self._own.move(what, self._own.updates + updates)

    @contextlib.contextmanager
    def inside(self, what: str) -> Iterator[None]:
        """Tell what the main thread is in meanwhile."""
        before = self._own.what
        self.move(what)
        try:
            yield
        finally:
            self.move(before)

    def fail(self, line: str, status: int = 1) -> NoReturn:
        """Have every worker end with this line, and this one, too, with this exit status."""
        self._status, self._failure = status, line
        self._over.wait(self.timeout)
        self.leave(line, status)
        raise SystemExit(status)

    def finish(self) -> None:
        """Wait until every worker is at its end; from then on none is missed."""
        self.move(TOGETHER)
        self._leaving = True
        self._over.wait()

    def _watched(self) -> None:
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 - unwatched, this process might wait for ever
            self.leave(f"the watchdog of {self.cluster.name(self.cluster.task)} failed: {error!r}", 1)

    def _watch(self) -> None:
        beat, next_beat, awake = min(1.0, self.timeout / BEATS), 0.0, time.monotonic()
        with selectors.DefaultSelector() as selector:
            for task, peer in self._peers.items():
                selector.register(peer.connection, selectors.EVENT_READ, task)
            while not self._over.is_set():
                now = time.monotonic()
                if now - awake > self.timeout / 2:  # it is this process that was stopped
                    self._forgive(now - awake)
                awake = now
                if awake >= next_beat:
                    self._send({"in": self._own.what, "updates": self._own.updates})
                    next_beat = awake + beat
                for key, _ in selector.select(TICK):
                    if not self._read(key.data):
                        selector.unregister(key.fileobj)
                        self._gone(key.data)
                self._part()
                if line := self._failure or self._silent(awake) or self._stuck(awake):
                    self._end(line)

    def _read(self, task: int) -> bool:
        """Take in what a worker has sent; whether its connection is still open."""
        peer = self._peers[task]
        try:
            received = peer.connection.recv(MAX_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            return False
        *lines, peer.received = (peer.received + received).split(b"\n")
        peer.heard = time.monotonic()
        for line in lines:
            message = json.loads(line)
            if "end" in message:
                self._end(message["end"])
            elif "left" in message:
                peer.left = True
            else:
                peer.place.move(message["in"], message["updates"])
        return bool(received)

    def _gone(self, task: int) -> None:
        if not self._peers[task].left:
            what = ", the chief," if task == 0 else ""
            self._end(f"{self.cluster.name(task)}{what} ended without a word: killed, or its machine is down")

    def _forgive(self, seconds: float) -> None:
        """Don't hold it against the others that this process saw nothing for so long."""
        for peer in self._peers.values():
            peer.heard += seconds
            peer.place.since += seconds
        self._own.since += seconds

    def _silent(self, now: float) -> str | None:
        for task, peer in self._peers.items():
            if not peer.left and now - peer.heard > self.timeout:
                return (
                    f"{self.cluster.name(task)} hasn't been heard for {self.timeout:g} s: stopped, hanging, or cut off"
                )
        return None

    def _stuck(self, now: float) -> str | None:
        """Return whose main thread hangs; the chief finds out."""
        if not self.cluster.chief:
            return None
        places = {0: self._own, **{task: peer.place for task, peer in self._peers.items() if not peer.left}}
        for what in (APART, BUSY):
            for task, place in places.items():
                spent = now - place.since
                if place.what == what and spent > PATIENCE[what] * self.timeout:
                    where = "outside of what is computed together"
                    return f"{self.cluster.name(task)} hangs: {where}, and no further than {spent:.0f} s ago"
        spent = now - max(place.since for place in places.values())
        if all(place.what == TOGETHER for place in places.values()) and spent > PATIENCE[TOGETHER] * self.timeout:
            return (
                f"no update was finished for {spent:.0f} s, and all {len(places)} workers wait for each other: which "
                "of them hangs can't be told from here; ask each machine: python -m alexnet_repro doctor"
            )
        return None

    def _part(self) -> None:
        """Say that this worker is at its end: the chief once all others are, the others at once, and wait for it."""
        if not self._leaving:
            return
        if not self.cluster.chief and not self._told:
            self._send({"left": True})
            self._told = True
        if all(peer.left for peer in self._peers.values()):
            self._send({"left": True})
            self._over.set()

    def _send(self, message: Mapping[str, Any]) -> None:
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # who doesn't take it is found out by its silence
                peer.connection.send(json.dumps(message).encode() + b"\n")

    def _end(self, line: str) -> None:
        """Tell the others whom the training ends by, wait until they have heard it, and end."""
        self._send({"end": line})
        deadline = time.monotonic() + FAREWELL
        for peer in self._peers.values():
            with contextlib.suppress(OSError):  # closed with something unread in it, a connection loses what was sent
                peer.connection.shutdown(socket.SHUT_WR)
                while (left := deadline - time.monotonic()) > 0:
                    peer.connection.settimeout(left)
                    if not peer.connection.recv(MAX_BYTES):
                        break
        self.leave(line, self._status)
        self._over.set()
