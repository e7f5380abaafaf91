"""Lists of nodes are in the order of their numbers, and folded as Slurm writes them."""

import random

import pytest

from alexnet_repro.fleet.node_names import folded_names, names_in_words, unfolded_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param("n1", "n1", id="names=one"),
        pytest.param("n1 n2 n3", "n[1-3]", id="names=a range"),
        pytest.param("n8 n9 n10 n11", "n[8-11]", id="names=growing numbers"),
        pytest.param("n08 n09 n10 n12", "n[08-10,12]", id="names=padded"),
        pytest.param("n1 n01", "n[01,1]", id="names=two widths"),
        pytest.param("n9 n010", "n[9,010]", id="names=another width"),
        pytest.param("r1n1 r1n2 r2n1", "r1n[1-2] r2n1", id="names=racks"),
        pytest.param("n1.example n2.example", "n[1-2].example", id="names=a domain"),
        pytest.param("login n2 n1 n1", "login n[1-2]", id="names=without a number, twice"),
        pytest.param("a[1] a[2] b,3", "a[1] a[2] b,3", id="names=brackets and commas"),
        pytest.param("n١ n٢", "n١ n٢", id="names=other digits"),
        pytest.param(f"n{'9' * 30} n{'8' * 30}", f"n{'8' * 30} n{'9' * 30}", id="names=huge numbers"),
    ],
)
def test_names_are_folded(names, expected):
    """Consecutive numbers become a range, whatever their order; what can't be folded stays as it is."""
    shuffled = names.split()
    random.Random(0).shuffle(shuffled)
    assert " ".join(folded_names(shuffled)) == expected


def test_long_lists_are_cut():
    """Of many parts the first few are named, and the others counted."""
    assert names_in_words([f"r{rack}n{node}" for rack in range(5) for node in (1, 2)], 3) == (
        "r0n[1-2], r1n[1-2], r2n[1-2], and 2 more"
    )
    assert names_in_words([]) == ""


@pytest.mark.parametrize(
    ("folded", "names"),
    [
        pytest.param("n1", "n1", id="list=one"),
        pytest.param("n[1-3]", "n1 n2 n3", id="list=a range"),
        pytest.param("node[08-10,15],login", "node08 node09 node10 node15 login", id="list=padded, and another"),
        pytest.param("r[1-2]n[1-2].x", "r1n1.x r1n2.x r2n1.x r2n2.x", id="list=two brackets"),
        pytest.param("n[9-11], m1", "n9 n10 n11 m1", id="list=growing numbers"),
        pytest.param("[::1] a[x] b[1-", "[::1] a[x] b[1-", id="list=other brackets"),
        pytest.param("", "", id="list=none"),
    ],
)
def test_names_are_unfolded(folded, names):
    """A list as Slurm writes it stands for the names one by one; other brackets are a part of a name."""
    assert " ".join(unfolded_names(folded)) == names


@pytest.mark.parametrize(
    ("folded", "why"),
    [
        pytest.param("n[12-01]", "has a range that ends before it begins: 12-01", id="list=backwards"),
        pytest.param("n[0-999999999]", "stands for more than 100,000 nodes", id="list=a huge range"),
        pytest.param("a[0-999]b[0-999]c[0-999]", "stands for more than 100,000 nodes", id="list=a product"),
        pytest.param(f"n[{','.join(['0-99999'] * 999)}]", "stands for more than 100,000 nodes", id="list=a sum"),
        pytest.param(",".join(["n[0-99998]"] * 2), "stands for more than 100,000 nodes", id="list=lists"),
    ],
)
def test_lists_of_too_many(folded, why):
    """A list of more nodes than any fleet has is an error, at once."""
    with pytest.raises(ValueError, match=why):
        unfolded_names(folded)
