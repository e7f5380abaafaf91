"""Rendezvous: before they train together, all workers are there, their ports are free, and they have the same plan.

The chief listens at its own port, where TensorFlow will. Every other worker connects, and sends its index and its plan.
The chief compares the plans with its own, and sends all the same answer. The connections stay open, for
`alexnet_repro.training.distributed.coordination`. Nothing in them is secret, and nothing is unpickled. What is promised
is in docs/method/coordination.md.
"""

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from typing import Any

from alexnet_repro.files import nested_differences
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError

MAX_BYTES = 1 << 16  # of a line before all have met; a plan has some 2,000
RETRY = 0.1  # seconds between two attempts to connect
ATTEMPT = 3.0  # seconds that one of them may take
GRACE = 5.0  # seconds that the chief's answer may come after the chief's own timeout

MISMATCHES = {
    "cluster": "has a different cluster spec",
    "versions": "has different software",
    "recipe": "trains a different recipe",
    "seed": "has a different seed",
    "data": "has different training images",
    "precision": "trains in a different precision",
    "devices": "has a different number of devices",
    "options": "has different options",
}


class Connection:
    """A TCP connection between two workers, which carries one JSON value per line."""

    def __init__(self, connected: socket.socket) -> None:
        """Take over a connected socket."""
        self.socket, self.max_bytes = connected, MAX_BYTES
        self._lines, self._rest = list[bytearray](), bytearray()

    def send(self, message: Any) -> None:
        """Send a message; raises OSError if the peer is gone, or doesn't read within the socket's timeout."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Any]:
        """Read once, and return the messages that are complete; there may be none yet.

        Raises:
            OSError: the peer is gone, its line is too long, or nothing came within the socket's timeout.
            ValueError, RecursionError: a line isn't JSON.
        """
        if not self._lines:
            self._read()
        lines, self._lines = self._lines, []
        return [json.loads(line) for line in lines]

    def receive_one(self, timeout: float) -> Any:
        """Return the next message, and keep what follows it; each read may take `timeout` seconds; raises the same."""
        self.socket.settimeout(timeout)
        while not self._lines:
            self._read()
        return json.loads(self._lines.pop(0))

    def _read(self) -> None:
        part = self.socket.recv(MAX_BYTES)
        if not part:
            raise ConnectionError("closed by the peer")
        first, *others = part.split(b"\n")
        self._rest += first
        for each in others:
            self._lines.append(self._rest)
            self._rest = bytearray(each)
        if max(map(len, (*self._lines, self._rest))) > self.max_bytes:
            raise ConnectionError("a line is too long")


Joined = dict[Connection, tuple[int, dict[str, Any]]]
"""Index and plan of each worker, and of a second process with the index of another."""


def rendezvous(cluster: Cluster, plan: Mapping[str, Any], timeout: float) -> dict[int, Connection]:
    """Wait `timeout` seconds at most until all workers are there, and compare their plans.

    `plan` is what this one is about to do, as JSON has it, under the names in `MISMATCHES`. Returns open connections:
    to every other worker on the chief, to the chief on the others.

    Raises:
        ClusterError: a port is taken, a worker never came up, the chief can't be reached or doesn't know its own
            name, or a worker has a different plan; the message names it. All workers that came raise the same.
    """
    own = json.loads(json.dumps({"cluster": dict(enumerate(cluster.addresses)), **plan}))
    with _own_port(cluster) as listener:
        if cluster.chief:
            _find_own_name(cluster, timeout)
            return _accept(listener, cluster, own, timeout)
    return {0: _join(cluster, own, timeout)}


def _own_port(cluster: Cluster) -> socket.socket:
    """Listen at this worker's port on all interfaces, as TensorFlow does: its host may have another name in here."""
    port, name = cluster.endpoint(cluster.task)[1], cluster.name(cluster.task)
    try:
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):  # IPv6 may be switched off; if the port is taken, IPv4 finds it so too
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        text = f"{name} can't listen at port {port}: {error.strerror or error}"
        if error.errno == errno.EADDRINUSE:
            text = f"port {port}, which {name} needs, is taken; to see by whom:\n  ss -ltnp 'sport = :{port}'"
        raise ClusterError(text) from error


def _find_own_name(cluster: Cluster, timeout: float) -> None:
    """Refuse a chief's name that it doesn't know itself: TensorFlow looks for the chief there, and waits for ever."""
    (host, port), end = cluster.endpoint(cluster.task), time.monotonic() + timeout
    while True:
        try:
            socket.getaddrinfo(host, port)
        except (OSError, UnicodeError) as error:  # the latter of a name that none can have
            if isinstance(error, OSError) and time.monotonic() < end:  # a pod's name may be known seconds later
                time.sleep(RETRY)
                continue
            reason = getattr(error, "strerror", None) or error
            raise ClusterError(f"{host}, the chief's name, isn't known on the chief itself: {reason}") from error
        return


def _accept(listener: socket.socket, cluster: Cluster, own: Mapping[str, Any], timeout: float) -> dict[int, Connection]:
    """Wait for the others on the chief, and send all of them the same answer."""
    joined = _wait_for_others(listener, cluster, timeout)
    error = _what_is_wrong(cluster, [*joined.values()], own, timeout)
    for connection in joined:
        connection.socket.setblocking(True)
        with contextlib.suppress(OSError):  # the watchdog finds out who has left meanwhile
            connection.send({"error": error} if error else {"welcome": True})
        if error:
            connection.socket.close()
    if error:
        raise ClusterError(error)
    return {task: connection for connection, (task, _) in joined.items()}


def _wait_for_others(listener: socket.socket, cluster: Cluster, timeout: float) -> Joined:
    """Wait until all have joined, an index came twice, or the time is over; drop whatever else connects."""
    joined, connected, workers = Joined(), dict[Any, Connection](), len(cluster.addresses)
    deadline = time.monotonic() + timeout
    while len({task for task, _ in joined.values()}) == len(joined) < workers - 1 and time.monotonic() < deadline:
        for ready in wait([listener, *connected], max(0.0, min(deadline - time.monotonic(), 1.0))):
            if ready is listener:
                with contextlib.suppress(OSError):  # it has gone again
                    accepted, _ = listener.accept()
                    accepted.setblocking(False)
                    connected[accepted] = Connection(accepted)
                continue
            connection = connected[ready]
            try:
                messages = connection.receive()
            except (OSError, ValueError, RecursionError):
                messages = [None]
            match messages:
                case [{"task": int(task)} as plan] if 0 < task < workers:
                    joined[connection] = plan.pop("task"), plan
                case [_, *_]:  # gone, or no worker
                    joined.pop(connection, None)
                    connected.pop(ready).socket.close()
    for connection in {*connected.values()} - {*joined}:
        connection.socket.close()
    return joined


def _what_is_wrong(
    cluster: Cluster, joined: Sequence[tuple[int, Mapping[str, Any]]], own: Mapping[str, Any], timeout: float
) -> str:
    """Return which worker is there twice, is missing, or has a plan that differs from the chief's; empty if none."""
    name, tasks = cluster.name, [task for task, _ in joined]
    if twice := [name(task) for task in tasks if tasks.count(task) > 1]:
        return f"{twice[0]} joined twice: two processes have the same index"
    if missing := [name(task) for task in range(1, len(cluster.addresses)) if task not in tasks]:
        return f"{', '.join(missing)} never came up: waited for {timeout:g} s"
    for task, plan in sorted(joined, key=lambda each: each[0]):
        for field in (*MISMATCHES, *sorted({*plan, *own} - {*MISMATCHES})):
            for path, there, here in nested_differences(plan.get(field), own.get(field), field):
                values = f"{path} is {str(there)[:60]!r} there, {str(here)[:60]!r} on {name(0)}"
                return f"{name(task)} {MISMATCHES.get(field, 'has a different plan')}: {values}"
    return ""


def _join(cluster: Cluster, own: Mapping[str, Any], timeout: float) -> Connection:
    """Connect to the chief, and wait for its answer."""
    connection, cause = _connect(cluster, timeout), None
    try:
        connection.socket.settimeout(timeout + GRACE)
        connection.send({"task": cluster.task, **own})
        answer = connection.receive_one(timeout + GRACE)
    except (OSError, ValueError, RecursionError) as error:
        answer, cause = None, error
    match answer:
        case {"welcome": True}:
            return connection
        case {"error": str(text)}:
            pass
        case _:
            text = f"{cluster.name(0)}, the chief, disconnected or didn't answer: see its output"
    connection.socket.close()
    raise ClusterError(text) from cause


def _connect(cluster: Cluster, timeout: float) -> Connection:
    """Connect to the chief, again and again until it listens."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return Connection(_attempt(cluster.endpoint(0), deadline))
        except (OSError, UnicodeError) as error:
            if time.monotonic() + RETRY > deadline:
                reason = getattr(error, "strerror", None) or error
                text = f"{cluster.name(0)}, the chief, couldn't be reached within {timeout:g} s: {reason}"
                raise ClusterError(text) from error
        time.sleep(RETRY)


def _attempt(endpoint: tuple[str, int], deadline: float) -> socket.socket:
    """Connect once; each of the host's addresses gets a short time: one may drop packets, and another answer."""
    connected = socket.create_connection(endpoint, max(RETRY, min(ATTEMPT, deadline - time.monotonic())))
    if connected.getsockname() == connected.getpeername():  # where nobody listens, a port may reach itself
        connected.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    return connected
