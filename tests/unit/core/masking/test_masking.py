"""What is masked and what stays, by example; the laws are in tests/property/test_masking_laws.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from polywan.config import load_texts
from polywan.core.masking.masking import mask

ROOT = Path(__file__).resolve().parents[4]
CONFIGURATIONS = [
    *sorted((ROOT / "examples").rglob("*.toml")),
    *sorted((ROOT / "tests/golden/cases").glob("*/config.toml")),
]


def masked(text: str, host: str = "") -> str:
    return mask({"a": text}, host).texts["a"]


@pytest.mark.parametrize(
    "text",
    [
        "10.1.2.3 100.64.1.1 127.0.0.1 169.254.1.1 172.16.0.1 192.168.1.0/24 224.0.0.1 255.255.255.0 0.0.0.0/0",
        "192.0.2.1 198.51.100.7 203.0.113.0/24 198.18.0.1 1.1.1.1 8.8.8.8 9.9.9.9 149.112.112.112",
        ":: ::1 ::/0 2000::/3 fe80::1 fd00::1 ff02::1 2001:db8::1 2606:4700:4700::1111 64:ff9b::/96 ::ffff:10.0.0.1",
        "0.0.0.0/1 128.0.0.0/1 64.0.0.0/2",
        "00:00:00:00:00:00 ff:ff:ff:ff:ff:ff",
        "std::string 12:34:56 2026-11-30T10:00:00 a:b 3.11.2 6.18.44-rt net.ipv4.ip_forward = 1 0x3f000000",
        'affinity = {key = "source"}\npolicy = "token"\n[uplinks.secret]\nuplinks = {secret = {interface = "eth1"}}',
        'action = "bypass"\n"key": "uplinks.x"\n"psk": null\ntoken = true',
        "getty@tty1.service eth0@if5",
    ],
)
def test_what_says_nothing_of_anybody_stays(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("84.12.33.7/24", "240.0.0.7/24"),
        ("84.12.33.1 84.12.33.77 84.12.77.1", "240.0.0.1 240.0.0.77 240.0.64.1"),
        ("84.0.0.7/8", "240.0.0.7/8"),
        ("[2A00:0001:0002:0003:0000:0000:0000:0001]:443", "[3fff::1]:443"),
        ("2a00:1:2:3::1 2a00:1:2:4::1", "3fff::1 3fff:0:0:4::1"),
        ("::ffff:84.12.33.7 64:ff9b::540c:2107", "::ffff:240.0.0.7 64:ff9b::f000:7"),
        ("7.33.12.84.in-addr.arpa 33.12.84.in-addr.arpa", "7.0.0.240.in-addr.arpa 0.0.240.in-addr.arpa"),
        ("84.12.33.7 p540c2107.dip.example 84-12-33-7.example", "240.0.0.7 pf0000007.dip.example 240-0-0-7.example"),
        ("from 84.12.33.7: no answer.", "from 240.0.0.7: no answer."),
        ("lladdr 00:11:22:33:44:55 enx001122334455", "lladdr 00:11:22:00:00:01 enx001122000001"),
        ("0011.2233.4455 00-11-22-33-44-55", "0011.2200.0001 00-11-22-00-00-01"),
        ("fe80::211:22ff:fe33:4455%eth0 00:11:22:33:44:55", "fe80::211:22ff:fe00:1%eth0 00:11:22:00:00:01"),
        ("joe@example.com x@y.service", "user-1@example.invalid x@y.service"),
        ("/home/joe/list /home/ann /home/joe", "/home/user-1/list /home/user-2 /home/user-1"),
    ],
)
def test_the_same_thing_has_the_same_stand_in_in_every_spelling(text: str, becomes: str) -> None:
    assert masked(text) == becomes


@pytest.mark.parametrize("text", ["0.10.84.12.33.7", "eth0.84.12.33.7", "tcp:80:84.12.33.7:443", "1.3.6.1.84.12.33.7"])
def test_an_address_in_a_longer_row_of_numbers_does_not_remain(text: str) -> None:
    assert "84.12.33.7" not in masked(text)


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ('password = "a b"', 'password = "masked-1"'),
        ("wifi_password='x'", "wifi_password='masked-1'"),
        ('token = """\nabc\n"""', 'token = """masked-1\n\n"""'),
        ('{"apiKey": "x\\"y"}', '{"apiKey": "masked-1"}'),
        ('"{\\"token\\": \\"abc\\"}"', '"{\\"token\\": \\"masked-1\\"}"'),
        ("pin = 4711", "pin = 1000"),
        ('{"pin": 4711}', '{"pin": 1000}'),
        ("export API_TOKEN=abc;x", "export API_TOKEN=masked-1;x"),
        ("# the password: open sesame", "# the password: masked-1"),
        ('["-H", "Authorization: Basic am9lOng="]', '["-H", "Authorization: Basic masked-1"]'),
        ('["--auth-token", "abc", "x"]', '["--auth-token", "masked-1", "x"]'),
        ('["-u", "joe:x y"]', '["-u", "masked-1"]'),
        ('["--token", "abc d\\"e", "x"]', '["--token", "masked-1", "x"]'),
        ("curl -u joe:abc https://x.example", "curl -u masked-1 https://x.example"),
        ("https://joe:abc@x.example/a", "https://masked-1@x.example/a"),
        ("https://x.example/?a=b&c=d#e", "https://x.example/?a=masked-1&c=masked-2#e"),
        ("https://hooks.slack.example/services/T0/B0/x", "https://hooks.slack.example/masked-1"),
        ("https://x.example/a/0123456789abcdefg/b", "https://x.example/a/masked-1/b"),
        ("http://x.example/generate_204", "http://x.example/generate_204"),
        ("-----BEGIN KEY-----\nabc\n-----END KEY-----\n", "masked-1\n\n\n"),
        ("mGuQNHnJXzYmr0Xy0kB7jyBhhZpdtH4jWSyNUuXIXlY=", "masked-1"),
        ("user joe password abc", "user joe password masked-1"),
    ],
)
def test_secrets_are_known_by_name_place_and_form(text: str, becomes: str) -> None:
    assert masked(text) == becomes


ENDLESS = (
    "11:",
    "1:",
    "1.",
    "--a-",
    "A1b",
    "http://a?b",
    'token="',
    "a.b@",
    "-----BEGIN A-----",
    "/home/",
    "-u a:",
    "pin=1",
)


@pytest.mark.parametrize("piece", ENDLESS)
def test_a_text_without_end_takes_no_longer_than_its_length_asks_for(piece: str) -> None:
    """What looks through all that follows at each place would take minutes."""
    text = piece * (100_000 // len(piece))
    assert mask({"a": text}).texts["a"].count("\n") == 0


def test_the_beginning_of_a_secret_that_a_message_has_cut_is_replaced_too() -> None:
    text = 'http = "https://x.example/?token=abcdefgh12345678"\nexpected a URL, got "https://x.example/?a abcdefgh1…"'
    assert masked(text).endswith('"https://x.example/?a masked-1…"')


def test_a_host_name_is_replaced_whole_and_not_as_a_part_of_words() -> None:
    assert (
        masked("Box box.example.com boxes my-box box:", "box.example.com")
        == "this-host this-host boxes my-box this-host:"
    )


def test_more_networks_than_there_is_room_for_share_their_stand_ins_and_none_remains() -> None:
    many = [f"{a}.{b}.1.7" for a in range(20, 40) for b in range(256)]
    done = mask({"a": "\n".join(many)})
    assert all(line.startswith(("24", "25")) for line in done.texts["a"].splitlines())
    assert done.shared == len(many) - 4095


@pytest.mark.parametrize("file", CONFIGURATIONS, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_example_still_loads_when_it_is_masked(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    before = load_texts({"polywan.toml": text}).config
    after = load_texts(mask({"polywan.toml": text}, "fibre").texts).config
    assert (len(after.uplinks), len(after.rules)) == (len(before.uplinks), len(before.rules))
