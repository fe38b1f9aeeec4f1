"""The only package that touches Linux networking.

`api.py` says what is needed of a kernel, `linux.py` is the real one, and the modules named ``fake`` are its stand-in.

The bytes of netlink(7) are known to few of the modules. These are the doors; all of them take and return values of
core, but for names of single connections, which whoever holds one cannot look into:

- `rtsocket.py`: links, addresses, policy rules, routes, next hops, and what changes (rtnetlink(7));
- `conntrack.py`, `passive.py`, `vanished.py`: connections that there are, that begin, that the kernel forgot
  (ctnetlink); `sockets.py`: those of this box itself (sock_diag(7));
- `nftables.py`: our table, written by libnftables and read by netlink; `affinity.py`: clients that keep their uplink;
  `chains.py`: chains of others;
- `ipsec.py`: whether packets that leave are encrypted (xfrm);
- `needs.py`: what the machine lacks.

Behind them are the transport and the attributes (`netlink.py`), encoders and decoders of messages (`rtnetlink.py`,
`rules.py`, `nexthops.py`, `foreign.py`, `ask.py`, `flows.py`, `elements.py`, `outline.py`), notifications (`watch.py`),
what is decoded once (`kept.py`) and filters (`socketfilter.py`). An import contract keeps others from these.
"""
