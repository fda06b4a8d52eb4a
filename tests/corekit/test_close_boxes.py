"""A closed box opens with its own key and no other, and no byte of it can be changed."""

from __future__ import annotations

import os

import pytest

from corekit import sealedbox

PRIVATE = bytes(range(32))
PUBLIC = sealedbox.public_key(PRIVATE)


@pytest.mark.parametrize("data", [b"", b"ls -la", os.urandom(70_000)], ids=["nothing", "little", "much"])
def test_what_goes_in_comes_out(data: bytes) -> None:
    box = sealedbox.seal(PUBLIC, data)
    assert sealedbox.unseal(PRIVATE, box) == data
    assert len(box) == len(data) + 48


def test_no_two_boxes_are_alike() -> None:
    assert sealedbox.seal(PUBLIC, b"ls") != sealedbox.seal(PUBLIC, b"ls")


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(sealedbox.BoxError):
        sealedbox.unseal(bytes(32), sealedbox.seal(PUBLIC, b"ls"))


@pytest.mark.parametrize("place", [0, 31, 32, 49])
def test_a_changed_box_does_not_open(place: int) -> None:
    box = bytearray(sealedbox.seal(PUBLIC, b"ls"))
    box[place] ^= 1
    with pytest.raises(sealedbox.BoxError):
        sealedbox.unseal(PRIVATE, bytes(box))


@pytest.mark.parametrize("box", [b"", bytes(31), bytes(32), bytes(48)])
def test_what_is_no_box_does_not_open(box: bytes) -> None:
    with pytest.raises(sealedbox.BoxError):
        sealedbox.unseal(PRIVATE, box)
