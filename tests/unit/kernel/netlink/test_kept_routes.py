"""Routes are read once and kept until a notification says that they may have changed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from polywan.core.net import TABLE_MAIN, Family, TableId
from polywan.kernel.netlink.kept_routes import LONGEST_AGE, KeptRoutes, Memo, Routes
from polywan.kernel.netlink.socket import Message

MAIN = frozenset({(Family.V4, TABLE_MAIN)})


class Reader:
    """Counts reads; the routes that it finds lead by device 7 with 192.0.2.1."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads = 0
        self.kept = KeptRoutes(clock=lambda: self.now)
        self.meanwhile: Callable[[], None] = lambda: None

    def read(self) -> Routes:
        self.reads += 1
        self.meanwhile()
        return Routes((), (), {}, frozenset({7, b"\xc0\0\2\1"}))

    def reads_after(self, touch: Callable[[KeptRoutes], None], *, heard: bool = True) -> int:
        """Return how many reads two askings take, with the touch in between."""
        before = self.reads
        self.kept.get(MAIN, self.read, heard=heard)
        touch(self.kept)
        self.kept.get(MAIN, self.read, heard=heard)
        return self.reads - before


@pytest.mark.parametrize(
    ("touch", "reads"),
    [
        (lambda kept: None, 1),
        (lambda kept: kept.touch(), 2),
        (lambda kept: kept.touch(7), 2),
        (lambda kept: kept.touch(8), 1),
        (lambda kept: kept.touch(b"\xc0\0\2\1"), 2),
        (lambda kept: kept.touch(b"\xc0\0\2\2"), 1),
    ],
    ids=["nothing", "a route", "a device that a route leads by", "another device", "a source", "another address"],
)
def test_routes_are_read_again_only_after_what_may_have_changed_them(
    touch: Callable[[KeptRoutes], None], reads: int
) -> None:
    assert Reader().reads_after(touch) == reads


@pytest.mark.parametrize("device", [None, 7])
def test_what_changes_while_routes_are_read_has_them_read_again(device: int | None) -> None:
    reader = Reader()
    reader.meanwhile = lambda: reader.kept.touch(device)
    assert reader.reads_after(lambda _: None) == 2


def test_nothing_is_kept_while_nobody_listens() -> None:
    assert Reader().reads_after(lambda _: None, heard=False) == 2


def test_routes_are_read_again_every_ten_minutes() -> None:
    reader = Reader()

    def wait(_: KeptRoutes) -> None:
        reader.now += LONGEST_AGE

    assert reader.reads_after(wait) == 2


def test_another_set_of_tables_is_read() -> None:
    reader = Reader()
    reader.kept.get(MAIN, reader.read, heard=True)
    reader.kept.get(MAIN | {(Family.V4, TableId(77))}, reader.read, heard=True)
    assert reader.reads == 2


def test_what_has_the_same_bytes_as_before_is_not_decoded_again() -> None:
    decoded: list[bytes] = []

    def decode(body: bytes) -> int:
        decoded.append(body)
        return int(body)

    def challenged(*bodies: bytes) -> list[Message]:
        return [Message(0, 0, 0, 0, body) for body in bodies]

    memo: Memo[int] = Memo()
    assert memo.decode(challenged(b"1", b"2", b"2"), decode, {}) == [1, 2]
    assert memo.decode(challenged(b"2", b"3"), decode, {}) == [2, 3]
    assert decoded == [b"1", b"2", b"3"]
    assert memo.decode(challenged(b"2"), decode, {"other": "names"}) == [2]
    assert decoded == [b"1", b"2", b"3", b"2"]
