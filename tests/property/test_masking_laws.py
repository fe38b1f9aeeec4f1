"""What leaves a bundle: no secret, no public address, and as much sense as before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import combinations
from typing import Final

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from polywan.config import load_texts
from polywan.core.errors import ConfigError
from polywan.core.masking.masking import mask
from polywan.core.masking.networks import kept
from polywan.core.net import Family, IPAddress
from support.examples import examples

PUBLIC4: Final = (
    "1.2.0.0/16",
    "5.0.0.0/8",
    "84.12.32.0/20",
    "84.12.33.0/24",
    "91.0.0.0/10",
    "212.18.3.0/24",
    "128.0.0.0/2",
)
PUBLIC6: Final = ("2a00:1450::/32", "2a02:8108:1:200::/56", "2001:470:1f0b::/48", "2620:0:1::/48", "2400::/12")


def within(text: str) -> st.SearchStrategy[IPAddress]:
    network = ip_network(text)
    last = int(network.broadcast_address)
    made = IPv4Address if network.version == 4 else IPv6Address
    return st.integers(int(network.network_address), last).map(made)


public4 = st.sampled_from(PUBLIC4).flatmap(within).filter(lambda a: not kept(Family.V4, int(a)))
plain6 = st.sampled_from(PUBLIC6).flatmap(within).filter(lambda a: int(a) >> 24 & 0xFFFF != 0xFFFE)
"""Not made of hardware addresses."""

public6 = (
    plain6
    | st.builds(
        lambda network, oui, tail: IPv6Address(network << 64 | oui << 40 | 0xFFFE << 24 | tail),
        st.integers(0x2A00_0001_0002_0000, 0x2A00_0001_0002_00FF),
        st.integers(0, 0xFFFFFF),
        st.integers(0x100000, 0xFFFFFF),
    )
).filter(lambda a: not kept(Family.V6, int(a)))
public = public4 | public6


def mixed(address: IPAddress) -> str:
    """An IPv4 address in an IPv6 address, in hexadecimal."""
    return f"::ffff:{int(address) >> 16:x}:{int(address) & 0xFFFF:x}"


SPELLINGS: Final[dict[int, tuple[Callable[[IPAddress], str], ...]]] = {
    4: (
        str,
        lambda a: f"::ffff:{a}",
        lambda a: f"64:ff9b::{a}",
        mixed,
        lambda a: a.reverse_pointer,
        lambda a: str(a).replace(".", "-"),
    ),
    6: (str, lambda a: str(a).upper(), lambda a: a.exploded, lambda a: a.exploded.upper(), lambda a: a.reverse_pointer),
}
AROUND: Final = (
    "{}",
    " {} ",
    '"{}"',
    "[{}]:443",
    "dst={},",
    "from {}: no answer",
    "{}/29",
    "{}%eth0",
    "({})",
    "<{}>.",
    "via:{}\n",
)

spelled = public.flatmap(
    lambda address: st.tuples(
        st.just(address),
        st.builds(
            lambda how, around: around.format(how(address)),
            st.sampled_from(SPELLINGS[address.version]),
            st.sampled_from(AROUND),
        ),
    )
)
noise = st.text(alphabet="abc xyz_=:.-\n\t\"'{}[]/,0123456789", max_size=12)


def hidden(text: str, address: IPAddress) -> bool:
    """Tell whether no spelling of an address is in a text."""
    low, number = text.lower(), int(address)
    forms = {how(address).lower() for how in SPELLINGS[address.version]}
    forms |= {f"{number:08x}", number.to_bytes(4)[::-1].hex()} if address.version == 4 else {f"{number:032x}"}
    return not any(re.search(rf"(?<![0-9a-f.:]){re.escape(form)}(?![0-9a-f:]|\.[0-9])", low) for form in forms)


@given(st.lists(st.tuples(spelled, noise), min_size=1, max_size=8))
def test_no_public_address_remains_however_it_is_spelled(found: list[tuple[tuple[IPAddress, str], str]]) -> None:
    text = "".join(f" {place} {between} " for (_, place), between in found)
    masked = mask({"a": text}).texts["a"]
    for (address, _), _ in found:
        assert hidden(masked, address), masked


@given(st.lists(public, min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_what_was_found_is_replaced_in_hexadecimal_too(addresses: list[IPAddress], turned: list[bool]) -> None:
    texts = {"a": " ".join(map(str, addresses)), "b": ""}
    for address, reverse in zip(addresses, turned, strict=False):
        data = address.packed[::-1] if reverse and address.version == 4 else address.packed
        texts["b"] += f"0x{data.hex()} "
    masked = mask(texts)
    assert all(hidden(masked.texts["b"], address) for address in addresses)


@given(st.lists(public, min_size=2, max_size=12, unique=True))
def test_stand_ins_are_of_the_same_networks_in_the_same_order_and_of_nobody(addresses: list[IPAddress]) -> None:
    eui = [a for a in addresses if a.version == 6 and int(a) >> 24 & 0xFFFF == 0xFFFE]
    news = [ip_address(text) for text in mask({"a": "\n".join(map(str, addresses))}).texts["a"].split()]
    assert all(kept(Family(new.version), int(new)) for new in news)
    assert len(set(news)) == len(news)
    for (one, first), (other, second) in combinations(zip(addresses, news, strict=True), 2):
        assert one.version == first.version
        if one.version != other.version:
            continue
        owned, bits = (16, 32) if one.version == 4 else (48, 128)
        for length in range(owned, 65 if one in eui or other in eui else bits + 1):
            assert together(one, other, length) is together(first, second, length)
        if not eui:
            assert (int(one) < int(other)) is (int(first) < int(second))


def together(one: IPAddress, other: IPAddress, length: int) -> bool:
    return int(one) >> one.max_prefixlen - length == int(other) >> other.max_prefixlen - length


networks4 = st.builds(
    lambda address, length: IPv4Network((int(address) >> 32 - length << 32 - length, length)),
    public4,
    st.integers(9, 32),
).filter(lambda n: not kept(Family.V4, int(n.network_address)))
networks6 = st.builds(
    lambda address, length: IPv6Network((int(address) >> 128 - length << 128 - length, length)),
    st.sampled_from(PUBLIC6).flatmap(within),
    st.integers(24, 128),
)


@given(st.lists(networks4, min_size=1, max_size=8) | st.lists(networks6, min_size=1, max_size=6), st.data())
def test_networks_stay_networks_and_contain_what_they_contained(
    networks: list[IPv4Network | IPv6Network], data: st.DataObject
) -> None:
    inside = [data.draw(within(str(network))) for network in networks]
    assume(not any(int(a) >> 24 & 0xFFFF == 0xFFFE for a in inside if a.version == 6))
    lines = [*map(str, networks), *map(str, inside)]
    texts = mask({"a": "\n".join(lines)}).texts["a"].split()
    for network, masked in zip(networks, texts, strict=False):
        new = ip_network(masked)
        assert network.prefixlen == new.prefixlen
        for address, text in zip(inside, texts[len(networks) :], strict=True):
            assert (int(address) in range(int(network[0]), int(network[-1]) + 1)) is (ip_address(text) in new)


letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
secrets = st.text(alphabet=letters + "!$%/+.~*^", min_size=9, max_size=24).map(lambda text: f"q{text}7")
words = st.sampled_from(
    ["password", "token", "psk", "api_key", "Secret", "private-key", "wifi_passphrase", "auth_token"]
)
FORMS: Final = (
    '{word} = "{secret}"',
    "{word} = '{secret}'",
    '{word} = """{secret}"""',
    '{{"{word}": "{secret}"}}',
    'up = ["/usr/bin/x", "--{word}", "{secret}"]',
    'up = ["/usr/bin/x", "--{word}={secret}"]',
    "X-{word}: {secret}",
    "Authorization: Bearer {secret}",
    'up = ["curl", "-d", "{{\\"{word}\\": \\"{secret}\\"}}"]',
)


@given(st.sampled_from(FORMS), words, secrets, noise)
def test_no_secret_remains_here_or_elsewhere(form: str, word: str, secret: str, between: str) -> None:
    line = form.format(word=word, secret=secret)
    masked = mask({"a": f"x\n{line}\n", "b": f"{between}\nsaid '{secret}' and\n{json.dumps(secret)}"})
    assert not any(secret in text for text in masked.texts.values()), masked.texts
    assert [place.line for place in masked.secrets if place.part == "a"] == [2]


@given(
    secrets.map(lambda text: re.sub(r"[^A-Za-z0-9]", "x", text)), st.sampled_from(["user:{}@", "{}@"]), st.booleans()
)
def test_no_secret_of_a_url_remains(secret: str, user: str, hook: bool) -> None:
    urls = [
        f"https://{user.format(secret)}status.example/ping",
        f"https://status.example/ping?a=1&key={secret}",
        f"https://hooks.example/{secret}" if hook else f"https://api.example/push/{secret}/x",
    ]
    masked = mask({"a": "\n".join(urls)})
    assert secret not in masked.texts["a"]
    assert {place.line for place in masked.secrets} == {1, 2, 3}


pieces = (
    spelled.map(lambda pair: pair[1])
    | noise
    | st.builds(
        lambda form, word, secret: form.format(word=word, secret=secret), st.sampled_from(FORMS), words, secrets
    )
    | st.sampled_from(
        ["00:11:22:33:44:55", "fe80::211:22ff:fe33:4455", "enx001122334455", "joe@example.com", "/home/joe/x", "box"]
    )
)


@given(st.lists(pieces, max_size=8), st.lists(pieces, max_size=4))
@settings(max_examples=examples(300))
def test_masking_what_is_masked_changes_nothing(first: list[str], second: list[str]) -> None:
    texts = {"a": "\n".join(first), "b": " ".join(second)}
    once = mask(texts, "box.example").texts
    assert mask(once, "box.example").texts == once
    assert [text.count("\n") for text in once.values()] == [text.count("\n") for text in texts.values()]


@given(st.text(max_size=200) | st.text(alphabet="0123456789abcdef:.-/[]\n", max_size=80))
def test_no_text_is_too_strange(text: str) -> None:
    once = mask({"a": text}).texts
    assert once["a"].count("\n") == text.count("\n")


FILE: Final = """
[uplinks.fibre]
interface = "eth1"
gateway = "{gateway}"
nat = {{snat = "{source}"}}
[uplinks.secret]
interface = "enx001122334455"
gateway6 = "{gateway6}"
weight = 1000
[policies.token]
tiers = [["fibre"], ["secret"]]
affinity = {{key = "source"}}
[[rules]]
from = ["{net}", "{low}-{high}", "0.0.0.0/1", "{net6}", "{low6}-{high6}"]
mac = "00:11:22:33:44:55"
policy = "token"
[[rules]]
from = "{net6}"
action = "bypass"
[health]
targets = ["{target}", "1.1.1.1", "9.9.9.9"]
http_url = "https://check.example/{secret}?token={secret}"
[hooks]
up = ["/home/joe/bin/mail", "--password", "{secret}", "joe@example.com"]
"""


@given(
    st.lists(public4, min_size=5, max_size=5, unique=True),
    st.lists(plain6, min_size=3, max_size=3, unique=True),
    networks4,
    networks6,
    secrets,
)
@settings(max_examples=examples(40))
def test_a_configuration_that_is_good_is_good_when_masked(
    four: list[IPAddress], six: list[IPAddress], net: IPv4Network, net6: IPv6Network, secret: str
) -> None:
    low, high = sorted(four[:2], key=int)
    low6, high6 = sorted(six[:2], key=int)
    text = FILE.format(
        gateway=four[2], source=four[3], target=four[4], gateway6=six[2], net=net, net6=net6, low=low, high=high,
        low6=low6, high6=high6, secret=re.sub(r"[^A-Za-z0-9]", "x", secret),
    )  # fmt: skip
    try:
        before = load_texts({"polywan.toml": text})
    except ConfigError as error:
        raise AssertionError(str(error)) from error
    after = load_texts(mask({"polywan.toml": text}, "fibre").texts)
    assert len(after.config.rules) == len(before.config.rules)
    assert len(after.config.uplinks) == 2
