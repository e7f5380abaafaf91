"""Xids, the errors that NVIDIA's driver writes to the kernel's log, as NVML hands them to a process that waits.

The log itself often may not be read. NVML's documents name no rights that waiting takes, but for slices in MIG mode.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Collection, Iterator

from alexnet_repro.verify.doctor.nvidia import open_nvml, uuid_of

POLL = 200  # milliseconds
HANG = 2.0  # seconds that a driver is waited for which doesn't answer
# Errors of programs, after which "the GPU should still be healthy" (NVIDIA/k8s-device-plugin, `internal/rm/health.go`).
OF_PROGRAMS = frozenset((13, 31, 43, 45, 68, 109))


class XidWatch:
    """Collects the Xids of GPUs in a thread of its own, from when it is made until `stop`."""

    def __init__(self, uuids: Collection[str]) -> None:
        """Start waiting for those of the GPUs with these UUIDs."""
        self._uuids, self._found = uuids, list[tuple[str, int]]()
        self._stop, self.ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="xids", daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, Counter[int]]:
        """Stop, and return how often each Xid came, by UUID."""
        self._stop.set()
        self._thread.join(HANG)
        found: dict[str, Counter[int]] = {}
        for uuid, xid in list(self._found):
            found.setdefault(uuid, Counter())[xid] += 1
        return found

    def _watch(self) -> None:
        with contextlib.suppress(Exception):  # no driver, an old one, or none of these GPUs: no Xids
            for event in self._events():
                self._found.append(event)

    def _events(self) -> Iterator[tuple[str, int]]:
        nvml = open_nvml()
        events = nvml.nvmlEventSetCreate()
        for uuid in self._uuids:
            with contextlib.suppress(nvml.NVMLError):  # it is lost by now
                handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        self.ready.set()
        stopping = False
        while not stopping:
            stopping = self._stop.is_set()  # once more after that: what came by then counts
            with contextlib.suppress(nvml.NVMLError_Timeout):
                event = nvml.nvmlEventSetWait(events, POLL)
                stopping = False
                yield uuid_of(nvml, event.device), int(event.eventData)
