"""Serials, UUIDs and machine ids as keyed hashes, wherever a run writes or prints them: `--hash-serials`.

With one key on all machines a hash stays the same, so that a fleet can follow a GPU. Without a key, a serial can be
found by trying all that a maker may have given.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from alexnet_repro.verify.doctor.environment import Environment

HASH_KEY = "ALEXNET_REPRO_HASH_KEY"  # an environment variable that is never recorded
# A GPU's or a slice's UUID, perhaps abbreviated, as CUDA_VISIBLE_DEVICES takes it; what is hashed is none.
UUID = re.compile(r"(?<![0-9a-z])((?:MIG-)?GPU|MIG)-([0-9a-f]+(?:-[0-9a-f]+)*)(?![0-9a-z-])", re.IGNORECASE)
ABBREVIATED = 4  # digits of a UUID, at least one of them decimal, that aren't taken for a word or a number
WITHIN_TEXT = 5  # characters of a serial, at least, that is looked for within other text


def unhashed(value: Any) -> Any:
    """Return a value as it is."""
    return value


class SerialHasher:
    """Returns texts, and what contains some, with a hash in place of each identifier that it has learnt, or sees.

    Hashing again changes nothing.
    """

    def __init__(self, key: str) -> None:
        """Know nothing but what a UUID looks like, and the key, which is never shown either."""
        self._key = hashlib.blake2b(key.encode(errors="surrogateescape")).digest()
        self._known: dict[str, str] = {}  # by the identifier in lower case
        self._within: re.Pattern[str] | None = None
        if len(key) >= WITHIN_TEXT:
            self._add(key, "(the key)")

    def learn(self, *identifiers: str | None) -> None:
        """Learn a machine's serials and ids."""
        for each in filter(None, identifiers):
            self._add(each, self._hash(each))

    def learn_gpus(self, here: Environment) -> None:
        """Learn the serials, UUIDs and places on the bus of a machine's GPUs.

        A place in the first PCI domain is that of many machines; others may be drawn when a virtual machine is made.
        """
        for gpu in here.nvidia.gpus:
            self.learn(gpu.serial)
            for uuid in filter(None, (gpu.uuid, *gpu.mig_uuids)):
                kind, _, digits = uuid.partition("-")
                self._add(uuid, f"{kind}-{self._hash(uuid)}")
                if len(digits) >= WITHIN_TEXT:
                    self._add(digits, self._hash(uuid))
            domain, _, place = (gpu.pci_bus_id or "").partition(":")
            if domain.strip("0") and place:
                for form in (domain, domain[-4:]):
                    self._add(f"{form}:{place}", self._hash(gpu.pci_bus_id or ""))

    def __call__(self, value: Any) -> Any:
        """Return the same without identifiers: of texts, and within mappings, sequences and dataclasses."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {self(key): self(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(self, value)) if type(value) in (list, tuple) else list(map(self, value))
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **dict(self._changed(value)))
        return value

    def _changed(self, value: Any) -> Iterator[tuple[str, Any]]:
        for each in fields(value):
            before = getattr(value, each.name)
            if (after := self(before)) != before:
                yield each.name, after

    def _text(self, text: str) -> str:
        if whole := self._known.get(text.casefold()):
            return whole
        text = UUID.sub(self._uuid, text)
        return self._within.sub(lambda found: self._known[found[0].casefold()], text) if self._within else text

    def _uuid(self, found: re.Match[str]) -> str:
        """Return the hash of a UUID, of the whole one where it is abbreviated; other words as they are."""
        named = found[0].casefold()
        whole = [known for known in self._known if known.startswith(named)]
        if not whole and (len(found[2]) < ABBREVIATED or not re.search(r"\d", found[2]) or found[2].isdecimal()):
            return found[0]
        return self._known[whole[0]] if len(whole) == 1 else f"{found[1]}-{self._hash(named)}"

    def _add(self, identifier: str, hashed: str) -> None:
        self._known[identifier.casefold()] = hashed
        long = sorted((re.escape(each) for each in self._known if len(each) >= WITHIN_TEXT), key=len, reverse=True)
        self._within = re.compile(rf"(?<![0-9a-z])(?:{'|'.join(long)})(?![0-9a-z])", re.IGNORECASE) if long else None

    def _hash(self, identifier: str) -> str:
        digest = hashlib.blake2b(identifier.casefold().encode(errors="replace"), key=self._key, digest_size=8)
        return f"hashed-{digest.hexdigest()}"


def serial_hasher(environ: Mapping[str, str] = os.environ) -> SerialHasher:
    """Return what hashes by the key of this environment."""
    return SerialHasher(environ.get(HASH_KEY, ""))
