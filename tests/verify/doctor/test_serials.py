"""Serials as keyed hashes: none is left in any text, and a fleet still tells one GPU from another."""

import re
from dataclasses import replace

import pytest

from alexnet_repro.verify.doctor.serials import SerialHasher, serial_hasher
from alexnet_repro.verify.finding import Finding
from tests.helpers.machines import A100, box

UUID = "GPU-3a4b5c6d-1111-2222-3333-444455556666"
SLICE = "MIG-aaaabbbb-1111-2222-3333-444455556666"
GPU = replace(A100, uuid=UUID, serial="1320221015912", pci_bus_id="0000C2F8:17:00.0", mig_uuids=(SLICE,))


def hasher(key="of the site"):
    """Return what knows a machine with one GPU."""
    made = SerialHasher(key)
    made.learn("CZ12345", "3d1219c7c4c5404aaa1f6d2a48adfda4", None, "")
    made.learn_gpus(box(GPU))
    return made


HASHED = "hashed-[0-9a-f]{16}"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        pytest.param("CZ12345", HASHED, id="text=the serial"),
        pytest.param("serial cz12345.", f"serial {HASHED}\\.", id="text=a sentence"),
        pytest.param("HOST_CZ12345_a", f"HOST_{HASHED}_a", id="text=a name"),
        pytest.param("1320221015912", HASHED, id="text=a GPU's serial"),
        pytest.param(f"CUDA_VISIBLE_DEVICES={UUID},0", f"CUDA_VISIBLE_DEVICES=GPU-{HASHED},0", id="text=a UUID"),
        pytest.param(UUID.removeprefix("GPU-").upper(), HASHED, id="text=a UUID without GPU-"),
        pytest.param("export X=GPU-3a4", f"export X=GPU-{HASHED}", id="text=a UUID abbreviated"),
        pytest.param("GPU-9f8e7d6c", f"GPU-{HASHED}", id="text=another GPU's UUID"),
        pytest.param(SLICE, f"MIG-{HASHED}", id="text=a slice's UUID"),
        pytest.param(f"MIG-{UUID}/1/0", f"MIG-GPU-{HASHED}/1/0", id="text=a slice of older drivers"),
        pytest.param("at 0000C2F8:17:00.0", f"at {HASHED}", id="text=a place of a virtual machine"),
        pytest.param("at c2f8:17:00.0", f"at {HASHED}", id="text=a place in short"),
        pytest.param("key of the site!", r"key \(the key\)!", id="text=the key"),
        pytest.param("GPU-accelerated, GPU-0, GPU-bed, GPU-12345", None, id="text=words"),
        pytest.param("0000:17:00.0 CZ123456 XCZ12345", None, id="text=other names"),
        pytest.param("13202210159129 3d1219c7", None, id="text=other numbers"),
    ],
)
def test_text_is_hidden(text, hidden):
    """Serials, ids and UUIDs are hashes wherever they stand, and what only looks like one stays; twice is as once."""
    hide = hasher()
    found = hide(text)
    assert re.fullmatch(hidden or re.escape(text), found)
    assert hide(found) == found


def test_hashes_follow_a_gpu():
    """With one key a GPU's hash is the same on every machine, abbreviated as well; with another it is another."""
    whole = hasher()(UUID)
    assert SerialHasher("of the site")(UUID) == whole
    assert hasher()("GPU-3a4b5") == whole
    assert hasher()(UUID.upper()) == whole
    other = hasher("of another")(UUID)
    assert other != whole
    assert hasher("x" * 999)(UUID) not in {whole, other}
    assert hasher()("1320221015912") != hasher()("CZ12345")


def test_key_is_the_environments():
    """The key is that of ALEXNET_REPRO_HASH_KEY, whatever bytes it has; without one there is still no serial."""
    assert serial_hasher({"ALEXNET_REPRO_HASH_KEY": "of the site"})(UUID) == hasher()(UUID)
    assert serial_hasher({"ALEXNET_REPRO_HASH_KEY": "\udcff"})(UUID) != hasher()(UUID)
    assert re.fullmatch(f"GPU-{HASHED}", serial_hasher({})(UUID))


def test_all_that_holds_texts():
    """Findings, lists, and keys and values of mappings are the same but for what is hidden; numbers stay."""
    hide = hasher()
    finding = Finding("gpu", "FAIL", f"{UUID} is lost", number=1.5, data={UUID: ["CZ12345", 3, None, True]})
    found = hide([finding, (1, UUID)])
    uuid = hide(UUID)
    assert found == [
        Finding("gpu", "FAIL", f"{uuid} is lost", number=1.5, data={uuid: [hide("CZ12345"), 3, None, True]}),
        (1, uuid),
    ]
    well = Finding("gpu", "PASS", "it is there")
    assert hide(well) == well


def test_short_serial():
    """A serial of a few characters is hidden where it stands alone, and isn't looked for in other words."""
    hide = SerialHasher("of the site")
    hide.learn("A7")
    assert re.fullmatch(HASHED, hide("a7"))
    assert hide("an A7 in a text") == "an A7 in a text"
