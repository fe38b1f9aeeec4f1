"""How the conditions of rules are written: names, marks, accounts, paths, domains and hours."""

import grp
import os
import pwd
from typing import Any

import pytest
from pydantic_core import PydanticCustomError

from polywan.config import Config, ConfigError, FwMark, Owner, Window, load_text
from polywan.config.kinds.matches import Account, Cgroup, DomainName, Dscp, ForeignMark, ListFile, Mac, Span
from polywan.config.kinds.scalars import Kind

RULE = '[uplinks.fibre]\ninterface = "eth1"\n[[rules]]\nuplink = "fibre"\n'


def refused(kind: Kind, raw: object) -> tuple[str, str]:
    with pytest.raises(PydanticCustomError) as caught:
        kind.parse(raw)
    context: dict[str, Any] = caught.value.context or {}
    return context["message"], context["hint"]


@pytest.mark.parametrize(("raw", "code"), [("ef", 46), ("CS1", 8), ("af41", 34), ("be", 0), (0, 0), (63, 63)])
def test_a_dscp_is_a_name_or_a_number(raw: object, code: int) -> None:
    assert Dscp().parse(raw) == code


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ("efg", 'did you mean "ef"?'),
        ("46", "write it without quotes"),
        (184, "a ToS byte is four times the DSCP: divide by 4"),
        (-1, ""),
        (1 << 4000, ""),
        (True, ""),
        (None, ""),
    ],
)
def test_what_is_no_dscp_is_refused_with_a_way_out(raw: object, hint: str) -> None:
    assert refused(Dscp(), raw)[1] == hint


def test_a_mac_address_is_kept_in_one_spelling() -> None:
    assert Mac().parse("00-1B-44-11-3A-B7") == Mac().parse("00:1b:44:11:3a:b7") == "00:1b:44:11:3a:b7"


@pytest.mark.parametrize("raw", ["", "00:1b:44:11:3a", "00:1b:44:11:3a:b7:00", "00:1b:44:11:3a:b7\n", "g" * 17, 5])
def test_what_is_no_mac_address_is_refused(raw: object) -> None:
    refused(Mac(), raw)


@pytest.mark.parametrize(
    ("raw", "mark"),
    [
        ("0x10", FwMark(0x10, 0xFFFF_FFFF)),
        ("0x10/0xff", FwMark(0x10, 0xFF)),
        ("16/255", FwMark(0x10, 0xFF)),
        ("0X10/255", FwMark(0x10, 0xFF)),
        (16, FwMark(0x10, 0xFFFF_FFFF)),
        ("010", FwMark(10, 0xFFFF_FFFF)),
        (0, FwMark(0, 0xFFFF_FFFF)),
    ],
)
def test_a_mark_has_a_value_and_a_mask(raw: object, mark: FwMark) -> None:
    assert ForeignMark().parse(raw) == mark


@pytest.mark.parametrize(
    "raw", ["", "0x", "/0xff", "0x10/", "0x1_0", "-1", "0x100000000", 1 << 32, -1, "1/0", "0x10/0x0f", True, "ff", [1]]
)
def test_what_is_no_mark_is_refused(raw: object) -> None:
    refused(ForeignMark(), raw)


def test_a_mark_that_could_never_match_says_why() -> None:
    assert refused(ForeignMark(), "0x10/0x0f")[0].endswith("the value has bits outside the mask")


@pytest.mark.parametrize("group", [False, True])
def test_an_account_is_a_name_or_a_number(group: bool) -> None:
    assert Account(group).parse("root") == Owner("root", 0)
    assert Account(group).parse(4242) == Account(group).parse("4242") == Owner("4242", 4242)


def test_an_unknown_user_gets_a_suggestion() -> None:
    assert refused(Account(), "roott") == ('there is no user "roott" on this machine', 'did you mean "root"?')
    assert refused(Account(group=True), "no-such-group-here")[1] == "a number also works"


@pytest.mark.parametrize("raw", ["", "a b", "root;x", "-x", "x" * 40, -1, 0xFFFF_FFFF, True, "9" * 11, "\u0664", None])
def test_what_is_no_account_is_refused(raw: object) -> None:
    refused(Account(), raw)


@pytest.mark.parametrize("raw", ["system.slice/backup.service", "/system.slice/backup.service/"])
def test_a_control_group_is_a_path_below_the_root(raw: str) -> None:
    assert Cgroup().parse(raw) == "system.slice/backup.service"


def test_the_escapes_of_systemd_are_part_of_a_control_groups_name() -> None:
    assert Cgroup().parse(r"dev-disk\x2dby.slice") == r"dev-disk\x2dby.slice"


def test_the_mount_point_is_no_part_of_a_control_group() -> None:
    assert refused(Cgroup(), "/sys/fs/cgroup/system.slice")[1] == "remove /sys/fs/cgroup/"


@pytest.mark.parametrize(
    "raw", ["", "/", "a//b", "../a", "a/./b", 'a"b', "a b", "a\nb", "a" * 256, "a/" * 600 + "a", 5]
)
def test_what_is_no_control_group_is_refused(raw: object) -> None:
    refused(Cgroup(), raw)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("Example.COM.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("_sip._udp.example.org", "_sip._udp.example.org"),
        ("router", "router"),
        ("1.example", "1.example"),
    ],
)
def test_a_domain_is_kept_as_resolvers_know_it(raw: str, name: str) -> None:
    assert DomainName().parse(raw) == name


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ("192.0.2.1", 'put an address into "to"'),
        ("2001:db8::1", 'put an address into "to"'),
        ("https://example.com/x", "write only the name, without https:// and path"),
        ("*.example.com", 'write "example.com": for subdomains use dnsmasq, see `polywan show dnsmasq`'),
        ("", ""),
        (".", ""),
        ("..", ""),
        ("a..b", ""),
        ("-a.example", ""),
        ("a b", ""),
        ("a.example\n", ""),
        ("a" * 64 + ".example", ""),
        ("a." * 127, ""),
        ("é" * 254, ""),
        ("é" * 70 + ".example", ""),
        ("\u3002", ""),
        ("1.2.3", ""),
        ("example.com:80", ""),
        ('x"y.example', ""),
        (5, ""),
    ],
)
def test_what_is_no_domain_is_refused_with_a_way_out(raw: object, hint: str) -> None:
    message, way_out = refused(DomainName(), raw)
    assert message.startswith('expected a domain name such as "example.com", got ')
    assert way_out == hint


def test_a_list_is_named_by_its_whole_path() -> None:
    assert ListFile().parse("/etc/polywan/lists/cdn.txt") == "/etc/polywan/lists/cdn.txt"
    assert refused(ListFile(), "lists/cdn.txt")[1] == "write the absolute path"


@pytest.mark.parametrize("raw", ["", "/a\0b", "/a\nb", "/\x1b[31m", "/" + "a" * 4096, 5, ["/a"]])
def test_what_is_no_path_is_refused(raw: object) -> None:
    refused(ListFile(), raw)


@pytest.mark.parametrize(
    ("raw", "window"),
    [
        ("mon-fri 08:00-18:00", Window((0, 1, 2, 3, 4), 28800, 64800)),
        ("sat,sun", Window((5, 6), 0, 86400)),
        ("Saturday", Window((5,), 0, 86400)),
        ("22:00-06:00", Window((0, 1, 2, 3, 4, 5, 6), 79200, 21600)),
        ("fri-mon 8:00-24:00", Window((0, 4, 5, 6), 28800, 86400)),
        ("  SUN   00:00-00:00 ", Window((6,), 0, 0)),
    ],
)
def test_hours_are_days_and_a_span_of_each(raw: str, window: Window) -> None:
    assert Span().parse(raw) == window


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "8-18",
        "08:00",
        "08:00-",
        "08:00-25:00",
        "24:00-01:00",
        "08:60-09:00",
        "mon-",
        "-fri",
        "monkey",
        "mon,,tue",
        "mon-fri 08:00-12:00 13:00-18:00",
        "mon - fri",
        "08:00-18:00 mon",
        "mon 08:00\u201318:00",
        "\u0660\u0668:00-18:00",
        8,
        [],
        None,
    ],
)
def test_what_are_no_days_and_hours_is_refused(raw: object) -> None:
    assert refused(Span(), raw)[0].startswith('expected days and hours such as "mon-fri 08:00-18:00"')


def test_a_misspelt_day_gets_a_suggestion() -> None:
    assert refused(Span(), "mon-wensday")[1] == 'did you mean "wednesday"?'


def test_several_spans_in_one_text_are_told_to_be_a_list() -> None:
    hint = "use one space, between days and hours; write several spans as a list"
    assert refused(Span(), "mon-fri 08:00-12:00 13:00-18:00")[1] == hint


CONDITIONS = """\
dscp = ["ef", 10]
mac = "00:1B:44:11:3A:B7"
fwmark = "0x10/0xff"
domains = ["example.com", "bücher.example"]
list = "/etc/polywan/lists/cdn.txt"
time = ["mon-fri 08:00-18:00", "22:00-06:00"]
not.user = ["root", 1000]
not.group = "root"
not.cgroup = "system.slice"
"""


@pytest.mark.parametrize("mode", ["python", "json"])
def test_conditions_are_printed_as_they_may_be_written(mode: str) -> None:
    config = load_text(RULE + CONDITIONS)
    printed = config.model_dump(mode=mode, by_alias=True)
    rule = printed["rules"][0]
    assert rule["fwmark"] == "0x10/0xff"
    assert rule["time"][1] == "mon,tue,wed,thu,fri,sat,sun 22:00-06:00"
    assert rule["not"]["user"][0] == "root"
    if mode == "python":
        assert Config.model_validate(printed) == config


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('dscp = ["ef", "ex"]', "rules[0].dscp[1]"),
        ('mac = "x"', "rules[0].mac"),
        ('fwmark = "x"', "rules[0].fwmark"),
        ('user = ["root", "no such"]', "rules[0].user[1]"),
        ("not.group = 1.5", "rules[0].not.group"),
        ('cgroup = "../x"', "rules[0].cgroup"),
        ('domains = "a b"', "rules[0].domains"),
        ('list = "cdn.txt"', "rules[0].list"),
        ('time = "noon"', "rules[0].time"),
        ("only = 5", "rules[0].only"),
        ("time = []", "rules[0].time"),
    ],
)
def test_a_bad_condition_is_one_problem_with_its_line(line: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(RULE + line)
    assert [(p.where, p.key) for p in caught.value.problems] == [("config:5", key)]


def test_long_lists_are_read() -> None:
    networks = ", ".join(f'"10.{i >> 8}.{i & 255}.0/25"' for i in range(20_000))
    names = ", ".join(f'"h{i}.example"' for i in range(5_000))
    marks = ", ".join(str(i) for i in range(1, 5_000, 2))
    rule = load_text(RULE + f'to = [{networks}]\ndomains = [{names}]\nprotocol = "tcp"\nport = [{marks}]\n').rules[0]
    assert (len(rule.to), len(rule.domains), len(rule.port)) == (20_000, 5_000, 2_500)


def test_long_lists_of_mistakes_are_explained_one_by_one() -> None:
    names = ", ".join(f'"no-user-{i}"' for i in range(1_000))
    with pytest.raises(ConfigError) as caught:
        load_text(RULE + f"user = [{names}]\n")
    assert len(caught.value.problems) == 1_000


def test_names_come_from_this_machine() -> None:
    own, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    assert Account().parse(own.pw_name).id == own.pw_uid
    assert Account(group=True).parse(group.gr_name).id == group.gr_gid
