"""Nexthop objects in memory, with Linux's habit of deleting what refers to nothing any more."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from dataclasses import replace

from polywan.core.errors import KernelError
from polywan.core.routing.nexthops import Nexthop, NexthopGroup, NexthopId, NexthopObject


def refusal(number: int) -> KernelError:
    """Return the error of an operation that was refused with that errno(3)."""
    return KernelError("apply", number, os.strerror(number))


class FakeNexthops:
    """The nexthops of one kernel, ours alone.

    Attributes:
        objects: by id.
    """

    def __init__(self) -> None:
        self.objects: dict[NexthopId, NexthopObject] = {}

    def put(self, nexthop: NexthopObject) -> None:
        """Add or replace; the caller has looked at link and next hop.

        Raises:
            KernelError: a group of what is not there, or not what stands under that id.
        """
        there = self.objects.get(nexthop.id, nexthop)
        if type(there) is not type(nexthop):
            raise refusal(errno.EINVAL)
        if isinstance(nexthop, NexthopGroup):
            known = all(isinstance(self.objects.get(ident), Nexthop) for ident, _ in nexthop.members)
            grown = isinstance(there, NexthopGroup) and there.buckets != nexthop.buckets
            if not nexthop.members or not known or grown:
                raise refusal(errno.EINVAL)
        self.objects[nexthop.id] = nexthop

    def delete(self, idents: Collection[NexthopId]) -> frozenset[NexthopId]:
        """Remove, with every group that is left empty; return all that is gone."""
        gone = {ident for ident in idents if ident in self.objects}
        for ident, there in list(self.objects.items()):
            if ident in gone or not isinstance(there, NexthopGroup):
                continue
            members = tuple(member for member in there.members if member[0] not in gone)
            if members:
                self.objects[ident] = replace(there, members=members)
            else:
                gone.add(ident)
        for ident in gone:
            del self.objects[ident]
        return frozenset(gone)

    def of_link(self, link: str) -> list[NexthopId]:
        """Return the nexthops that leave by a link."""
        return [ident for ident, there in self.objects.items() if isinstance(there, Nexthop) and there.link == link]
