import pytest

from polywan.config import ConfigError, Member, Policy, SteeringRule, load_text
from polywan.config.loading.check_parts import RESERVED
from polywan.config.model.numbering import DIRECT, ONLY
from polywan.core.resolved import resolve

FIBRE = '[uplinks.fibre]\ninterface = "eth1"\n'
LTE = '[uplinks.lte]\ninterface = "wwan0"\n'
BOTH = FIBRE + LTE


def found(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    return [(p.key, p.message, p.hint) for p in caught.value.problems]


def names(policy: Policy) -> list[list[str]]:
    return [[member.uplink for member in tier] for tier in policy.tiers]


def test_weights_and_bandwidths_are_not_compared() -> None:
    assert [f[0] for f in found(FIBRE + "weight = 3\n" + LTE + 'bandwidth = "50Mbit"\n')] == ["uplinks.lte.bandwidth"]


def test_an_uplink_with_both_uses_its_weight() -> None:
    config = load_text(FIBRE + 'weight = 3\nbandwidth = "500Mbit"\n' + LTE + 'weight = 1\nbandwidth = "50Mbit"\n')
    assert [config.weight_of(u) for u in config.uplinks] == [3, 1]


@pytest.mark.parametrize(
    ("line", "weight"),
    [
        ("", 1),
        ("weight = 7", 7),
        ('bandwidth = "500Mbit"', 500),
        ('bandwidth = {down = "1.5Gbit", up = "20Mbit"}', 1500),
        ('bandwidth = "64kbit"', 1),
    ],
)
def test_the_weight_is_what_is_written_else_megabits_else_one(line: str, weight: int) -> None:
    assert load_text(FIBRE + line).weight_of("fibre") == weight


def test_a_members_own_weight_beats_that_of_its_uplink() -> None:
    resolved = resolve(load_text(FIBRE + "weight = 3\n"), {})
    assert resolved.weight_of(Member(uplink="fibre")) == 3
    assert resolved.weight_of(Member(uplink="fibre", weight=9)) == 9


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('gateway6 = "fe80::1"', "gateway6"),
        ('source = "2001:db8::1"', "source"),
        ('nat = {snat = "2001:db8::1"}', "nat"),
    ],
)
def test_an_address_of_a_family_that_is_left_out_is_refused(line: str, key: str) -> None:
    assert [f[0] for f in found(FIBRE + 'families = "ipv4"\n' + line)] == [f"uplinks.fibre.{key}"]


def test_a_quorum_above_the_number_of_targets_is_refused() -> None:
    assert found('[health]\nquorum = 3\ntargets = ["192.0.2.1", "192.0.2.2"]\n' + FIBRE) == [
        (
            "health.quorum",
            "3 answers are required, but there are only 2 IPv4 targets",
            "lower quorum to 2, or add targets",
        )
    ]


def test_an_uplinks_own_targets_are_counted_against_the_general_quorum() -> None:
    text = "[health]\nquorum = 3\n" + FIBRE + 'health.targets = ["192.0.2.1", "192.0.2.2"]\n'
    assert [f[0] for f in found(text)] == ["uplinks.fibre.health.quorum"]


def test_what_is_degraded_has_to_be_able_to_recover() -> None:
    assert found('[health]\nrecovered_rtt = "600ms"\n' + FIBRE) == [
        (
            "health.recovered_rtt",
            "must be below degraded_rtt, which is 500ms; otherwise the state would flap",
            'set both, for example degraded_rtt = "500ms" and recovered_rtt = "250ms"',
        )
    ]


def test_a_limit_below_the_default_of_its_counterpart_asks_for_both() -> None:
    (key, message, hint), *rest = found(FIBRE + 'health.degraded_loss = "8%"\n')
    assert key == "uplinks.fibre.health.degraded_loss"
    assert "above recovered_loss, which is 10%" in message
    assert hint == 'set both, for example degraded_loss = "8%" and recovered_loss = "4%"'
    assert not rest


def test_a_single_target_is_its_own_quorum() -> None:
    health = load_text('[health]\ntargets = "192.0.2.1"\n' + FIBRE).health
    assert [health.quorum_for(n) for n in (0, 1, 2, 3)] == [0, 1, 2, 2]


def test_overrides_of_an_uplink_are_merged_key_by_key() -> None:
    config = load_text('[health]\ninterval = "2s"\nfall = 4\n' + FIBRE + "[uplinks.fibre.health]\nfall = 6\n" + LTE)
    fibre, lte = config.health_of("fibre"), config.health_of("lte")
    assert (fibre.interval, fibre.fall, fibre.rise) == (2.0, 6, 5)
    assert lte == config.health


def test_an_uplink_may_have_none_of_the_general_checks() -> None:
    config = load_text('[health]\nchecks = "dns"\n' + FIBRE + "[uplinks.fibre.health]\nchecks = []\n" + LTE)
    assert config.health_of("fibre").checks == ()
    assert config.health_of("lte").checks == ("dns",)


def test_an_unknown_uplink_in_a_policy_gets_a_suggestion() -> None:
    assert found(BOTH + '[policies.web]\ntiers = [["fibre"], ["let"]]\n') == [
        ("policies.web.tiers[1][0]", 'there is no uplink "let"', 'did you mean "lte"?')
    ]


def test_an_uplink_that_is_in_a_policy_twice_is_refused() -> None:
    assert [f[0] for f in found(BOTH + '[policies.web]\ntiers = [["fibre"], ["fibre"]]\n')] == [
        "policies.web.tiers[1][0]"
    ]


@pytest.mark.parametrize("tiers", ['"fibre"', '["fibre", "lte"]', "[]", "[[]]", "[[5]]", "[5]", "[[{weight = 3}]]"])
def test_tiers_are_lists_of_lists_of_uplinks(tiers: str) -> None:
    assert found(BOTH + f"[policies.web]\ntiers = {tiers}\n")[0][0].startswith("policies.web.tiers")


def test_members_are_names_or_tables() -> None:
    config = load_text(BOTH + '[policies.web]\ntiers = [["fibre", {uplink = "lte", weight = 3}]]\n')
    assert config.policies["web"].tiers == ((Member(uplink="fibre"), Member(uplink="lte", weight=3)),)


def test_a_fault_in_one_key_of_a_policy_does_not_hide_an_unknown_uplink() -> None:
    keys = [f[0] for f in found(BOTH + '[policies.web]\nlast_resort = "x"\ntiers = [["fiber"]]\n')]
    assert keys == ["policies.web.last_resort", "policies.web.tiers[0][0]"]


def test_a_reference_to_a_faulty_uplink_is_no_second_problem() -> None:
    text = '[uplinks.fibre]\nintreface = "eth1"\n[[rules]]\nuplink = "fibre"\n'
    assert [f[0] for f in found(text)] == ["uplinks.fibre.interface", "uplinks.fibre.intreface"]


@pytest.mark.parametrize("lines", ["", 'policy = "default"\naction = "block"', 'uplink = "lte"\npolicy = "default"'])
def test_a_rule_says_exactly_one_of_policy_uplink_and_action(lines: str) -> None:
    (key, message, _), *rest = found(BOTH + f"[[rules]]\n{lines}\n")
    assert key == "rules[0]"
    assert message.startswith("expected exactly one of policy, uplink and action, got ")
    assert not rest


def test_an_unknown_policy_gets_a_suggestion() -> None:
    assert found(BOTH + '[[rules]]\npolicy = "defualt"\n') == [
        ("rules[0].policy", 'there is no policy "defualt"', 'did you mean "default"?')
    ]


def test_a_rule_may_name_the_policy_that_is_not_written() -> None:
    assert load_text(BOTH + '[[rules]]\npolicy = "default"\n').rules[0].policy == "default"


@pytest.mark.parametrize(
    "condition", ["port = 443", "source_port = 443", "not = {port = 443}", 'protocol = "icmp"\nport = 443']
)
def test_ports_need_a_protocol_that_has_them(condition: str) -> None:
    keys = [f[0] for f in found(BOTH + f'[[rules]]\nuplink = "lte"\n{condition}\n')]
    assert len(keys) == 1
    assert keys[0].endswith("port")


@pytest.mark.parametrize("protocol", ["tcp", "udp", "sctp"])
def test_ports_go_with_the_protocols_that_have_them(protocol: str) -> None:
    rule = load_text(
        BOTH + f'[[rules]]\nuplink = "lte"\nprotocol = "{protocol}"\nport = "80,443"\nnot.port = 80\n'
    ).rules[0]
    assert (rule.port, rule.not_.port) == (((80, 80), (443, 443)), ((80, 80),))


def test_a_family_that_contradicts_the_addresses_is_refused() -> None:
    text = BOTH + '[[rules]]\nuplink = "lte"\nfamily = "ipv4"\nfrom = "10.0.0.0/8"\nto = "2001:db8::/32"\n'
    assert [f[0] for f in found(text)] == ["rules[0].to"]


def test_addresses_that_share_no_family_are_refused() -> None:
    text = BOTH + '[[rules]]\nuplink = "lte"\nfrom = "10.0.0.0/8"\nto = "2001:db8::/32"\n'
    assert [f[0] for f in found(text)] == ["rules[0].to"]


def test_addresses_of_both_families_may_stand_in_one_rule() -> None:
    text = BOTH + '[[rules]]\nuplink = "lte"\nfrom = ["10.0.0.0/8", "fd00::/8"]\nto = "2001:db8::/32"\n'
    assert len(load_text(text).rules[0].from_) == 2


def test_prefixes_within_other_prefixes_are_dropped() -> None:
    text = BOTH + '[[rules]]\nuplink = "lte"\nto = ["10.1.0.0/16", "192.0.2.1", "10.0.0.0/8", "192.0.2.1", "a::"]\n'
    assert [str(n) for n in load_text(text).rules[0].to] == ["192.0.2.1/32", "10.0.0.0/8", "a::/128"]


def test_more_uplinks_than_marks_propose_a_wider_mask() -> None:
    text = "".join(f'[uplinks.w{i}]\ninterface = "w{i}"\n' for i in range(7)) + "[global]\nmark_mask = 0x700\n"
    assert found(text) == [
        (
            "global.mark_mask",
            "0x700 has room for 6 uplinks, but there are 7",
            "mark_mask = 0x780 has room for 14, if no other program uses the added bits",
        )
    ]


def test_as_many_uplinks_as_marks_are_accepted() -> None:
    text = "".join(f'[uplinks.w{i}]\ninterface = "w{i}"\n' for i in range(6)) + "[global]\nmark_mask = 0x700\n"
    assert len(load_text(text).uplinks) == 6


def test_tables_keep_clear_of_those_of_the_system() -> None:
    assert [f[0] for f in found(FIBRE + "[global]\ntable_base = 200\n")] == ["global.table_base"]
    assert load_text(FIBRE + "[global]\ntable_base = 100\n").global_.table_base == 100


def test_the_band_of_rules_stays_ahead_of_the_main_table() -> None:
    assert load_text(FIBRE + "[global]\npriority = 31866\n").global_.priority + 899 < 32766
    assert [f[0] for f in found(FIBRE + "[global]\npriority = 31867\n")] == ["global.priority"]


def test_the_default_policy_puts_metered_uplinks_behind() -> None:
    config = load_text(LTE + "metered = true\n" + FIBRE + '[uplinks.dsl]\ninterface = "ppp0"\nenabled = false\n')
    assert names(config.resolved_policies()["default"]) == [["fibre", "dsl"], ["lte"]]


def test_the_default_policy_has_no_empty_tier() -> None:
    assert names(load_text(LTE + "metered = true\n").resolved_policies()["default"]) == [["lte"]]


def test_a_written_default_policy_is_kept() -> None:
    config = load_text(BOTH + '[policies.web]\ntiers = [["lte"]]\n[policies.default]\ntiers = [["lte"], ["fibre"]]\n')
    assert {name: names(p) for name, p in config.resolved_policies().items()} == {
        "default": [["lte"], ["fibre"]],
        "web": [["lte"]],
    }


def test_a_direct_policy_prefers_its_uplink_and_falls_back_to_the_default() -> None:
    config = load_text(FIBRE + LTE + "metered = true\n" + '[uplinks.dsl]\ninterface = "ppp0"\n')
    assert names(config.policy_for(SteeringRule(uplink="lte"))) == [["lte"], ["fibre", "dsl"]]
    assert names(config.policy_for(SteeringRule(uplink="fibre"))) == [["fibre"], ["dsl"], ["lte"]]


TUNNELS = "".join(f'[uplinks.{n}]\ninterface = "{n}"\nnat = "none"\n' for n in ("gre1", "gre2"))


def policy(*lines: str, tiers: str = '[["fibre", "lte"]]') -> str:
    return "[policies.web]\n" + f"tiers = {tiers}\n" + "\n".join(lines) + "\n"


@pytest.mark.parametrize("algorithm", ["weighted", "random", "connection"])
@pytest.mark.parametrize("key", ["source", "source-destination"])
def test_affinity_goes_with_algorithms_that_choose_for_each_connection(algorithm: str, key: str) -> None:
    text = BOTH + policy(f'algorithm = "{algorithm}"', f'affinity.key = "{key}"')
    assert load_text(text).policies["web"].affinity


@pytest.mark.parametrize("algorithm", ["source", "source-destination", "source-parity", "multipath", "per-packet"])
@pytest.mark.parametrize("key", ["source", "source-destination"])
def test_affinity_is_refused_where_it_would_change_nothing(algorithm: str, key: str) -> None:
    text = TUNNELS + policy(f'algorithm = "{algorithm}"', f'affinity.key = "{key}"', tiers='[["gre1", "gre2"]]')
    ((where, message, hint),) = found(text)
    assert where == "policies.web.affinity"
    assert message.startswith(f'cannot be combined with algorithm "{algorithm}": ')
    assert hint == 'remove affinity, or use algorithm = "weighted" with it'


def test_even_and_odd_need_two_uplinks_in_each_tier() -> None:
    tiers = '[["fibre", "lte"], ["dsl"]]'
    dsl = '[uplinks.dsl]\ninterface = "ppp0"\n'
    ((where, message, _),) = found(BOTH + dsl + policy('algorithm = "source-parity"', tiers=tiers))
    assert where == "policies.web.tiers[1]"
    assert message.endswith("it needs two uplinks here, not 1")
    assert load_text(BOTH + policy('algorithm = "source-parity"')).policies["web"].tiers


def test_single_packets_are_dealt_out_over_tunnels() -> None:
    text = TUNNELS + policy('algorithm = "per-packet"', tiers='[["gre1", "gre2"]]')
    assert load_text(text).policies["web"].algorithm == "per-packet"


def test_single_packets_are_not_dealt_out_over_uplinks_that_translate() -> None:
    text = BOTH + TUNNELS + policy('algorithm = "per-packet"', tiers='[["fibre", "gre1"], ["lte"]]')
    ((where, message, hint),) = found(text)
    assert where == "policies.web.algorithm"
    assert "translated on fibre, lte: servers and firewalls" in message
    assert hint.startswith('use algorithm = "weighted"; or, ')
    assert hint.endswith('add nat = "none"')


def test_single_packets_of_ipv6_need_native_addresses_only() -> None:
    links = "".join(f'[uplinks.{n}]\ninterface = "{n}"\nfamilies = "ipv6"\n' for n in ("a", "b"))
    text = policy('algorithm = "per-packet"', tiers='[["a", "b"]]')
    assert found(links + text)[0][2].endswith('add nat6 = "native"')
    assert load_text(links.replace('"ipv6"', '"ipv6"\nnat6 = "native"') + text).policies["web"].tiers


def test_a_fault_in_the_translation_of_a_member_is_one_problem() -> None:
    text = TUNNELS.replace('"none"', '"nothing"', 1) + policy('algorithm = "per-packet"', tiers='[["gre1", "gre2"]]')
    assert [f[0] for f in found(text)] == ["uplinks.gre1.nat"]


@pytest.mark.parametrize("prefix", ["10.0.0.0/8", "192.0.2.1"])
def test_a_prefix_of_ipv6_is_not_one_of_ipv4(prefix: str) -> None:
    ((where, message, _),) = found(FIBRE + f'prefix6 = "{prefix}"\n')
    assert (where, message.startswith("expected an IPv6 prefix such as ")) == ("uplinks.fibre.prefix6", True)


def test_prefixes_of_ipv6_need_the_family() -> None:
    assert [f[0] for f in found(FIBRE + 'families = "ipv4"\nprefix6 = "2001:db8:a::/56"\n')] == [
        "uplinks.fibre.prefix6"
    ]


def test_prefixes_may_be_exchanged_before_they_are_known() -> None:
    assert load_text(FIBRE + 'nat6 = "prefix"\n').uplinks["fibre"].nat6 == "prefix"


@pytest.mark.parametrize("nat", ['"none"', '{snat = "192.0.2.1"}'])
@pytest.mark.parametrize("nat6", ["prefix", "masquerade"])
def test_a_translation_of_ipv6_that_would_not_happen_is_refused(nat: str, nat6: str) -> None:
    ((where, message, _),) = found(FIBRE + f'nat = {nat}\nnat6 = "{nat6}"\n')
    assert (where, "has no effect" in message) == ("uplinks.fibre.nat6", True)


@pytest.mark.parametrize("beginning", [DIRECT, ONLY])
def test_names_of_policies_that_are_made_for_rules_are_reserved(beginning: str) -> None:
    assert beginning in RESERVED
    assert [f[0] for f in found(BOTH + policy().replace("web", f"{beginning}x"))] == [f"policies.{beginning}x"]


def many(count: int, mask: str = "") -> str:
    return "".join(f'[uplinks.w{i}]\ninterface = "w{i}"\n' for i in range(count)) + mask


def test_policies_with_a_mark_of_their_own_need_room_beside_the_uplinks() -> None:
    policy = '[policies.m]\nalgorithm = "multipath"\ntiers = [["w0", "w1"]]\n'
    assert len(load_text(many(61) + policy).uplinks) == 61
    assert found(many(62) + policy) == [
        (
            "policies.m",
            "0x3f000000 has room for 62 marks, but 62 uplinks and 1 multipath or per-packet policy (m) need 63",
            "mark_mask = 0x3f800000 has room for 126, if no other program uses the added bits",
        )
    ]


def test_one_of_many_is_no_plural() -> None:
    policies = "".join(f'[policies.{name}]\nalgorithm = "multipath"\ntiers = [["w0"]]\n' for name in "abcdef")
    (fault,) = found(many(1, "[global]\nmark_mask = 0x700\n") + policies)
    assert fault[1] == (
        "0x700 has room for 6 marks, but 1 uplink and 6 multipath or per-packet policies (a, b, c, …) need 7"
    )


def test_a_rule_that_makes_a_policy_of_a_marked_one_needs_room_too() -> None:
    policy = '[policies.m]\nalgorithm = "multipath"\ntiers = [["w0", "w1"]]\n'
    rule = '[[rules]]\npolicy = "m"\nonly = ["w1"]\n'
    assert [f[0] for f in found(many(61) + policy + rule)] == ["rules[0]"]


def test_no_mask_makes_room_for_more_than_254() -> None:
    wide = "[global]\nmark_mask = 0x3fff00\n"
    assert len(load_text(many(254, wide)).uplinks) == 254
    assert found(many(255, wide)) == [
        (
            "global.mark_mask",
            "polywan has room for 254 uplinks, but there are 255",
            "254 is the maximum, whatever the mask",
        )
    ]
