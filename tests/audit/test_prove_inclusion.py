"""The tree over a chain's hashes is that of RFC 6962, and proofs from it convince only of what is true."""

from __future__ import annotations

import hashlib

import pytest

from audit import merkle

# The leaves and roots that RFC 6962's reference implementation is tested with.
DATA = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [merkle.leaf(bytes.fromhex(one)) for one in DATA]
# (number from 0, size, path) and (old size, size, path), of the same tests.
INCLUSION = [
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def _many(size: int) -> list[bytes]:
    return [merkle.leaf(str(number).encode()) for number in range(size)]


def _hex(path: list[bytes]) -> list[str]:
    return [step.hex() for step in path]


@pytest.mark.parametrize(("size", "root"), list(enumerate(ROOTS, 1)))
def test_roots_are_those_of_the_reference(size: int, root: str) -> None:
    assert merkle.root_of(LEAVES[:size]).hex() == root


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert merkle.Frontier().root() == hashlib.sha256(b"").digest()


@pytest.mark.parametrize(("index", "size", "path"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_reference(index: int, size: int, path: list[str]) -> None:
    assert _hex(merkle.inclusion_proof(index, LEAVES[:size])) == path


@pytest.mark.parametrize(("old", "size", "path"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference(old: int, size: int, path: list[str]) -> None:
    assert _hex(merkle.consistency_proof(old, LEAVES[:size])) == path


@pytest.mark.parametrize("size", range(1, 34))
def test_every_leaf_of_every_tree_is_proven(size: int) -> None:
    leaves = _many(size)
    for index in range(size):
        path = merkle.inclusion_proof(index, leaves)
        assert merkle.root_from_inclusion(leaves[index], index, size, path) == merkle.root_of(leaves)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_tree_is_proven_to_begin_with_each_smaller_one(size: int) -> None:
    leaves = _many(size)
    for old in range(1, size + 1):
        path = merkle.consistency_proof(old, leaves)
        assert merkle.consistent(old, merkle.root_of(leaves[:old]), size, merkle.root_of(leaves), path)


def test_a_tree_goes_on_where_it_was_left() -> None:
    leaves = _many(50)
    whole = merkle.Frontier()
    for number, one in enumerate(leaves):
        kept = [root for _, root in whole.subtrees()]
        again = merkle.Frontier(number, kept)
        again.append(one)
        whole.append(one)
        assert again.root() == whole.root() == merkle.root_of(leaves[: number + 1])


def test_subtrees_are_perfect_and_from_the_left() -> None:
    leaves = _many(13)
    tree = merkle.Frontier()
    for one in leaves:
        tree.append(one)
    assert list(tree.subtrees()) == [
        (8, merkle.root_of(leaves[:8])),
        (4, merkle.root_of(leaves[8:12])),
        (1, leaves[12]),
    ]


def test_a_copy_grows_apart() -> None:
    tree = merkle.Frontier()
    tree.append(LEAVES[0])
    copy = tree.copy()
    copy.append(LEAVES[1])
    assert (tree.size, tree.root().hex()) == (1, ROOTS[0])
    assert (copy.size, copy.root().hex()) == (2, ROOTS[1])


def test_roots_that_cannot_be_of_that_size_are_refused() -> None:
    with pytest.raises(ValueError, match="a tree of 3 leaves does not have 1 perfect subtrees"):
        merkle.Frontier(3, [LEAVES[0]])


@pytest.mark.parametrize("index", [-1, 3, 4, 6, 7, 8])
def test_a_proof_does_not_convince_for_another_number(index: int) -> None:
    path = merkle.inclusion_proof(5, LEAVES)
    assert merkle.root_from_inclusion(LEAVES[5], index, 8, path) != merkle.root_of(LEAVES)


def test_a_proof_of_the_wrong_length_or_with_a_wrong_step_does_not_convince() -> None:
    path, root = merkle.inclusion_proof(5, LEAVES), merkle.root_of(LEAVES)
    assert merkle.root_from_inclusion(LEAVES[5], 5, 8, path[:-1]) is None
    assert merkle.root_from_inclusion(LEAVES[5], 5, 8, [*path, root]) is None
    assert merkle.root_from_inclusion(LEAVES[5], 5, 8, [root, *path[1:]]) != root
    assert merkle.root_from_inclusion(LEAVES[4], 5, 8, path) != root


def test_a_tree_that_was_rewritten_is_not_consistent() -> None:
    other = [merkle.leaf(b"other"), *LEAVES[1:]]
    for old in range(1, 8):
        before, after = merkle.root_of(LEAVES[:old]), merkle.root_of(other)
        assert not merkle.consistent(old, before, 8, after, merkle.consistency_proof(old, other))
        assert not merkle.consistent(old, before, 8, after, merkle.consistency_proof(old, LEAVES))


def test_a_consistency_proof_of_the_wrong_length_does_not_convince() -> None:
    before, after = merkle.root_of(LEAVES[:6]), merkle.root_of(LEAVES)
    path = merkle.consistency_proof(6, LEAVES)
    assert not merkle.consistent(6, before, 8, after, path[:-1])
    assert not merkle.consistent(6, before, 8, after, [*path, after])
    assert not merkle.consistent(6, before, 8, after, [])
    assert not merkle.consistent(8, after, 8, after, path)
    assert not merkle.consistent(0, merkle.EMPTY_ROOT, 8, after, [])
    assert not merkle.consistent(8, after, 6, before, [])
