"""One rule of iptables(8): its options, as conditions and actions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import Final, Literal, NamedTuple, get_args

from polywan.core.firewall.iptables_target import target_actions
from polywan.core.firewall.model import (
    Action,
    ConnectionState,
    Device,
    Direction,
    End,
    MarkIs,
    MarkOf,
    Match,
    Other,
    Port,
    Prefix,
    Protocol,
    Rule,
    State,
    Statistic,
    TcpFlags,
    Verdict,
)
from polywan.core.firewall.values import marked, protocol_name, whole_number
from polywan.core.net import Family, IPNetwork


class Word(NamedTuple):
    """A word of a line; one in quotes is never an option."""

    text: str
    quoted: bool = False


class Option(NamedTuple):
    """An option with its values; `name` is empty for words that belong to none."""

    name: str
    values: tuple[str, ...] = ()
    invert: bool = False

    def __str__(self) -> str:
        return " ".join(("!", self.name, *self.values) if self.invert else (self.name, *self.values)).strip()


_LONG: Final[Mapping[str, str]] = {
    "--source": "-s",
    "--src": "-s",
    "--destination": "-d",
    "--dst": "-d",
    "--in-interface": "-i",
    "--out-interface": "-o",
    "--protocol": "-p",
    "--proto": "-p",
    "--jump": "-j",
    "--goto": "-g",
    "--match": "-m",
    "--source-port": "--sport",
    "--destination-port": "--dport",
    "--source-ports": "--sports",
    "--destination-ports": "--dports",
}
_TAKES_ANY_WORD: Final = frozenset({"-s", "-d", "-i", "-o", "-p", "-j", "-g", "-m", "--comment", "--log-prefix"}) | {
    "--nflog-prefix",
    "--ulog-prefix",
    "--string",
    "--hex-string",
}
"""Options whose value may begin with a dash."""

_VERDICTS: Final[Mapping[str, Verdict]] = {
    "ACCEPT": "accept",
    "DROP": "drop",
    "REJECT": "reject",
    "RETURN": "return",
    "QUEUE": "queue",
    "NFQUEUE": "queue",
}
_FLAGS: Final = frozenset({"fin", "syn", "rst", "psh", "ack", "urg"})
_PART: Final = 1 << 31


@dataclass(slots=True)
class _Draft:
    """What the options of a rule have said so far; `pending` are those of a match that several options make."""

    family: Family
    matches: list[Match] = field(default_factory=list)
    module: str = ""
    pending: list[Option] = field(default_factory=list)


def parse_rule(
    words: Iterable[Word],
    family: Family,
    chains: Collection[str],
    *,
    text: str,
    packets: int | None = None,
    size: int | None = None,
) -> Rule:
    """Parse the options behind ``-A CHAIN``.

    Args:
        words: as `iptables.split_words` splits them.
        family: of the table.
        chains: names that a target may have to be a chain's; any other is an extension.
        text: the rule's own.
        packets: what it has counted.
        size: the same in bytes.
    """
    draft = _Draft(family)
    verdict: Verdict = ""
    target, actions = "", list[Action]()
    extension: list[Option] | None = None
    for option in options_of(words):
        name = option.name
        if name == "-g" and option.values:
            verdict, target, extension = "goto", option.values[0], None
        elif name == "-j" and option.values:
            extension = None
            if option.values[0] in chains:
                verdict, target = "jump", option.values[0]
            else:
                extension = [option]
        elif extension is not None and name not in _CONDITIONS and name not in ("-m", "-p"):
            extension.append(option)
        else:
            _condition(draft, option)
    _finish(draft)
    if extension is not None:
        verdict = _VERDICTS.get(extension[0].values[0], "")
        if not verdict:
            known = [(option.name, option.values) for option in extension[1:] if not option.invert]
            actions, verdict = target_actions(extension[0].values[0], known, " ".join(map(str, extension))[3:])
    return Rule(text, tuple(draft.matches), tuple(actions), verdict, target, packets, size)


def options_of(words: Iterable[Word]) -> Iterator[Option]:
    """Group words into options; `!` may be before an option, or before its value as old versions had it."""
    name, values, invert, ahead = "", list[str](), False, False
    for text, quoted in words:
        waits = name in _TAKES_ANY_WORD and not values
        if text == "!" and not quoted:
            if waits:
                invert = True
            else:
                ahead = True
        elif not quoted and not waits and len(text) > 1 and text[0] == "-" and not text[1].isdigit():
            if name or values:
                yield Option(name, tuple(values), invert)
            name, values, invert, ahead = _LONG.get(text, text), [], ahead, False
        else:
            if ahead:  # `--dport ! 80`
                invert, ahead = True, False
            values.append(text)
    if name or values:
        yield Option(name, tuple(values), invert)


def _condition(draft: _Draft, option: Option) -> None:
    if option.name == "-m":
        _finish(draft)
        draft.module = option.values[0] if option.values else ""
        if draft.module not in _MODULES and draft.module not in _SILENT:
            draft.pending.append(option)
        return
    if option.name in _CONDITIONS:
        _finish(draft)
        draft.module = ""
        draft.matches += _converted(_CONDITIONS[option.name], draft.family, option)
    elif draft.module in _SILENT and option.name.startswith("--comment"):
        return
    elif (convert := {**_IMPLIED, **_MODULES.get(draft.module, {})}.get(option.name)) is not None:
        draft.matches += _converted(convert, draft.family, option)
    else:
        draft.pending.append(option)


def _finish(draft: _Draft) -> None:
    """What belongs to one module is one condition."""
    if draft.pending:
        if draft.module == "statistic" and (statistic := _statistic(draft.pending)) is not None:
            draft.matches.append(statistic)
        else:
            named = [] if draft.module in ("", *draft.pending[0].values[:1]) else [f"-m {draft.module}"]
            draft.matches.append(Other(" ".join([*named, *map(str, draft.pending)])))
    draft.pending = []
    draft.module = ""


_Convert = Callable[[Family, Option], Match | None]


def _converted(convert: _Convert, family: Family, option: Option) -> list[Match]:
    """Return the condition of an option, none for one that any packet meets."""
    try:
        found = convert(family, option)
    except (ValueError, IndexError):
        return [Other(str(option))]
    return [] if found is None else [found]


def _device(end: Literal["in", "out"]) -> _Convert:
    def convert(_: Family, option: Option) -> Match | None:
        (name,) = option.values
        if name == "+" and not option.invert:
            return None
        return Device(end, (name[:-1] + "*" if name.endswith("+") else name,), option.invert)

    return convert


def _prefix(end: End) -> _Convert:
    def convert(family: Family, option: Option) -> Match | None:
        networks: list[IPNetwork] = [
            ip_network(text, strict=False) for value in option.values for text in value.split(",")
        ]
        if not networks or any(network.version != family for network in networks):
            raise ValueError
        return Prefix(end, tuple(networks), option.invert)

    return convert


def _range(end: End) -> _Convert:
    def convert(family: Family, option: Option) -> Match | None:
        (value,) = option.values
        first, _, last = value.partition("-")
        ends = ip_address(first), ip_address(last or first)
        if ends[0].version != family:
            raise ValueError
        try:
            return Prefix(end, tuple(summarize_address_range(*ends)), option.invert)
        except TypeError:  # of two families
            raise ValueError from None

    return convert


def _protocol(_: Family, option: Option) -> Match | None:
    (name,) = option.values
    if name in ("all", "0") and not option.invert:
        return None
    return Protocol((protocol_name(name),), option.invert)


def _ports(end: End) -> _Convert:
    def convert(_: Family, option: Option) -> Match | None:
        ranges = []
        for text in option.values[0].split(","):
            first, colon, last = text.partition(":")
            low = whole_number(first or "0", 0xFFFF)
            ranges.append((low, whole_number(last or "65535", 0xFFFF) if colon else low))
        return Port(end, tuple(ranges), option.invert)

    return convert


def _states(_: Family, option: Option) -> Match | None:
    known: dict[str, ConnectionState] = {state: state for state in get_args(ConnectionState)}
    try:
        states = frozenset(known[word.lower()] for word in option.values[0].split(","))
    except KeyError:  # DNAT and SNAT are virtual states
        raise ValueError from None
    return State(states, option.invert)


def _direction(_: Family, option: Option) -> Match | None:
    known: Mapping[str, Literal["original", "reply"]] = {"ORIGINAL": "original", "REPLY": "reply"}
    if (direction := known.get(option.values[0].upper())) is None:
        raise ValueError
    return Direction(direction, option.invert)


def _mark(of: MarkOf) -> _Convert:
    def convert(_: Family, option: Option) -> Match | None:
        value, mask = marked(option.values[0])
        return MarkIs(of, value, mask, option.invert)

    return convert


def _syn(_: Family, option: Option) -> Match | None:
    return TcpFlags(frozenset({"fin", "syn", "rst", "ack"}), frozenset({"syn"}), option.invert)


def _tcp_flags(_: Family, option: Option) -> Match | None:
    examined, found = (_flags(value) for value in option.values[:2])
    return TcpFlags(examined, found & examined if found <= examined else found, option.invert)


def _flags(text: str) -> frozenset[str]:
    words = frozenset(text.lower().split(","))
    if words <= _FLAGS:
        return words
    if words in ({"all"}, {"none"}):
        return _FLAGS if "all" in words else frozenset()
    raise ValueError


def _statistic(options: Sequence[Option]) -> Statistic | None:
    said = {option.name: option for option in options}
    with suppress(ValueError, IndexError, KeyError):
        mode = said["--mode"].values[0]
        if mode == "random":
            probability = float(said["--probability"].values[0])
            if 0 <= probability <= 1:
                return Statistic(
                    "random", probability=round(probability * _PART) / _PART, invert=said["--probability"].invert
                )
        elif mode == "nth":
            every = whole_number(said["--every"].values[0], 1 << 32)
            packet = whole_number(said["--packet"].values[0], every - 1) if "--packet" in said else 0
            return Statistic("nth", every, packet, 1 / every, said["--every"].invert)
    return None


_CONDITIONS: Final[Mapping[str, _Convert]] = {
    "-s": _prefix("source"),
    "-d": _prefix("destination"),
    "-i": _device("in"),
    "-o": _device("out"),
    "-p": _protocol,
}
_PORTS: Final[Mapping[str, _Convert]] = {"--sport": _ports("source"), "--dport": _ports("destination")}
_IMPLIED: Final[Mapping[str, _Convert]] = {**_PORTS, "--syn": _syn, "--tcp-flags": _tcp_flags}
"""These follow ``-p tcp`` without ``-m tcp``."""

_MODULES: Final[Mapping[str, Mapping[str, _Convert]]] = {
    **{name: {} for name in ("tcp", "udp", "udplite", "sctp", "dccp", "statistic", "icmp", "icmp6")},
    "multiport": {
        "--sports": _ports("source"),
        "--sport": _ports("source"),
        "--dports": _ports("destination"),
        "--dport": _ports("destination"),
    },
    "state": {"--state": _states},
    "conntrack": {"--ctstate": _states, "--ctdir": _direction},
    "mark": {"--mark": _mark("packet")},
    "connmark": {"--mark": _mark("connection")},
    "iprange": {"--src-range": _range("source"), "--dst-range": _range("destination")},
}
_SILENT: Final = frozenset({"comment"})
