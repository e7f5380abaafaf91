"""Before workers train together: each is there, its port is free, and all are to do the same.

The chief listens at its own port, where TensorFlow will; every other worker connects, and sends one line of JSON: its
number, and what it is about to do. The chief compares with its own, and answers all of them the same. The connections
stay open, for `alexnet_repro.training.distributed.watchdog`. Nothing in them is secret, and nothing is unpickled.
"""

import contextlib
import errno
import json
import os
import selectors
import socket
import time
from collections.abc import Mapping
from typing import Any

from alexnet_repro.training.checkpoint import identity_differences
from alexnet_repro.training.distributed.cluster import Cluster, ClusterError

MAX_BYTES = 1 << 16  # of a line; an introduction has some 2,000
PAUSE = 0.1  # between two attempts to connect, in seconds
ATTEMPT = 3.0  # that one of them may take
GRACE = 5.0  # how much longer than the chief itself its answer is waited for

WHAT = {
    "cluster": "was told of other workers",
    "versions": "has other software",
    "recipe": "trains another recipe",
    "seed": "has another seed",
    "data": "has other training images",
    "precision": "trains in another precision",
    "devices": "has another number of devices",
    "options": "was given other options",
}


def meet(cluster: Cluster, own: Mapping[str, Any], timeout: float) -> dict[int, socket.socket]:
    """Wait until all workers are there, and agree.

    Args:
        cluster: the workers.
        own: what this one is about to do, as JSON has it, under the names in `WHAT`.
        timeout: how long the others are waited for, in seconds.

    Returns:
        An open connection to each worker on the chief, and to the chief on the others.

    Raises:
        ClusterError: a port is taken, a worker never came up, the chief can't be reached, or a worker is about
            to do something else; the message names it. All workers raise the same, those that never came aside.
    """
    own = {"cluster": list(cluster.addresses), **json.loads(json.dumps(own))}
    with _listening(cluster) as listener:
        if cluster.chief:
            return _welcome(listener, cluster, own, timeout)
    return {0: _introduce(cluster, own, timeout)}


def listening(port: int = 0) -> socket.socket:
    """Return a socket that listens on all interfaces, IPv4 and IPv6; 0: at any free port."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # it may be there and switched off
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    return socket.create_server(("", port), backlog=128)


def _listening(cluster: Cluster) -> socket.socket:
    """Take this worker's port on all interfaces, as TensorFlow does: its host may be called otherwise in here."""
    port = cluster.endpoint(cluster.task)[1]
    try:
        return listening(port)
    except OSError as error:
        name = cluster.name(cluster.task)
        if error.errno == errno.EADDRINUSE:
            text = f"port {port}, which {name} needs, is taken; to see by whom:\n  ss -ltnp 'sport = :{port}'"
        else:
            text = f"{name} can't listen at port {port}: {error.strerror or error}"
        raise ClusterError(text) from error


def _welcome(listener: socket.socket, cluster: Cluster, own: Any, timeout: float) -> dict[int, socket.socket]:
    came, error = _gathered(listener, cluster, timeout)
    missing = [cluster.name(task) for task in range(1, len(cluster.addresses)) if task not in came]
    if missing and not error:
        error = f"{', '.join(missing)} never came up: waited for {timeout:g} s"
    for task, (_, said) in sorted(came.items()):
        error = error or _difference(cluster, task, said, own)
    for connection, _ in came.values():
        connection.setblocking(True)
        with contextlib.suppress(OSError):  # who has left meanwhile is found out by the watchdog
            connection.sendall(_line({"error": error} if error else {"welcome": True}))
    if error:
        for connection, _ in came.values():
            connection.close()
        raise ClusterError(error)
    return {task: connection for task, (connection, _) in came.items()}


def _difference(cluster: Cluster, task: int, said: Any, own: Mapping[str, Any]) -> str | None:
    """Return in what a worker isn't like this one; None if it is."""
    for field in [*WHAT, *sorted({*said, *own} - {*WHAT})]:
        for text in identity_differences(said.get(field), own.get(field), field):
            what = WHAT.get(field, "isn't like the others")
            return f"{cluster.name(task)} {what}: {text.removesuffix(' here')} on {cluster.name(0)}"
    return None


Came = dict[int, tuple[socket.socket, dict[str, Any]]]


def _gathered(listener: socket.socket, cluster: Cluster, timeout: float) -> tuple[Came, str | None]:
    """Return who introduced themselves in time, or what is wrong with them; whatever else connects is let go."""
    came: Came = {}
    deadline, buffers = time.monotonic() + timeout, dict[socket.socket, bytes]()
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        while len(came) < len(cluster.addresses) - 1 and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(min(left, 1.0)):
                if key.fileobj is listener:
                    with contextlib.suppress(OSError):  # it has gone again
                        connection, _ = listener.accept()
                        connection.setblocking(False)
                        selector.register(connection, selectors.EVENT_READ)
                        buffers[connection] = b""
                    continue
                connection = next(each for each in buffers if each is key.fileobj)
                arrived = received(connection)
                buffers[connection] += arrived
                task, said = _introduction(buffers[connection], cluster)
                if task in came and came[task][0] is not connection:
                    came[-1] = (connection, {})  # it has to be told as well
                    return came, f"{cluster.name(task)} came twice: two processes have the same number"
                if arrived and said is not None:
                    came[task] = (connection, said)
                elif not arrived or b"\n" in buffers[connection] or len(buffers[connection]) > MAX_BYTES:
                    came.pop(task, None)
                    selector.unregister(connection)
                    buffers.pop(connection)
                    connection.close()
        for connection in {*buffers} - {each for each, _ in came.values()}:
            connection.close()
    return came, None


def received(connection: socket.socket) -> bytes:
    """Return what has arrived; nothing if the other side is gone."""
    try:
        return connection.recv(MAX_BYTES)
    except OSError:
        return b""


def _introduction(received: bytes, cluster: Cluster) -> tuple[int, dict[str, Any] | None]:
    """Return a worker's number and what it is about to do, if that is what was received."""
    line, end, _ = received.partition(b"\n")
    try:
        said = json.loads(line) if end and len(line) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        said = None
    task = said.pop("task", None) if isinstance(said, dict) else None
    if not isinstance(task, int) or not 0 < task < len(cluster.addresses):
        return -1, None
    return task, said


def _introduce(cluster: Cluster, own: Mapping[str, Any], timeout: float) -> socket.socket:
    connection = _connected(cluster, timeout)
    try:
        connection.settimeout(timeout + GRACE)
        connection.sendall(_line({"task": cluster.task, **own}))
        error = _error(_answer(connection))
        message: Exception | None = None
    except (ValueError, OSError) as caught:
        error, message = f"{cluster.name(0)}, the chief, ended, or didn't answer: see what it says", caught
    if error:
        connection.close()
        raise ClusterError(error) from message
    return connection


def _error(answer: bytes) -> str:
    """Return what a chief's answer says is wrong; nothing, if it is a welcome.

    Raises:
        ValueError: it is no chief's; something else may listen there.
    """
    told = json.loads(answer)
    if isinstance(told, dict) and told.get("welcome") is True:
        return ""
    if isinstance(told, dict) and isinstance(told.get("error"), str):
        return str(told["error"])
    raise ValueError("that is no chief's answer")


def _answer(connection: socket.socket) -> bytes:
    """Return one line, and not a byte of what follows it: that is for the watchdog."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > MAX_BYTES:
            raise ConnectionError("no whole line")
        line += byte
    return line


def _connected(cluster: Cluster, timeout: float) -> socket.socket:
    """Connect to the chief, again and again until it listens."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            return _attempt(cluster.endpoint(0), deadline)
        except OSError as error:
            if time.monotonic() + PAUSE > deadline:
                text = (
                    f"{cluster.name(0)}, the chief, couldn't be reached within {timeout:g} s: {error.strerror or error}"
                )
                raise ClusterError(text) from error
        time.sleep(PAUSE)


def _attempt(endpoint: tuple[str, int], deadline: float) -> socket.socket:
    """Try each of a host's addresses for a short time: one may drop what is sent to it, and another answer."""
    failure: OSError = ConnectionError("no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM):
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(socket.socket(family, kind, protocol))  # a family may be switched off
                connection.settimeout(max(PAUSE, min(ATTEMPT, deadline - time.monotonic())))
                connection.connect(address)
                if connection.getsockname() == connection.getpeername():  # where nobody listens, a port reaches itself
                    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            except OSError as error:
                failure = error
            else:
                stack.pop_all()
                return connection
    raise failure


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
