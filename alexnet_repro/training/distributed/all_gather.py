"""What each worker has to tell all others, by way of the chief.

It goes as JSON over the connections that `handshake.meet` left open, a line each way: whoever is killed
closes its connection, and a machine that is down stops answering TCP's own questions, so that no loss goes unnoticed.
"""

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from alexnet_repro.training.distributed.cluster import Cluster, ClusterError
from alexnet_repro.training.distributed.handshake import GRACE, received

PART = 1 << 16  # bytes that are read at once
SENDING = 60.0  # seconds that a line may take to be sent
FAREWELL = 1.0  # seconds that the others are given to hear the last of this worker
REMINDER = 30.0  # seconds after which it is said who is waited for
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # seconds, seconds, times: lost after 25 s


class AllGather:
    """Gives every worker what each of them says; all ask for it at the same point of their work, by its name."""

    def __init__(
        self, cluster: Cluster, connections: Mapping[int, socket.socket], say: Callable[[str], None] = lambda _: None
    ) -> None:
        """Take over the connections.

        Args:
            cluster: the workers.
            connections: to each other worker on the chief, to the chief on the others.
            say: told whom the chief waits for, every half minute.
        """
        self.cluster, self._connections, self._say = cluster, connections, say
        self._lost = ""
        for connection in connections.values():
            connection.settimeout(SENDING)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in KEEPALIVE.items():
                if hasattr(socket, name):  # Linux has them all
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def __call__(self, point: str, own: Any, timeout: float) -> list[Any]:
        """Return what each worker calls this with, by its number.

        Args:
            point: the name of what is told here; who is elsewhere is lost.
            own: what this one says, as JSON has it.
            timeout: seconds that the others may come later than this one.

        Raises:
            ClusterError: a worker is gone, doesn't come, or is at another point; the message names it, and is the same
                on all. From then on nothing can be exchanged any more, and every call raises it.
        """
        if not self._lost:
            try:
                told = {"point": point, "own": own}
                return self._of_all(told, timeout) if self.cluster.chief else self._by_chief(told, timeout)
            except ClusterError as error:
                self._lost = str(error)
        raise ClusterError(self._lost)

    def close(self) -> None:
        """Leave: whoever still waits for this worker hears that it is gone, after all that was said before."""
        deadline = time.monotonic() + FAREWELL
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        for connection in self._connections.values():
            with contextlib.suppress(OSError):  # closed with something unread in it, it would lose what was sent
                while (left := deadline - time.monotonic()) > 0:
                    connection.settimeout(left)
                    if not connection.recv(PART):
                        break
            connection.close()

    def _of_all(self, own: Mapping[str, Any], timeout: float) -> list[Any]:
        said: dict[int, Any] = {0: own}
        try:
            said |= self._from_others(timeout)
            self._check_points({task: each["point"] for task, each in said.items()})
        except ClusterError as error:
            self._tell({"lost": str(error)})
            raise
        told = [said[task]["own"] for task in sorted(said)]
        self._tell({"all": told})
        return told

    def _check_points(self, points: Mapping[int, str]) -> None:
        for task, point in points.items():
            if point != points[0]:
                raise ClusterError(f"{self.cluster.name(task)} went on to {point}, while worker 0 is at {points[0]}")

    def _tell(self, message: Mapping[str, Any]) -> None:
        line = json.dumps(message).encode() + b"\n"
        for connection in self._connections.values():
            try:
                connection.sendall(line)
            except OSError:  # it is missed the next time
                continue

    def _from_others(self, timeout: float) -> dict[int, Any]:
        lines = {task: bytearray() for task in self._connections}
        began = reminded = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for task, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, task)
            while selector.get_map():
                for key, _ in selector.select(1.0):
                    part = received(self._connections[key.data])
                    lines[key.data] += part
                    if not part:
                        raise ClusterError(f"{self.cluster.name(key.data)} ended before its part was done")
                    if part.endswith(b"\n"):
                        selector.unregister(key.fileobj)
                missing = ", ".join(self.cluster.name(key.data) for key in selector.get_map().values())
                now = time.monotonic()
                if missing and now - began > timeout:
                    raise ClusterError(f"waited {timeout:g} s for {missing}, in vain")
                if missing and now - reminded > REMINDER:
                    self._say(f"waiting for {missing}: {now - began:.0f} s")
                    reminded = now
        return {task: json.loads(line) for task, line in lines.items()}

    def _by_chief(self, own: Mapping[str, Any], timeout: float) -> list[Any]:
        (connection,) = self._connections.values()
        gone = f"{self.cluster.name(0)}, the chief, ended before its part was done"
        answer, began = bytearray(), time.monotonic()
        try:
            connection.settimeout(2 * timeout + GRACE)  # the chief may come later by one, and wait for another by one
            with contextlib.suppress(ConnectionError):  # gone, it may have said why
                connection.sendall(json.dumps(own).encode() + b"\n")
            while not answer.endswith(b"\n"):
                part = connection.recv(PART)
                if not part:
                    raise ClusterError(gone)
                answer += part
        except OSError as error:
            if isinstance(error, ClusterError):
                raise
            late = isinstance(error, TimeoutError) and error.errno is None  # else it is TCP that found nobody there
            spent = time.monotonic() - began
            text = f"waited {spent:.0f} s for {self.cluster.name(0)}, the chief, in vain" if late else gone
            raise ClusterError(text) from error
        message = json.loads(answer)
        if "lost" in message:
            raise ClusterError(message["lost"])
        told: list[Any] = message["all"]
        return told
