"""The rule sets that benchmarks compare, and their small statistics, as far as they are text and numbers."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from ipaddress import ip_address

import pytest
from dataplane import FULL, KINDS, markdown
from designs import (
    DESIGNS,
    Design,
    mask_for,
    mwan3_mark,
    mwan3_rules,
    mwan3_sets,
    nth_rules,
    polywan_config,
)
from hitless import PROMISES, file_of, owners, witness
from hitless import markdown as hitless_markdown
from stats import environment, median, ratio, ratios, spread, turns
from wires import Flow, Wires, address, gateway, interface, mac, parse_sent

from polywan.config import Config

FLOW = (
    "udp      17 29 src=192.168.15.10 dst=198.51.100.1 sport=1024 dport=9 src=198.51.100.1 dst=100.64.2.2 "
    "sport=9 dport=1025 {more}mark={mark} use=1"
)


def _marks(rules: Iterable[str], option: str) -> list[str]:
    return [found[1] for rule in rules if (found := re.search(rf"{option} (\S+)", rule))]


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert median([4, 1, 3, 2]) == 2.5


def test_the_spread_is_least_and_most() -> None:
    assert spread([2, 3, 1]) == (1, 3)


def test_ratios_are_taken_round_by_round() -> None:
    slow_second_round = ([2.0, 20.0, 3.0], [1.0, 10.0, 1.0])
    assert ratios(*slow_second_round) == [2, 2, 3]
    assert ratio(*slow_second_round) == 2


def test_rounds_that_do_not_match_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_turns_go_there_and_back() -> None:
    assert list(turns(["a", "b"], 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_the_environment_names_kernel_and_tools() -> None:
    assert set(environment()) == {"kernel", "machine", "nft", "iproute2", "python"}


@pytest.mark.parametrize("count", [2, 8, 53, 200])
def test_the_recipe_gives_each_uplink_its_turn_and_its_mark(count: int) -> None:
    rules = list(nth_rules(count))
    assert len(rules) == 2 * count
    chosen = _marks(rules, "--set-mark")
    assert sorted(map(int, chosen)) == list(range(1, count + 1))
    assert _marks(rules, "connmark --mark") == chosen
    assert _marks(rules, "--packet") == [str(n) for n in range(count)]


@pytest.mark.parametrize("count", [2, 8, 53])
def test_the_chances_of_mwan3_give_equal_shares(count: int) -> None:
    policy = [rule for rule in mwan3_rules(count) if rule.startswith("-A mwan3_policy_balanced")]
    remaining, shares = 1.0, []
    for rule in policy:
        chance = float(found[1]) if (found := re.search(r"--probability (\S+)", rule)) else 1.0
        shares.append(remaining * chance)
        remaining *= 1 - chance
    assert len(shares) == count
    # mwan3 itself writes three digits.
    assert shares == pytest.approx([1 / count] * count, rel=0.1)


@pytest.mark.parametrize("count", [2, 53, 200])
def test_marks_of_mwan3_are_distinct_and_fit_below_its_reserved_ones(count: int) -> None:
    mask = mask_for(count)
    marks = [int(mwan3_mark(n), 16) for n in range(1, count + 1)]
    assert len(set(marks)) == count
    assert all(mark & mask == mark and 0 < mark < mask - 0x200 for mark in marks)


def test_rules_of_mwan3_refer_only_to_chains_and_sets_that_exist() -> None:
    rules = list(mwan3_rules(3))
    declared = {rule.split()[0].removeprefix(":") for rule in rules if rule.startswith(":")}
    own = {name for name in _marks(rules, "-j") + _marks(rules, "-A") if name.startswith("mwan3_")}
    sets = {line.split()[1] for line in mwan3_sets(3) if line.startswith("create")}
    assert own == declared
    assert set(_marks(rules, "--match-set")) == sets


@pytest.mark.parametrize("count", [1, 62, 63, 200])
def test_the_configuration_of_any_number_of_uplinks_is_valid(count: int) -> None:
    config = Config.model_validate(polywan_config(count))
    assert len(config.uplinks) == count


def test_weights_are_taken_in_turn() -> None:
    uplinks = polywan_config(3, (5, 1))["uplinks"]
    assert [uplink["weight"] for uplink in uplinks.values()] == [5, 1, 5]


def test_the_configuration_file_says_what_the_configuration_says() -> None:
    config = polywan_config(2, (3, 1), health={"targets": ["203.0.113.10"]})
    assert tomllib.loads(file_of(config)) == config


def test_uplinks_share_no_address() -> None:
    numbers = range(1, 201)
    assert len({mac(n, end) for n in numbers for end in (0, 1)}) == 400
    assert len({f(n) for n in numbers for f in (address, gateway)}) == 400
    assert all(ip_address(address(n)) for n in numbers)
    assert len({interface(n) for n in numbers}) == 200


@pytest.mark.parametrize("more", ["", "[ASSURED] "])
def test_a_tracked_connection_is_read_from_both_directions(more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    line = FLOW.format(more=more, mark=256)
    monkeypatch.setattr("polywan.lab.namespaces.Namespace.run", lambda *_, **__: Done(line))
    assert Wires("w", 2).flows() == [Flow(1024, 9, "100.64.2.2", 1025, 256)]


def test_replies_go_to_the_uplink_that_has_the_address() -> None:
    text = Wires("w", 2).targets([Flow(1024, 9, "100.64.2.2", 1025, 256)])
    assert text == f"3002 {mac(2, 0)} 100.64.2.2 1025 9\n"


def test_the_witness_is_told_the_uplink_of_each_flow() -> None:
    command = owners([Flow(1024, 7, "100.64.2.2", 1025, 256)], range(1, 3))
    assert command == 'add element netdev sink owners { "isp2" . 1025 }\n'
    assert "set owners" in witness(range(1, 3))


def test_what_the_generator_prints_is_read_back() -> None:
    assert parse_sent("100 0.5 0.25\n") == (100, 0.5, 0.25)


def test_a_design_names_the_package_of_what_is_missing() -> None:
    assert Design("x", lambda _: None, (("no-such-tool", "toolbox"),)).missing() == "no-such-tool (package toolbox)"


def test_the_report_names_what_was_left_out() -> None:
    rows = [
        {
            "uplinks": 2,
            "design": design,
            "kind": kind,
            "ns": 100,
            "ns_spread": [90, 110],
            "ratio": 1.5,
            "ratio_spread": [1.25, 1.75],
            "lost": 0,
        }
        for design in ("bare", "polywan")
        for kind in KINDS
    ]
    size = {"rounds": FULL.rounds, "new": 1, "packets": 1, "flows": 1}
    left_out = {"mwan3": "absent: ipset (package ipset)"}
    text = markdown({"absent": "", "size": size, "rows": rows, "unmeasured": "", "tcp": [], "left_out": left_out})
    assert "| polywan | 1.50 (1.25..1.75), 100 ns |" in text
    assert f"Left out: {DESIGNS['mwan3'].title}: absent: ipset (package ipset)." in text


def test_the_report_of_reloads_lists_every_promise() -> None:
    result = {
        "absent": "",
        "uplinks": 8,
        "reloads": 60,
        "changes": 60,
        "seconds": 6.0,
        "troubles": [],
        "sent": {"out": 1, "in": 1, "new": 1},
        "reload_ms": 10.0,
        "reload_ms_spread": [9.0, 11.0],
        "counts": dict.fromkeys(PROMISES, 0),
    }
    text = hitless_markdown(result)
    assert all(f"| {promise} | 0 |" in text for promise in PROMISES.values())


def test_a_report_without_a_compiler_says_so() -> None:
    for write in (markdown, hitless_markdown):
        assert "gcc (package gcc) absent" in write({"absent": "gcc (package gcc)"})


class Done:
    """What a finished process has printed."""

    def __init__(self, stdout: str) -> None:
        self.stdout = stdout
