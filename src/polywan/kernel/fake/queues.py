"""Queueing disciplines in memory, with Linux's way of keeping others' from being replaced."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from polywan.config.model.shaping import IFB_PREFIX
from polywan.core.shaping.changes import DelIfb, DelRedirect, DelTree, PutIfb, PutRedirect, PutTree, ShapingOp
from polywan.core.shaping.trees import BANDS
from polywan.core.state.events import ForeignStateChanged, KernelEvent, OwnStateChanged
from polywan.core.world.observed import Link
from polywan.core.world.queues import ROOT, DeviceQueues, Part, Queues
from polywan.kernel.fake.nexthops import refusal


class FakeQueues:
    """The queues of one kernel.

    Attributes:
        lacks: kinds that this kernel does not have.
        ifbs: our devices, and whether they are up.
        queues: of devices at which anything is, by name.
        hears_queues: listeners are told of changes there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lacks: frozenset[str] = frozenset()
        self.ifbs: dict[str, bool] = {}
        self.queues: dict[str, DeviceQueues] = {}
        self.hears_queues = False

    def emit(self, event: KernelEvent) -> None:
        """Let every listener receive the event."""
        raise NotImplementedError

    def hear_queues(self, *, wanted: bool) -> None:
        """Tell of changes, or no more; see `Kernel.hear_queues`."""
        self.hears_queues = wanted

    def queues_of(self, links: Mapping[str, Link], kinds: frozenset[str]) -> Queues:
        """Return what is at these devices and at ours."""
        indexes = {name: link.index for name, link in links.items()} | dict.fromkeys(self.ifbs, 0)
        nothing = DeviceQueues(index=0)
        devices = {name: replace(self.queues.get(name, nothing), index=index) for name, index in indexes.items()}
        return Queues(devices=devices, ifbs=dict(self.ifbs), lacking=kinds & self.lacks)

    def shape(self, op: ShapingOp, links: Mapping[str, Link]) -> None:
        """Carry out one operation.

        Raises:
            KernelError: there is no such device or kind, or something of others is in the way.
        """
        known = self.queues.get(op.device, DeviceQueues(index=0))
        there = op.device in links or op.device in self.ifbs
        if isinstance(op, DelTree | DelRedirect) and op.index != self._index(op.device, links):
            return
        if op.device.startswith(IFB_PREFIX) and op.device in links and isinstance(op, PutTree):
            raise refusal(errno.EEXIST)
        match op:
            case PutIfb(device, at_hand):
                self._check("ifb", there=there or not at_hand, taken=there and not at_hand)
                self.ifbs[device] = True
            case DelIfb(device):
                if self.ifbs.pop(device, None) is not None:
                    self.lose_queues(device)
            case PutTree(device, parts):
                self._check(*(_kind(part) for part in parts), there=there, taken=bool(known.foreign_root))
                self.queues[device] = replace(known, tree=_put(known.tree, parts))
            case DelTree(device):
                self.queues[device] = replace(known, tree=frozenset())
            case PutRedirect(device, to):
                taken = bool(known.foreign_ingress) or known.redirect is not None or to in links
                self._check("ingress", "mirred", there=there and (to in self.ifbs or to in links), taken=taken)
                self.queues[device] = replace(known, redirect=to)
            case DelRedirect(device):
                self.queues[device] = replace(known, redirect=None)
            case _:
                assert_never(op)

    def _index(self, device: str, links: Mapping[str, Link]) -> int | None:
        return links[device].index if device in links else 0 if device in self.ifbs else None

    def _check(self, *kinds: str, there: bool = True, taken: bool) -> None:
        if not there:
            raise refusal(errno.ENODEV)
        if self.lacks & set(kinds):
            raise refusal(errno.ENOENT)
        if taken:
            raise refusal(errno.EEXIST)

    def lose_queues(self, device: str) -> None:
        """Forget what is at a device that is gone; what was sent to it goes nowhere."""
        self.queues.pop(device, None)
        self.queues = {n: replace(q, redirect="") if q.redirect == device else q for n, q in self.queues.items()}

    def tamper_queues(self, device: str, *, root: str | None = None, ingress: str | None = None) -> None:
        """Do what tc(8) does to a device: put this root or ingress there, or with an empty name the default."""
        known = self.queues.get(device, DeviceQueues(index=0))
        if root is not None:
            known = replace(known, tree=frozenset(), foreign_root=root)
        if ingress is not None:
            known = replace(known, redirect=None, foreign_ingress=ingress)
        self.queues[device] = known
        if self.hears_queues:
            self.emit(OwnStateChanged("qdisc"))
            self.emit(ForeignStateChanged("qdisc", device))

    def tamper_ingress_chain(self, device: str, chain: str) -> None:
        """Do what nft(8) does: put a chain at the hook ingress of a device, or with empty words remove it."""
        self.queues[device] = replace(self.queues.get(device, DeviceQueues(index=0)), ingress_chain=chain)
        self.emit(ForeignStateChanged("chain"))

    def tamper_delete_ifb(self, device: str) -> None:
        """Remove one of our devices behind our back."""
        del self.ifbs[device]
        self.lose_queues(device)
        self.emit(OwnStateChanged("qdisc"))

    def tamper_rename_ifb(self, device: str, name: str) -> None:
        """Give one of our devices another name; what is sent to it follows."""
        self.ifbs[name], self.queues[name] = self.ifbs.pop(device), self.queues.pop(device, DeviceQueues(index=0))
        self.queues = {n: replace(q, redirect=name) if q.redirect == device else q for n, q in self.queues.items()}
        self.emit(OwnStateChanged("qdisc"))


def _put(tree: frozenset[Part], parts: tuple[Part, ...]) -> frozenset[Part]:
    places = {part.place for part in parts}
    result = frozenset(part for part in tree if part.place not in places) | frozenset(parts)
    handles = {part.handle for part in result} | {
        part.handle | band for part in result if part.kind == "prio" for band in range(1, BANDS + 1)
    }
    # What belongs to nothing has no place to be.
    if any(part.parent not in handles | {ROOT} for part in result):
        raise refusal(errno.ENOENT)
    return result


def _kind(part: Part) -> str:
    return "htb" if part.kind == "class" else part.kind
