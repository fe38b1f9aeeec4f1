"""The only package that touches Linux networking.

`api.py` says what is needed of a kernel, `linux.py` is the real one, and the modules named ``fake`` are its stand-in.

The bytes of netlink(7) are known to few of the modules. These are the doors; all of them take and return values of
core, but for names of single connections, which whoever holds one cannot look into:

- `kernel/netlink/rtsocket.py`: links, addresses, policy rules, routes, next hops, queues,
  and what changes (rtnetlink(7));
- `kernel/conntrack/table.py`, `kernel/conntrack/new_connections.py`, `kernel/conntrack/forgotten.py`: connections that
there are, that begin, that the kernel forgot
  (ctnetlink); `kernel/conntrack/local_sockets.py`: those of this box itself (sock_diag(7));
- `kernel/nft/libnftables.py`: our table, written by libnftables and read by netlink; `kernel/nft/affinity_maps.py`:
clients that keep their uplink;
  `kernel/nft/foreign_chains.py`: chains of others; `kernel/nft/filter_rules.py`: what their rules do;
- `kernel/netlink/ipsec.py`: whether packets that leave are encrypted (xfrm);
- `requirements.py`: what the machine lacks.

`firewall.py` reads the rules of other programs by libnftables, and by iptables-save(8).

Behind them are the transport and the attributes (`kernel/netlink/socket.py`), sockets that stay open
(`kernel/netlink/lending.py`), encoders and decoders of messages
(`kernel/netlink/rtnetlink.py`, `kernel/netlink/policy_rules.py`, `kernel/netlink/nexthops.py`,
`kernel/netlink/foreign_routing.py`, `kernel/netlink/route_query.py`, `kernel/conntrack/decode.py`,
`kernel/nft/elements.py`, `kernel/nft/established.py`, `kernel/nft/reader.py`), traffic control (`kernel/tc/`, behind
the door of routes), notifications (`events.py`), what is decoded once (`kernel/netlink/kept_routes.py`) and filters
(`kernel/netlink/bpf_filter.py`). An import contract keeps others from these.
"""
