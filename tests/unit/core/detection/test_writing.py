"""What the file says of what was seen."""

from __future__ import annotations

import pytest

from polywan.config import load_text
from polywan.config.model.numbering import MOST_NUMBERS
from polywan.core.detection.writing import Proposal, propose, text
from support.detected import Machine, gateway


def written(machine: Machine, *, forwarding: bool = True) -> str:
    return text(propose(machine.survey(), (), forwarding=forwarding))


def test_a_gateways_file_is_a_few_commented_lines() -> None:
    assert written(gateway()) == (
        "# Written by `polywan init`. After an edit: polywan check && polywan reload\n"
        "# All keys, with the reason for each default: docs/config.md\n"
        "# Uplinks share evenly. Where lines differ, give each a weight, such as its Mbit/s: weight = 100\n"
        "\n"
        "[global]\n"
        "forwarding = true             # for lan0 (192.168.15.0/24)\n"
        "\n"
        "[uplinks.eth1]\n"
        'interface = "eth1"            # IPv4 default route by 100.64.1.1\n'
        "\n"
        "[uplinks.eth2]\n"
        'interface = "eth2"            # IPv4 default route by 100.64.2.1\n'
    )


def test_a_host_that_does_not_forward_has_no_word_on_it() -> None:
    assert "forwarding" not in written(gateway(), forwarding=False)


def test_a_metered_uplink_has_its_reason() -> None:
    machine = gateway()
    machine.link("wwan0", "10.1.2.3/30", driver="qmi_wwan")
    machine.default("wwan0", None)
    file = written(machine)
    assert "metered = true                # mobile modem (qmi_wwan): it stands by until no other uplink is up\n" in file
    assert load_text(file).uplinks["wwan0"].metered


@pytest.mark.parametrize(
    ("device", "name"), [("eth0.100", "eth0_100"), ("3g-wan", "wan3g-wan"), ("other", "other-1"), ("ppp0", "ppp0")]
)
def test_an_uplink_is_named_as_its_device_as_far_as_that_is_a_name(device: str, name: str) -> None:
    machine = Machine()
    machine.link(device, "100.64.1.2/24")
    machine.default(device, "100.64.1.1")
    assert list(load_text(written(machine)).uplinks) == [name]


def test_devices_whose_names_become_the_same_have_two() -> None:
    machine = Machine()
    for device in ("eth0.1", "eth0@1"):
        machine.link(device, "100.64.1.2/24")
        machine.default(device, "100.64.1.1")
    assert list(load_text(written(machine)).uplinks) == ["eth0_1", "eth0_1-1"]


def test_routers_of_one_device_are_named_in_the_file() -> None:
    machine = Machine()
    machine.link("eth1", "192.168.0.2/24", "192.168.1.2/24")
    machine.default("eth1", "192.168.0.1")
    machine.default("eth1", "192.168.1.1")
    uplinks = load_text(written(machine)).uplinks
    assert {name: str(uplink.gateway) for name, uplink in uplinks.items()} == {
        "eth1-1": "192.168.0.1",
        "eth1-2": "192.168.1.1",
    }


def many(count: int) -> Machine:
    machine = Machine()
    for number in range(count):
        machine.link(f"vwan{number}", f"100.{64 + number // 200}.{number % 200}.2/24", kind="macvlan")
        machine.default(f"vwan{number}", f"100.{64 + number // 200}.{number % 200}.1")
    return machine


def test_of_many_uplinks_each_has_one_line() -> None:
    file = written(many(53))
    assert file.count("\n") < 60
    assert len(load_text(file).uplinks) == 53


def test_more_uplinks_than_the_mask_has_room_for_get_a_wider_one() -> None:
    file = written(many(63))
    assert "mark_mask = 0x3f800000" in file
    assert len(load_text(file).uplinks) == 63


def test_more_uplinks_than_there_are_marks_are_left_out() -> None:
    assert len(load_text(written(many(300))).uplinks) == MOST_NUMBERS


def test_what_is_asked_for_is_in_the_file_when_it_was_accepted() -> None:
    machine = gateway()
    machine.ppp("ppp0", "10.8.0.2/32")
    machine.default("ppp0", None)
    names = [entry.name for entry in propose(machine.survey(), ("ppp0",), forwarding=False).uplinks]
    assert names == ["eth1", "eth2", "ppp0"]
    assert [e.name for e in propose(machine.survey(), (), forwarding=False).uplinks] == ["eth1", "eth2"]


def test_names_that_a_file_gave_are_kept() -> None:
    proposal = propose(gateway().survey(), (), forwarding=False, names={("eth1", ""): "fibre", ("eth9", ""): "eth2"})
    assert [entry.name for entry in proposal.uplinks] == ["fibre", "eth2-1"]


def test_an_empty_proposal_is_text_all_the_same() -> None:
    assert text(Proposal(uplinks=())).startswith("# Written by")
