"""Memory that is free goes back to the kernel."""

from __future__ import annotations

import gc
from ctypes import CDLL, c_size_t, c_void_p
from pathlib import Path

import pytest

from polywan.kernel import heap

BLOCKS, SIZE = 20_000, 1024


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not hasattr(CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim (musl)")
def test_holes_in_the_heap_go_back_to_the_kernel() -> None:
    library = CDLL(None)
    library.malloc.restype, library.malloc.argtypes = c_void_p, [c_size_t]
    library.free.restype, library.free.argtypes = None, [c_void_p]
    library.memset.argtypes = [c_void_p, c_size_t, c_size_t]
    blocks = [library.malloc(SIZE) for _ in range(BLOCKS)]
    for block in blocks:
        library.memset(block, 1, SIZE)
    full = resident()
    # The last one stays, so that the heap cannot shrink from its end.
    for block in blocks[:-1]:
        library.free(block)
    heap.trim()
    assert full - resident() > BLOCKS * SIZE // 2
    library.free(blocks[-1])


def test_what_a_process_began_with_is_no_longer_searched_for_garbage() -> None:
    before = gc.get_threshold()
    try:
        heap.settle()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] == heap.GARBAGE
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
