"""Everything that is asked of the kernel's traffic control, in core types, over the socket of whoever owns it."""

from __future__ import annotations

import errno
import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import Final, assert_never

from polywan.config.model.shaping import IFB_PREFIX
from polywan.core.shaping.changes import DelIfb, DelRedirect, DelTree, PutIfb, PutRedirect, PutTree, ShapingOp
from polywan.core.shaping.trees import handle_text
from polywan.core.world.foreign_chains import IngressChain
from polywan.core.world.queues import STAMP, DeviceQueues, Part, QueueCounters, Queues
from polywan.kernel.netlink import rtnetlink as rt
from polywan.kernel.netlink.socket import NetlinkSocket, Refusal, Request
from polywan.kernel.tc import messages as tc

ASK_AGAIN: Final = 60.0
"""Seconds after which the kernel is asked again for what it lacked: somebody may have installed a module."""

_UNKNOWN: Final = frozenset({errno.ENOENT, errno.EOPNOTSUPP})
"""Refusals of a question that mean: there is no such kind."""
_SENSELESS: Final = frozenset({errno.EINVAL, errno.ERANGE})
"""Those that mean: there is, and it makes no sense of the question."""

_GONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EINVAL})
"""Refusals of the removal of an ingress that mean: it is not there, or a clsact of others is."""

_TAKEN: Final = Refusal(errno.EEXIST, os.strerror(errno.EEXIST))
_NO_DEVICE: Final = Refusal(errno.ENODEV, os.strerror(errno.ENODEV))


class TrafficControl:
    """Queueing disciplines of all devices. Whoever calls holds the lock of the socket.

    Every method raises `KernelError` when the socket itself fails or the kernel does not answer.
    """

    def __init__(self, netlink: NetlinkSocket, clock: Callable[[], float] = time.monotonic) -> None:
        self._netlink = netlink
        self._clock = clock
        self._known: dict[str, tuple[bool, float]] = {}

    def read(self, kinds: Iterable[str], chains: Collection[IngressChain] = ()) -> Queues:
        """Return what is at the devices, these chains of others among it, and which of these kinds the kernel lacks."""
        lacking = frozenset(kind for kind in kinds if not self._has(kind))
        links = [link for m in self._netlink.snapshot(rt.GETLINK, rt.get_links()) if (link := tc.decode_link(m.body))]
        shown: defaultdict[int, list[tc.Shown]] = defaultdict(list)
        for one in self._shown(tc.GETQDISC, tc.everything()):
            shown[one.ifindex].append(one)
        names = {link.ifindex: link.name for link in links}
        return Queues(
            devices={
                link.name: replace(
                    self._device(link, shown[link.ifindex], names),
                    ingress_chain=next((str(chain) for chain in chains if chain.meets(link.name)), ""),
                )
                for link in links
            },
            ifbs={link.name: link.up for link in links if link.up is not None},
            lacking=lacking,
        )

    def _shown(self, kind: int, body: bytes) -> Iterator[tc.Shown]:
        found = (tc.decode(m.body) for m in self._netlink.snapshot(kind, body))
        return (one for one in found if one is not None)

    def _device(self, link: tc.IfbLink, shown: Iterable[tc.Shown], names: dict[int, str]) -> DeviceQueues:
        shown = list(shown)
        root = next((one for one in shown if one.root), None)
        ours = root is not None and (root.our_root or link.up is not None)
        incoming = next((one for one in shown if one.parent == tc.INGRESS), None)
        stamped = incoming is not None and incoming.block == tc.block_of_index(link.ifindex)
        return DeviceQueues(
            index=link.ifindex,
            tree=frozenset(self._tree(link.ifindex, shown)) if ours else frozenset(),
            foreign_root="" if root is None or ours else f"{root.kind} {handle_text(root.handle)}",
            redirect=self._redirect(link.ifindex, names) if stamped else None,
            foreign_ingress="" if incoming is None or stamped else incoming.kind,
            counters=root.counters if root is not None and ours else QueueCounters(),
        )

    def _tree(self, index: int, shown: Iterable[tc.Shown]) -> Iterator[Part]:
        parts = [one for one in shown if one.handle and one.parent != tc.INGRESS]
        yield from map(tc.part_of, parts)
        if any(one.kind == "htb" for one in parts):
            # Of disciplines with a queue for each connection, these are classes as well.
            classes = self._shown(tc.GETCLASS, tc.everything(index))
            yield from (tc.part_of(one) for one in classes if one.kind == "htb")
        for bands in (one.handle for one in parts if one.kind == "prio"):
            filters = self._shown(tc.GETFILTER, tc.everything(index, bands))
            yield from (tc.part_of(one) for one in filters if not tc.hash_table(one))

    def _redirect(self, index: int, names: dict[int, str]) -> str:
        filters = list(self._shown(tc.GETFILTER, tc.filters_of_block(tc.block_of_index(index))))
        found = {names.get(to, "") for one in filters if (to := tc.redirected_to(one))}
        return found.pop() if len(found) == 1 and not any(_other(one) for one in filters) else ""

    def _has(self, kind: str) -> bool:
        """Ask for a kind in a way that changes nothing; the kernel loads its module, where there is one."""
        found, at = self._known.get(kind, (False, float("-inf")))
        if found or self._clock() - at < ASK_AGAIN:
            return found
        (refusal,) = self._netlink.batch([tc.question(kind)])
        if refusal is None or refusal.errno not in _UNKNOWN | _SENSELESS:
            # Something of others is in the way of the question. Whoever needs the kind will be told.
            return True
        found = refusal.errno in _SENSELESS
        self._known[kind] = found, self._clock()
        return found

    def carry_out(self, op: ShapingOp, index_of: Callable[[str], int | None]) -> Refusal | None:
        """Carry out one operation; return what the kernel says against it."""
        index = index_of(op.device)
        if isinstance(op, PutIfb) and not op.there:
            return self._first([tc.put_ifb(op.device)])
        if index is None or (isinstance(op, DelTree | DelRedirect) and op.index != index):
            return None if isinstance(op, DelIfb | DelTree | DelRedirect) else _NO_DEVICE
        # Since the read, a device of others may have taken the place of ours.
        if _at_ifb(op) and not self._is_ours(index):
            return None if isinstance(op, DelIfb | DelTree) else _TAKEN
        match op:
            case PutIfb():
                return self._first([tc.set_up(index)])
            case DelIfb():
                return self._first([tc.del_ifb(index)])
            case PutTree(_, parts):
                return self._first([tc.put_part(part, index) for part in parts])
            case DelTree(_, _, any_root):
                return self._del_tree(index, any_root=any_root)
            case PutRedirect(_, to):
                return self._put_redirect(index, index_of(to))
            case DelRedirect():
                refusal = self._first([tc.del_ingress(index)])
                return None if refusal is None or refusal.errno in _GONE else refusal
            case _:
                assert_never(op)

    def _is_ours(self, index: int) -> bool:
        """Ask whether a device is one of our ifb devices."""
        reply = self._netlink.query(rt.GETLINK, tc.get_link(index))
        link = None if isinstance(reply, Refusal) else tc.decode_link(reply.body)
        return link is not None and link.up is not None

    def _del_tree(self, index: int, *, any_root: bool) -> Refusal | None:
        refusal = self._first([tc.del_root(index, 0 if any_root else STAMP << 16)])
        if refusal is None or refusal.errno == errno.ENOENT:
            return None
        # The kernel says the same of its default, which has no handle, and of another program's root.
        there = any(one.root and one.ifindex == index for one in self._shown(tc.GETQDISC, tc.everything()))
        return refusal if there else None

    def _put_redirect(self, index: int, to: int | None) -> Refusal | None:
        if to is None:
            return _NO_DEVICE
        if not self._is_ours(to):
            return _TAKEN
        if (refusal := self._first([tc.put_ingress(index)])) is not None:
            return refusal
        if (refusal := self._first([tc.put_redirect(index, to)])) is not None:
            self._first([tc.del_ingress(index)])
        return refusal

    def _first(self, requests: list[Request]) -> Refusal | None:
        return next((refusal for refusal in self._netlink.batch(requests) if refusal is not None), None)


def _other(shown: tc.Shown) -> bool:
    """True for a filter that does something else; the kernel also shows each priority by itself, without a handle."""
    return bool(shown.handle) and not tc.redirected_to(shown)


def _at_ifb(op: ShapingOp) -> bool:
    """True for an operation that is right at an ifb device of ours only."""
    if isinstance(op, DelTree):
        return op.any_root
    return isinstance(op, PutIfb | DelIfb) or (isinstance(op, PutTree) and op.device.startswith(IFB_PREFIX))
