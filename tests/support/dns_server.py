"""A small DNS server for tests: answers from a table that the test changes, on a socket that the test made."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


@dataclass(frozen=True, slots=True)
class Zone:
    """What a name has: addresses of both families, or the name that it is another word for."""

    addresses: Sequence[str] = ()
    ttl: int = 60
    alias: str = ""


class DnsServer:
    """Answers while the context lasts.

    Attributes:
        names: what exists, by name; the test may change it at any time.
        asked: names that were asked for, in order.
        silent: answer nothing.
    """

    def __init__(self, sock: socket.socket, names: Mapping[str, Zone]) -> None:
        self.names = dict(names)
        self.asked: list[str] = []
        self.silent = False
        self._sock = sock
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def __enter__(self) -> Self:
        self._sock.settimeout(None)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread, which closing would not (socket(7)).
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._sock.close()

    def _serve(self) -> None:
        while True:
            try:
                data, peer = self._sock.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            query = dns.message.from_wire(data)
            self.asked.append(query.question[0].name.to_text(omit_final_dot=True))
            if not self.silent:
                with suppress(OSError):  # the test may have ended meanwhile
                    self._sock.sendto(self._answer(query), peer)

    def _answer(self, query: dns.message.Message) -> bytes:
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        name = self.asked[-1]
        kind = query.question[0].rdtype.name
        while (zone := self.names.get(name)) and zone.alias:
            reply.answer.append(dns.rrset.from_text(f"{name}.", zone.ttl, "IN", "CNAME", f"{zone.alias}."))
            name = zone.alias
        if zone is None:
            reply.set_rcode(dns.rcode.NXDOMAIN)
            return reply.to_wire()
        wanted = [a for a in zone.addresses if (ip_address(a).version == 4) == (kind == "A")]
        if wanted:
            reply.answer.append(dns.rrset.from_text(f"{name}.", zone.ttl, "IN", kind, *wanted))
        return reply.to_wire()
