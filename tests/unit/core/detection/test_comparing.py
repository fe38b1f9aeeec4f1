"""How a file that is there differs from the one that would be written."""

from __future__ import annotations

from polywan.config import load_text
from polywan.core.detection.comparing import difference, names, remarks
from polywan.core.detection.writing import propose, text
from support.detected import gateway

FILE = """\
# mine
[uplinks.fibre]
interface = "eth1"
weight = 3
[uplinks.old]
interface = "eth9"
[[rules]]
to = "10.0.0.0/8"
action = "bypass"
"""


def proposed(file: str) -> str:
    return text(propose(gateway().survey(), (), forwarding=False, names=names(load_text(file))))


def test_a_file_that_says_the_same_does_not_differ() -> None:
    file = '[uplinks.fibre]\ninterface = "eth1"\n[uplinks.dsl]\ninterface = "eth2" # DSL\n'
    assert load_text(file) == load_text(proposed(file))


def test_the_difference_leaves_out_comments() -> None:
    shown = difference(FILE, proposed(FILE), "polywan.toml")
    lines = shown.splitlines()
    assert "-weight = 3" in lines
    assert '+interface = "eth2"' in lines
    assert " [uplinks.fibre]" in lines
    assert "#" not in shown


def test_what_the_difference_means_is_said() -> None:
    machine = gateway()
    said = list(remarks(load_text(FILE), load_text(proposed(FILE)), machine.survey(), machine.observed))
    assert said == [
        "not in your file: eth2",
        "only in your file: uplink old, whose device eth9 is not here at present",
        "your file also says: weight of 1 uplink and 1 rule",
    ]


def test_an_uplink_of_the_file_that_was_not_taken_for_one_has_the_reason() -> None:
    machine = gateway()
    file = FILE.replace("eth9", "lan0")
    said = list(remarks(load_text(file), load_text(proposed(file)), machine.survey(), machine.observed))
    assert (
        "only in your file: uplink old, whose device lan0 was not taken for one: a LAN: 192.168.15.0/24, and no router"
        in said
    )


def test_uplinks_that_share_a_device_are_known_by_their_routers() -> None:
    routers = {"a": "192.0.2.1", "b": "192.0.2.2"}
    file = "".join(f'[uplinks.{n}]\ninterface = "eth1"\ngateway = "{via}"\n' for n, via in routers.items())
    assert names(load_text(file)) == {("eth1", "192.0.2.1"): "a", ("eth1", "192.0.2.2"): "b"}
