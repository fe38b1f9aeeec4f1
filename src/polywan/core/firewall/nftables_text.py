"""Expressions of libnftables-json(5), written as nft(8) prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_BARE: Final = frozenset({"iif", "iifname", "oif", "oifname"})
"""Keys of ``meta`` that are printed without that word."""

_QUOTED: Final = frozenset({"iif", "iifname", "oif", "oifname"})
_WORDS: Final = frozenset(
    {"accept", "drop", "continue", "return", "reject", "masquerade", "redirect", "notrack", "queue", "snat", "dnat"}
)


def expression_text(expression: object) -> str:
    """Write one expression or statement of a rule; ``...`` stands for what is not known here."""
    match expression:
        case {"match": {"left": {"&": [operand, list(mask)]}, "right": right, "op": "==" | "!=" as operator}}:
            return f"{_value(operand)} {'!= ' if operator == '!=' else ''}{_value(right)} / {_value(mask)}"
        case {"match": {"left": operand, "right": right, **rest}}:
            operator = rest.get("op", "==")
            sign = "" if operator in ("==", "in") else f"{operator} "
            # With a mask nft prints `==`, too.
            sign = "== " if isinstance(operand, dict) and "&" in operand and not sign else sign
            return f"{_value(operand)} {sign}{_value(right, _kind(operand))}"
        case {"vmap": {"key": key, "data": data}}:
            return f"{_value(key)} vmap {_value(data, _kind(key))}"
        case {"mangle": {"key": key, "value": value}}:
            return f"{_value(key)} set {_value(value, _kind(key))}"
        case {"flow": {"op": operation, "flowtable": name}}:
            return f"flow {operation} {name}"
        case {"log": {"prefix": prefix}}:
            return f'log prefix "{prefix}"'
        case {"limit": {"rate": rate, "per": unit}}:
            return f"limit rate {rate}/{unit}"
        case {"xt": {"name": name}}:
            return f"xt {name}"
        case {"set": {"op": operation, "elem": element, "set": name}}:
            return f"{operation} {name} {{ {_value(element)} }}"
    if isinstance(expression, dict) and len(expression) == 1:
        ((word, details),) = expression.items()
        return _statement(str(word), details)
    return "..."


def _statement(word: str, details: object) -> str:
    if details is None:
        return word
    if word in ("snat", "dnat", "redirect", "masquerade", "tproxy") and isinstance(details, dict):
        family = f" {details['family']}" if "family" in details else ""
        address = _value(details["addr"]) if "addr" in details else ""
        port = f":{_value(details['port'])}" if "port" in details else ""
        return f"{word}{family} to {address}{port}" if address or port else word
    if word in ("jump", "goto") and isinstance(details, dict):
        return f"{word} {details.get('target')}"
    if word == "reject" and isinstance(details, dict):
        kind, code = str(details.get("type", "")), details.get("expr")
        return f"reject with {kind}{f' {code}' if code else ''}" if kind else "reject"
    return word if word in _WORDS else f"{word} ..."


def _kind(operand: object) -> str:
    """Return the key of a mark or device, whose values are printed in their own way."""
    match operand:
        case {"meta": {"key": str(key)}} | {"ct": {"key": str(key)}}:
            return key
        case {"&": [inner, *_]}:
            return _kind(inner)
    return ""


def _value(value: object, kind: str = "") -> str:
    match value:
        case str():
            return f'"{value}"' if kind in _QUOTED and not value.startswith("@") else value
        case int() if kind == "mark":
            return f"0x{value:08x}"
        case int():
            return str(value)
        case list():
            return ",".join(_value(item, kind) for item in value)
        case dict():
            return _described(value, kind)
    return "..."


def _described(value: Mapping[str, object], kind: str) -> str:
    match value:
        case {"meta": {"key": str(key)}}:
            return key if key in _BARE else f"meta {key}"
        case {"ct": {"key": key, **rest}}:
            return f"ct {rest['dir']} {key}" if "dir" in rest else f"ct {key}"
        case {"payload": {"protocol": protocol, "field": field}}:
            return f"{protocol} {field}"
        case {"prefix": {"addr": address, "len": length}}:
            return f"{_value(address)}/{length}"
        case {"range": [first, last]}:
            return f"{_value(first, kind)}-{_value(last, kind)}"
        case {"concat": list(parts)}:
            return " . ".join(_value(part) for part in parts)
        case {"set": list(elements)}:
            return f"{{ {', '.join(_element(element, kind) for element in elements)} }}"
        case {"elem": {"val": inner}}:
            return _value(inner, kind)
    return _computed(value, kind)


def _element(element: object, kind: str) -> str:
    """Write an element of a set or, with what it leads to, of a map."""
    match element:
        case [key, {**verdict}]:
            return f"{_value(key, kind)} : {expression_text(dict(verdict))}"
        case [key, result]:
            return f"{_value(key, '' if kind == 'mark' else kind)} : {_value(result, kind)}"
    return _value(element, kind)


def _computed(value: Mapping[str, object], kind: str) -> str:
    sign = next(iter(value), "")
    match value.get(sign):
        case [operand, right] if sign in ("&", "|", "^", "<<", ">>"):
            of = _kind(operand) or kind
            return f"{_value(operand, of)} {sign} {_value(right, '' if sign in ('<<', '>>') else of)}"
    match value:
        case {"numgen": {"mode": mode, "mod": every}}:
            return f"numgen {mode} mod {every}"
        case {"jhash": {"mod": every, "expr": inner}}:
            return f"jhash {_value(inner)} mod {every}"
        case {"symhash": {"mod": every}}:
            return f"symhash mod {every}"
        case {"map": {"key": key, "data": data}}:
            return f"{_value(key)} map {_value(data, kind)}"
        case {"fib": {"result": result, "flags": flags}}:
            return f"fib {' . '.join(map(str, flags)) if isinstance(flags, list) else flags} {result}"
        case {"rt": {"key": key}}:
            return f"rt {key}"
        case {"tcp option": {"name": name, **rest}}:
            return f"tcp option {name} {rest.get('field', '')}".rstrip()
    return "..."
