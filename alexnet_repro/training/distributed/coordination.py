"""Coordination of workers that have met: a watchdog while they train, an all-gather of JSON while they verify.

Both use the connections that `rendezvous` left open. A worker in a collective can't be woken while another is missing,
so a thread watches, and ends the process. A killed worker's connection closes at once; one that is stopped or cut off
sends no heartbeats; one whose main thread hangs reports no progress. Promises: docs/method/coordination.md.
"""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, NoReturn

from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.rendezvous import GRACE, Connection

TICK = 0.1  # seconds at most between two checks
LINGER = 1.0  # seconds that the last message may take to arrive
HEARTBEATS = 5  # per timeout; at least one per second
HOST, IO, COLLECTIVE = "host", "io", "collective"
MAX_TIMEOUTS = {HOST: 1, IO: 10, COLLECTIVE: 10}
"""Timeouts that a main thread may be between updates; saving or evaluating; in a collective, which may compile, or wait
for a worker that saves."""
REMINDER = 30.0  # seconds after which the chief reports whom it waits for
SEND_TIMEOUT = 60.0  # seconds
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds, seconds, times: lost after 25 s


def _broadcast(connections: Collection[Connection], message: Any) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # a peer that doesn't take it is found out by its silence
            connection.send(message)


def _shut_down(connections: Collection[Connection]) -> None:
    """Stop sending, and give the peers time to read: closed with something unread in it, a connection loses data."""
    deadline = time.monotonic() + LINGER
    for connection in connections:
        with contextlib.suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)
    for connection in connections:
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0:
                connection.socket.settimeout(left)
                if not connection.socket.recv(1 << 16):
                    break


def _leave(line: str, status: int) -> NoReturn:
    """End this process with one line below the progress bar, whatever its other threads are in."""
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more, or its disk is full
        os.write(sys.stderr.fileno(), f"\npython -m alexnet_repro: {line}\n".encode())
    os._exit(status)


@dataclass
class _State:
    """Where a worker's main thread is, since when, and when the worker was last heard from."""

    since: float
    heard: float
    phase: str = IO
    updates: int = 0
    finished: bool = False

    def enter(self, phase: str, updates: int) -> None:
        if (phase, updates) != (self.phase, self.updates):
            self.since, self.phase, self.updates = time.monotonic(), phase, updates


class Watchdog:
    """Watches the other workers from `start` until `finish`, and ends this process when one is lost or hangs."""

    def __init__(self, cluster: Cluster, connections: Mapping[int, Connection], timeout: float) -> None:
        """Take over the connections from `rendezvous`; a worker is lost after `timeout` seconds of silence."""
        self.cluster, self.timeout, self._open = cluster, timeout, dict(connections)
        self.leave: Callable[[str, int], None] = _leave
        now = time.monotonic()
        self._states = {task: _State(now, now) for task in (cluster.task, *connections)}
        self._own, self._finishing, self._over = self._states[cluster.task], False, threading.Event()
        self._failure, self._status = "", 1
        for each in connections.values():
            each.max_bytes = sys.maxsize
            each.socket.setblocking(False)

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def enter(self, phase: str, updates: int = 0) -> None:
        """Report the phase that the main thread enters, and how many more updates it begins."""
        self._own.enter(phase, self._own.updates + updates)

    @contextlib.contextmanager
    def inside(self, phase: str) -> Iterator[None]:
        """Report that the main thread is in a phase meanwhile."""
        before = self._own.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def fail(self, line: str, status: int = 1) -> NoReturn:
        """End every worker with this line, and this one with this exit status."""
        self._status, self._failure = status, line
        self._over.wait(self.timeout)
        self.leave(line, status)
        raise SystemExit(status)

    def finish(self) -> None:
        """Wait until every worker is at its end; from then on none is missed."""
        self.enter(COLLECTIVE)
        self._finishing = True
        self._over.wait()

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:  # noqa: BLE001 - unwatched, this process might wait forever
            self.leave(f"the watchdog of {self.cluster.name(self.cluster.task)} failed: {error!r}", 1)

    def _watch(self) -> None:
        interval, next_heartbeat, awake = min(1.0, self.timeout / HEARTBEATS), 0.0, time.monotonic()
        while not self._over.is_set():
            now = time.monotonic()
            if now - awake > self.timeout / 2:  # it is this process that was stopped: that isn't the others' silence
                for state in self._states.values():
                    state.heard += now - awake
                    state.since += now - awake
            awake = now
            if now >= next_heartbeat:
                _broadcast(self._open.values(), {"phase": self._own.phase, "updates": self._own.updates})
                next_heartbeat = now + interval
            ready = wait([each.socket for each in self._open.values()], TICK)
            for task in [task for task, each in self._open.items() if each.socket in ready]:
                self._receive(task)
            if line := self._failure or self._lost(now):
                self._end(line)
            self._finish_together()

    def _receive(self, task: int) -> None:
        """Take in what a worker has sent."""
        state = self._states[task]
        try:
            messages = self._open[task].receive()
        except BlockingIOError:
            return
        except OSError:
            del self._open[task]
            if not state.finished:
                self._end(f"{self.cluster.name(task)} disconnected unexpectedly: killed, or its machine is down")
            return
        state.heard = time.monotonic()
        for message in messages:
            if "end" in message:
                self._end(message["end"])
            elif "finished" in message:
                state.finished = True
            else:
                state.enter(message["phase"], message["updates"])

    def _lost(self, now: float) -> str | None:
        """Return who is silent, or, on the chief, whose main thread hangs."""
        name, states = self.cluster.name, {task: each for task, each in self._states.items() if not each.finished}
        for task, state in states.items():
            if state is not self._own and now - state.heard > self.timeout:
                return f"{name(task)} sent no heartbeat for {self.timeout:g} s: stopped, hanging, or cut off"
        if not self.cluster.chief:
            return None
        for phase in (HOST, IO):
            for task, state in states.items():
                seconds = now - state.since
                if state.phase == phase and seconds > MAX_TIMEOUTS[phase] * self.timeout:
                    return f"{name(task)} hangs in host code: no progress for {seconds:.0f} s"
        seconds = now - max(state.since for state in states.values())
        together = all(state.phase == COLLECTIVE for state in states.values())
        if together and seconds > MAX_TIMEOUTS[COLLECTIVE] * self.timeout:
            return (
                f"no update finished for {seconds:.0f} s: all {len(states)} workers wait in a collective; to find "
                "which of them hangs, run on each machine: python -m alexnet_repro doctor"
            )
        return None

    def _finish_together(self) -> None:
        """Report that this worker is at its end: the chief once all others are, the others at once."""
        others_finished = all(state.finished for state in self._states.values() if state is not self._own)
        if self._finishing and not self._own.finished and (others_finished or not self.cluster.chief):
            _broadcast(self._open.values(), {"finished": True})
            self._own.finished = True
        if self._own.finished and others_finished:
            self._over.set()

    def _end(self, line: str) -> None:
        """Send all others what the training ends by, wait until they have read it, and end."""
        _broadcast(self._open.values(), {"end": line})
        _shut_down(self._open.values())
        self.leave(line, self._status)
        self._over.set()


class AllGather:
    """Exchange of JSON between all workers, who call this at the same points of their work."""

    def __init__(self, cluster: Cluster, connections: Mapping[int, Connection], report: Callable[[str], None]) -> None:
        """Take over the connections from `rendezvous`; `report` gets a line each half minute that the chief waits."""
        self.cluster, self._connections, self._report, self._lost = cluster, connections, report, ""
        for each in connections.values():
            each.max_bytes = sys.maxsize
            each.socket.settimeout(SEND_TIMEOUT)
            each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):  # Linux has them all
                    each.socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def __call__(self, point: str, own: Any, timeout: float) -> list[Any]:
        """Return the value, as JSON has it, that each worker calls this with, by index.

        A worker that is at an exchange of another name, `point`, is lost. The others may come `timeout` seconds later.

        Raises:
            ClusterError: a worker is gone, doesn't come, or is at another point; the message names it, and is the same
                on all. From then on nothing can be exchanged any more, and every call raises it.
        """
        if not self._lost:
            exchange = self._gather if self.cluster.chief else self._ask_chief
            try:
                return exchange({"point": point, "own": own}, timeout)
            except ClusterError as error:
                self._lost = str(error)
                if self.cluster.chief:
                    _broadcast(self._connections.values(), {"lost": self._lost})
        raise ClusterError(self._lost)

    def close(self) -> None:
        """Leave: a worker that still waits for this one finds it gone, after all that was sent before."""
        _shut_down(self._connections.values())
        for connection in self._connections.values():
            connection.socket.close()

    def _gather(self, own: Mapping[str, Any], timeout: float) -> list[Any]:
        """Collect all workers' values on the chief, and send them to all."""
        received, name = {0: own}, self.cluster.name
        began = reminded = time.monotonic()
        while missing := {task: each for task, each in self._connections.items() if task not in received}:
            ready = wait([each.socket for each in missing.values()], TICK)
            for task in [task for task, each in missing.items() if each.socket in ready]:
                try:
                    for message in missing[task].receive():
                        received[task] = message
                except OSError as error:
                    raise ClusterError(f"{name(task)} disconnected unexpectedly") from error
            names, now = ", ".join(name(task) for task in missing if task not in received), time.monotonic()
            if names and now - began > timeout:
                raise ClusterError(f"timed out after {timeout:g} s waiting for {names}")
            if names and now - reminded > REMINDER:
                self._report(f"waiting for {names}: {now - began:.0f} s")
                reminded = now
        for task, each in received.items():
            if each["point"] != own["point"]:
                raise ClusterError(f"{name(task)} went on to {each['point']!r}, while worker 0 is at {own['point']!r}")
        values = [received[task]["own"] for task in sorted(received)]
        _broadcast(self._connections.values(), {"all": values})
        return values

    def _ask_chief(self, own: Mapping[str, Any], timeout: float) -> list[Any]:
        """Send the chief this worker's value, and return what it answers."""
        (connection,), began = self._connections.values(), time.monotonic()
        longest = 2 * timeout + GRACE  # the chief may come one timeout later, and wait one more for another worker
        try:
            connection.socket.settimeout(longest)
            with contextlib.suppress(ConnectionError):  # gone, it may have sent why
                connection.send(own)
            answer = connection.receive_one(longest)
        except OSError as error:
            late = isinstance(error, TimeoutError) and error.errno is None  # else TCP found nobody there
            text = f"timed out after {time.monotonic() - began:.0f} s waiting for {self.cluster.name(0)}"
            raise ClusterError(text if late else f"{self.cluster.name(0)} disconnected unexpectedly") from error
        if "lost" in answer:
            raise ClusterError(answer["lost"])
        values: list[Any] = answer["all"]
        return values
