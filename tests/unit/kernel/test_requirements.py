"""What a machine lacks is told in one line each."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from polywan.core.errors import KernelError, MissingFeature
from polywan.core.plan.plan import NftBatch, Plan
from polywan.core.ruleset.model import Key
from polywan.core.ruleset.policies import KEY_CHECK
from polywan.kernel import requirements
from polywan.kernel.conntrack import table as conntrack
from polywan.kernel.linux import LinuxKernel
from polywan.kernel.netlink.socket import ROUTE, NetlinkSocket
from polywan.kernel.nft import libnftables
from polywan.kernel.nft.libnftables import Nftables


@pytest.mark.parametrize(
    ("line", "held"),
    [
        ("CapEff:\t0000000000001000\n", True),
        ("CapEff:\t000001ffffffefff\n", False),
        ("CapPrm:\t0000000000001000\n", False),
    ],
)
def test_the_capability_is_read_from_the_effective_set(tmp_path: Path, line: str, held: bool) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython\n{line}Seccomp:\t0\n")
    assert requirements.has_net_admin(status) is held


def test_without_the_capability_that_is_all_there_is_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "has_net_admin", lambda: False)
    kernel = LinuxKernel()
    (line,) = kernel.missing()
    kernel.close()
    assert line.startswith("CAP_NET_ADMIN (run as root")


def test_an_absent_library_is_named_with_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libnftables, "LIBRARY", "libabsent.so.1")
    with pytest.raises(MissingFeature, match=r"libnftables \(Debian: libnftables1"):
        Nftables().run("")


def test_an_absent_library_fails_the_operation_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libnftables, "LIBRARY", "libabsent.so.1")
    kernel = LinuxKernel()
    report = kernel.apply(Plan((NftBatch("list ruleset\n"),)))
    kernel.close()
    assert [failure.message for failure in report.failures] == [libnftables.MISSING_LIBRARY]


class RefusesExpression(Nftables):
    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def run(self, text: str) -> None:
        if self.word in text:
            raise KernelError("nft", errno.ENOENT, "Could not process rule: No such file or directory")


@pytest.mark.parametrize(
    ("word", "option"),
    [
        ("numgen", "CONFIG_NFT_NUMGEN"),
        ("fib", "CONFIG_NFT_FIB_INET"),
        ("ct mark", "CONFIG_NFT_CT"),
        ("reject", "CONFIG_NFT_REJECT_INET"),
    ],
)
def test_an_absent_expression_is_named_with_its_kernel_option(
    monkeypatch: pytest.MonkeyPatch, word: str, option: str
) -> None:
    monkeypatch.setattr(requirements, "has_net_admin", lambda: True)
    monkeypatch.setattr(conntrack, "reachable", lambda: None)
    with NetlinkSocket(ROUTE) as netlink:
        (line,) = requirements.missing(netlink, RefusesExpression(word))
    assert option in line
    assert "\n" not in line


def test_absent_connection_tracking_is_named_with_its_kernel_option(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise KernelError("read connections", errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(requirements, "has_net_admin", lambda: True)
    monkeypatch.setattr(requirements, "stored_keys", lambda _: KEY_CHECK.elements)
    monkeypatch.setattr(conntrack, "reachable", refuse)
    with NetlinkSocket(ROUTE) as netlink:
        (line,) = requirements.missing(netlink, RefusesExpression("nothing of the kind"))
    assert "CONFIG_NF_CT_NETLINK" in line


@pytest.mark.parametrize(
    ("stored", "shown"),
    [({}, "stores nothing:"), ({7: "accept", 9: "drop"}, "stores 7 and 9:"), ({1: ""}, "stores 1:")],
)
def test_a_library_whose_slots_the_kernel_would_not_find_is_named_with_the_consequence_and_the_cure(
    monkeypatch: pytest.MonkeyPatch, stored: dict[Key, str], shown: str
) -> None:
    monkeypatch.setattr(requirements, "has_net_admin", lambda: True)
    monkeypatch.setattr(requirements, "stored_keys", lambda _: stored)
    (line,) = requirements.missing_key_order(Nftables())
    assert shown in line
    assert "every new connection would take the first uplink; install another version" in line
    assert not requirements.swaps_keys(Nftables())


@pytest.mark.parametrize("swapped", [False, True])
def test_a_library_of_either_byte_order_is_used(monkeypatch: pytest.MonkeyPatch, *, swapped: bool) -> None:
    stored = dict(zip(KEY_CHECK.elements, reversed([*KEY_CHECK.elements.values()]), strict=True))
    monkeypatch.setattr(requirements, "has_net_admin", lambda: True)
    monkeypatch.setattr(requirements, "stored_keys", lambda _: stored if swapped else KEY_CHECK.elements)
    assert list(requirements.missing_key_order(Nftables())) == []
    assert requirements.swaps_keys(Nftables()) is swapped


def test_a_question_that_the_kernel_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Nftables) -> None:
        raise KernelError("nft", errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(requirements, "has_net_admin", lambda: True)
    monkeypatch.setattr(requirements, "stored_keys", refuse)
    (line,) = requirements.missing_key_order(Nftables())
    assert line.startswith("nftables maps from numbers to chains: ")
    with pytest.raises(KernelError):  # and never guessed
        requirements.swaps_keys(Nftables())


def test_a_text_with_a_nul_never_reaches_the_library() -> None:
    with pytest.raises(KernelError) as caught:
        Nftables().run("add table inet polywan\0; flush ruleset")
    assert caught.value.errno == errno.EINVAL
