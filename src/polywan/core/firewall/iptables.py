"""Read what iptables-save(8) prints; the text is a stranger's, so that nothing in it is an error."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Final

from polywan.core.firewall.model import (
    ALL_MARK_BITS,
    Action,
    ActionOther,
    Chain,
    ConnectionState,
    Device,
    Direction,
    Hook,
    MarkIs,
    MarkOf,
    Match,
    Offload,
    Other,
    Port,
    Prefix,
    Program,
    Protocol,
    Restore,
    Rule,
    Save,
    SetMark,
    State,
    Statistic,
    Table,
    Translate,
    Verdict,
)
from polywan.core.net import PROTOCOL_NAMES, PROTOCOLS, Family

HOOKS: Final[dict[str, Hook]] = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
"""The base chains."""

PRIORITIES: Final = {"raw": -300, "mangle": -150, "nat": 100, "filter": 0, "security": 50}
"""Of the base chains of each table; those of nat before routing have -100."""
_VERDICTS: Final[dict[str, Verdict]] = {
    "ACCEPT": "accept",
    "DROP": "drop",
    "REJECT": "reject",
    "RETURN": "return",
    "QUEUE": "queue",
    "NFQUEUE": "queue",
}
_TRANSLATIONS: Final = {"MASQUERADE": "masquerade", "SNAT": "snat", "DNAT": "dnat", "REDIRECT": "redirect"}
_RULE: Final = re.compile(r"(?:\[(\d{1,20}):(\d{1,20})\] )?(-A (\S+)(?: .*)?)")
_STATES: Final[dict[str, ConnectionState]] = {
    "NEW": "new",
    "ESTABLISHED": "established",
    "RELATED": "related",
    "INVALID": "invalid",
    "UNTRACKED": "untracked",
}
_FLAG_OPTIONS: Final = frozenset({"--restore-mark", "--save-mark", "--random", "--persistent", "--random-fully"})
"""Options of targets without a value."""


def parse(text: str, family: Family, program: Program) -> tuple[Table, ...]:
    """Return the tables of a listing, with or without counters; a line that makes no sense is left out.

    Args:
        text: what iptables-save or ip6tables-save printed.
        family: which of the two.
        program: which kind of iptables.
    """
    tables: list[Table] = []
    name, chains, rules = "", dict[str, str](), dict[str, list[Rule]]()
    for line in (*text.splitlines(), "*"):
        if line.startswith("*"):
            if name:
                made = tuple(_chain(name, each, policy, rules.get(each, [])) for each, policy in chains.items())
                tables.append(Table(program, "ip" if family is Family.V4 else "ip6", name, made))
            name, chains, rules = line[1:].strip(), {}, {}
        elif line.startswith(":") and (words := line[1:].split()):
            chains[words[0]] = words[1] if len(words) > 1 else "-"
        elif match := _RULE.fullmatch(line):
            chains.setdefault(match[4], "-")
            rules.setdefault(match[4], []).append(_rule(match[3], match[1], match[2], family))
    return tuple(tables)


def _chain(table: str, name: str, policy: str, rules: list[Rule]) -> Chain:
    hook = HOOKS.get(name) if policy != "-" else None
    if hook is None:
        return Chain(name, rules=tuple(rules))
    if table == "nat":
        priority = -100 if hook in ("prerouting", "output") else PRIORITIES[table]
        return Chain(name, "nat", hook, priority, "drop" if policy == "DROP" else "accept", tuple(rules))
    kind: Final = "route" if table == "mangle" and hook == "output" else "filter"
    priority = PRIORITIES.get(table, 0)
    return Chain(name, kind, hook, priority, "drop" if policy == "DROP" else "accept", tuple(rules))


def _rule(text: str, packets: str | None, size: str | None, family: Family) -> Rule:
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    options = list(_options(words[2:]))
    target = next(((name, value) for name, value, _ in options if name in ("-j", "-g")), ("", ""))
    before = _before_target(options)
    matches: list[Match] = []
    for name, value, invert in before:
        # In their order: what stands behind a statistic does not keep it from counting.
        matches += filter(None, [_statistic(before) if name == "--mode" else _match(name, value, invert, family)])
    matches = [_of_connection(match) if _compares_connection(before, match) else match for match in matches]
    actions, verdict, chain = _outcome_of(target, _after_target(options))
    return Rule(
        text,
        tuple(matches),
        actions,
        verdict,
        chain,
        int(packets) if packets is not None else None,
        int(size) if size is not None else None,
    )


_Option = tuple[str, str, bool]


def _options(words: list[str]) -> Iterator[_Option]:
    """Yield each option with its value, and whether ``!`` stands before it."""
    at, invert = 0, False
    while at < len(words):
        word = words[at]
        at += 1
        if word == "!":
            invert = True
            continue
        if not word.startswith("-"):
            continue
        value: list[str] = []
        while at < len(words) and not words[at].startswith("-") and words[at] != "!" and word not in _FLAG_OPTIONS:
            value.append(words[at])
            at += 1
        yield word, " ".join(value), invert
        invert = False


def _before_target(options: list[_Option]) -> list[_Option]:
    at = next((n for n, option in enumerate(options) if option[0] in ("-j", "-g")), len(options))
    return options[:at]


def _after_target(options: list[_Option]) -> dict[str, str]:
    at = next((n for n, option in enumerate(options) if option[0] in ("-j", "-g")), len(options))
    return {name: value for name, value, _ in options[at + 1 :]}


def _match(name: str, value: str, invert: bool, family: Family) -> Match | None:  # noqa: FBT001 - read from a rule
    if name in ("-m", "--mode", "--every", "--packet", "--probability", "--comment") or name in _OF_MARKS:
        return _mark(value, invert, name) if name in _OF_MARKS else None
    maker = _MATCHES.get(name)
    made = maker(value, invert, family) if maker is not None else None
    return made if made is not None else Other(f"{'! ' if invert else ''}{name} {value}".strip())


_OF_MARKS: Final = frozenset({"--mark"})


def _device(end: str) -> Callable[[str, bool, Family], Match | None]:
    def made(value: str, invert: bool, _: Family) -> Match:  # noqa: FBT001
        name = f"{value[:-1]}*" if value.endswith("+") else value
        return Device("in" if end == "in" else "out", (name,), invert)

    return made


def _prefix(end: str) -> Callable[[str, bool, Family], Match | None]:
    def made(value: str, invert: bool, family: Family) -> Match | None:  # noqa: FBT001
        try:
            networks = tuple(ip_network(part, strict=False) for part in value.split(","))
        except ValueError:
            return None
        if any(network.version != family for network in networks):
            return None
        return Prefix("source" if end == "source" else "destination", networks, invert)

    return made


def _states(value: str, invert: bool, _: Family) -> Match | None:  # noqa: FBT001
    named = {part.strip().upper() for part in value.split(",")}
    if not named or not named <= _STATES.keys():
        return None
    return State(frozenset(_STATES[part] for part in named), invert)


def _direction(value: str, invert: bool, _: Family) -> Match | None:  # noqa: FBT001
    return Direction("reply" if value == "REPLY" else "original", invert) if value in ("REPLY", "ORIGINAL") else None


def _protocol(value: str, invert: bool, family: Family) -> Match | None:  # noqa: FBT001
    name = {"ipv6-icmp": "icmpv6", "icmp6": "icmpv6"}.get(value, value)
    if value.isdecimal():
        name = PROTOCOL_NAMES.get(int(value), value)
    if name in ("all", "0"):
        return Prefix("source", (family.default,))
    return Protocol((name,), invert) if name in PROTOCOLS or name.isdecimal() else None


def _ports(end: str) -> Callable[[str, bool, Family], Match | None]:
    def made(value: str, invert: bool, _: Family) -> Match | None:  # noqa: FBT001
        ranges = []
        for part in value.split(","):
            low, _colon, high = part.partition(":")
            if not (low or "0").isdecimal() or not (high or "0").isdecimal():
                return None
            first = int(low or 0)
            ranges.append((first, int(high or 65535) if _colon else first))
        return Port("source" if end == "source" else "destination", tuple(ranges), invert)

    return made


_MATCHES: Final[dict[str, Callable[[str, bool, Family], Match | None]]] = {
    "-i": _device("in"),
    "-o": _device("out"),
    "-s": _prefix("source"),
    "-d": _prefix("destination"),
    "-p": _protocol,
    "--state": _states,
    "--ctstate": _states,
    "--ctdir": _direction,
    "--sport": _ports("source"),
    "--dport": _ports("destination"),
    "--sports": _ports("source"),
    "--dports": _ports("destination"),
}


def _mark(value: str, invert: bool, name: str) -> Match:  # noqa: FBT001
    found = _number_and_mask(value)
    return Other(f"{name} {value}") if found is None else MarkIs("packet", found[0] & found[1], found[1], invert)


def _number_and_mask(value: str) -> tuple[int, int] | None:
    number, slash, mask = value.partition("/")
    found, bits = _number(number), _number(mask) if slash else ALL_MARK_BITS
    return None if found is None or bits is None else (found, bits)


def _number(text: str) -> int | None:
    try:
        found = int(text, 0)
    except ValueError:
        return None
    return found if 0 <= found <= ALL_MARK_BITS else None


def _statistic(options: list[_Option]) -> Match:
    """Put together what is spread over several options."""
    words = {name: (value, invert) for name, value, invert in options}
    mode, every, packet = (words.get(name, ("", False))[0] for name in ("--mode", "--every", "--packet"))
    if mode == "nth" and every.isdecimal() and int(every) > 0:
        turn = int(packet) if packet.isdecimal() else 0
        return Statistic("nth", int(every), turn, 1 / int(every), words["--every"][1])
    part, invert = words.get("--probability", ("", False))
    if mode == "random" and (drawn := _part(part)) is not None:
        return Statistic("random", probability=drawn, invert=invert)
    return Other("-m statistic")


def _part(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if 0 <= found <= 1 else None


def _compares_connection(options: list[_Option], match: Match) -> bool:
    """Tell whose mark ``--mark`` is about: the module named last before it says so."""
    module = ""
    for name, value, invert in options:
        if name == "-m":
            module = value
        elif name == "--mark" and module == "connmark" and _mark(value, invert, name) == match:
            return True
    return False


def _of_connection(match: Match) -> Match:
    return MarkIs("connection", match.value, match.mask, match.invert) if isinstance(match, MarkIs) else match


def _outcome_of(target: tuple[str, str], words: dict[str, str]) -> tuple[tuple[Action, ...], Verdict, str]:
    option, name = target
    if option == "-g":
        return (), "goto", name
    if not name:
        return (), "", ""
    if name in _VERDICTS:
        return (), _VERDICTS[name], ""
    if name in ("MARK", "CONNMARK"):
        return _marks("packet" if name == "MARK" else "connection", words), "", ""
    text = " ".join([name, *(f"{key} {value}".strip() for key, value in words.items())])
    if name in _TRANSLATIONS:
        return (Translate(_TRANSLATIONS[name], text),), "accept", ""  # type: ignore[arg-type]  # of `_TRANSLATIONS`
    if name == "NETMAP":
        return (Translate("netmap", text),), "accept", ""
    if name == "TPROXY":
        return (Translate("tproxy", text),), "accept", ""
    if name == "FLOWOFFLOAD":
        return (Offload(),), "", ""
    if name.isupper() and name in _EXTENSIONS:
        return (ActionOther(text),), "", ""
    return (), "jump", name


_EXTENSIONS: Final = frozenset(
    [
        *("AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CT", "DSCP", "ECN", "HL", "HMARK", "IDLETIMER", "LED", "LOG"),
        *("NFLOG", "NOTRACK", "RATEEST", "SECMARK", "CONNSECMARK", "SET", "SYNPROXY", "TCPMSS", "TCPOPTSTRIP", "TEE"),
        *("TOS", "TRACE", "TTL", "ULOG", "DNETMAP"),
    ]
)
"""Targets of iptables-extensions(8) that are no chain."""


def _marks(of: MarkOf, words: dict[str, str]) -> tuple[Action, ...]:
    for name, value in words.items():
        found = _number_and_mask(value) if value else None
        if found is not None and name in _SETTERS:
            setting, mask = _SETTERS[name](*found)
            return (SetMark(of, setting, mask),)
        if name in ("--restore-mark", "--save-mark"):
            return (_copied(name, words),)
    return (ActionOther(" ".join(f"{key} {value}".strip() for key, value in words.items())),)


_SETTERS: Final[dict[str, Callable[[int, int], tuple[int, int]]]] = {
    # --set-mark clears the bits of the mask and those of the value, --set-xmark those of the mask alone.
    "--set-mark": lambda value, mask: (value, mask | value),
    "--set-xmark": lambda value, mask: (value, mask),
    "--or-mark": lambda value, _: (value, value),
    "--and-mark": lambda value, _: (0, ALL_MARK_BITS & ~value),
    "--xor-mark": lambda value, _: (value, 0),
}


def _copied(name: str, words: dict[str, str]) -> Restore | Save:
    """``--nfmask`` and ``--ctmask`` are the bits of each that take part; ``--mask`` is both."""
    both = _number(words.get("--mask", "")) if "--mask" in words else None
    packet = both if both is not None else _number(words.get("--nfmask", "")) if "--nfmask" in words else None
    tracked = both if both is not None else _number(words.get("--ctmask", "")) if "--ctmask" in words else None
    packet = ALL_MARK_BITS if packet is None else packet
    tracked = ALL_MARK_BITS if tracked is None else tracked
    if name == "--restore-mark":
        return Restore(tracked, ALL_MARK_BITS & ~packet)
    return Save(packet, ALL_MARK_BITS & ~tracked)
