import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polywan.config import Config, ConfigError, load_text
from polywan.config.loading.toml_lines import key_lines
from support.examples import examples

EVERY_CONDITION = """\
[uplinks.fibre]
interface = "eth1"
nat6 = "prefix"
prefix6 = "2001:db8:a::/56"
weight = 2
bandwidth = {down = "50Mbit", up = 1e7}
shaping = {algorithm = "cake", share = "90%", link = "docsis"}
quota = {monthly = "50GB", billing_day = 15, soft = "90%", at_soft = "less", at_hard = "block", counts = "down"}
[uplinks.lte]
interface = "wwan0"
nat = "none"
[policies.web]
algorithm = "random"
tiers = [["fibre", "lte"]]
affinity = {key = "source", timeout = "10m"}
[[rules]]
only = ["fibre"]
to = ["10.0.0.0/8", "2001:db8::/32"]
dscp = ["ef", 10]
mac = "00:1b:44:11:3a:b7"
fwmark = "0x10/0xff"
domains = ["example.com"]
list = "/etc/polywan/lists/cdn.txt"
time = ["mon-fri 08:00-18:00", "22:00-06:00"]
not = {user = ["root", 1000], group = 0, time = "sun"}
[[rules]]
policy = "web"
only = "lte"
protocol = "tcp"
port = "80,443"
[[rules]]
uplink = "lte"
cgroup = "system.slice/backup.service"
user = "root"
"""
VALID = [p.read_text(encoding="utf-8") for p in sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))]
VALID.append(EVERY_CONDITION)
WORDS = [
    "[",
    "]",
    "[[",
    "{",
    "}",
    '"',
    "'",
    '"""',
    "=",
    ".",
    ",",
    "#",
    "\n",
    "\\",
    "0x",
    "-1",
    "1e999",
    "nan",
    "true",
    "uplinks",
    "rules",
    "not",
    "health",
    "9" * 25,
    "\ud800",
    "\0",
    "é",
    "2024-01-01",
    '"auto"',
    "[1]",
    "{a = 1}",
]

scalars = st.one_of(
    st.integers(),
    st.floats(),
    st.booleans(),
    st.text(max_size=8),
    st.dates(),
    st.just(1 << 4000),
    st.sampled_from(["auto", "1s", "500Mbit", "10.0.0.1/8", "fe80::1%x", "80-443", "fibre", "ipv4"]),
    st.sampled_from(["ef", "0x100/0xf00", "root", "a/b", "x.example", "/x", "mon 08:00-09:00", "per-packet", "none"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def load_or_explain(text: str) -> None:
    try:
        config = load_text(text)
    except ConfigError as error:
        problems = error.problems
    else:
        assert Config.model_validate(config.model_dump(by_alias=True)) == config
        return
    assert problems
    for problem in problems:
        assert problem.message
        assert problem.message.isprintable()
        assert problem.key.isprintable()
        assert "pydantic" not in str(problem)


def test_the_texts_that_are_mutated_are_good() -> None:
    for text in VALID:
        load_text(text)


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_explained(text: str) -> None:
    load_or_explain(text)


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_a_mutated_configuration_is_a_configuration_or_explained(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(VALID))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.sampled_from(["", *WORDS])) + text[end:]
    load_or_explain(text)


def mutate(tree: Any, data: st.DataObject) -> Any:
    """Walk down to some place and put an arbitrary value there."""
    if isinstance(tree, dict) and tree and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(tree)))
        return {**tree, key: mutate(tree[key], data)}
    if isinstance(tree, list) and tree and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(tree) - 1))
        return [*tree[:place], mutate(tree[place], data), *tree[place + 1 :]]
    return data.draw(values)


@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_accepted_or_explained(data: st.DataObject) -> None:
    tree = mutate(tomllib.loads(data.draw(st.sampled_from(VALID))), data)
    load_or_explain(toml_of(tree) if isinstance(tree, dict) else "")


def toml_of(value: Any) -> str:
    return "".join(f"{quoted(key)} = {inline(item)}\n" for key, item in value.items())


def inline(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case int():
            return hex(value) if value >= 0 else str(value)
        case list():
            return "[" + ", ".join(map(inline, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{quoted(k)} = {inline(v)}" for k, v in value.items()) + "}"
        case _:
            return str(value)


def quoted(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" for c in text) + '"'


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), values, max_size=5))
def test_every_value_is_found_on_its_line(tree: dict[str, Any]) -> None:
    lines = key_lines(toml_of(tree))
    assert lines == {path: row for row, key in enumerate(tree, 1) for path in paths(tree[key], (key,))}


def paths(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if len(path) > 8:
        return
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))
