"""Rules that contradict themselves, each other, or the rest of the file."""

from collections.abc import Callable
from pathlib import Path

import pytest

from polywan.config import Config, ConfigError, Problem, load_text, load_with_warnings
from support.engine_world import Engine, world

BOTH = '[uplinks.fibre]\ninterface = "eth1"\n[uplinks.lte]\ninterface = "wwan0"\n'
WEB = '[policies.web]\ntiers = [["fibre"]]\n'


def found(text: str) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    return [(p.key, p.message, p.hint) for p in caught.value.problems]


def keys(text: str) -> list[str]:
    return [key for key, _, _ in found(text)]


def rule(*lines: str) -> str:
    return BOTH + "[[rules]]\n" + "\n".join(lines) + "\n"


@pytest.fixture
def warned(tmp_path: Path) -> Callable[[str], list[Problem]]:
    def load(text: str) -> list[Problem]:
        path = tmp_path / "polywan.toml"
        path.write_text(text, encoding="utf-8")
        return list(load_with_warnings(path).warnings)

    return load


@pytest.mark.parametrize(
    "lines", [['only = "lte"'], ['only = ["lte"]', 'uplink = "lte"'], ['only = "lte"', 'policy = "default"']]
)
def test_only_stands_alone_or_beside_policy_or_uplink(lines: list[str]) -> None:
    assert load_text(rule(*lines)).rules[0].only == ("lte",)


def test_only_beside_an_action_is_refused() -> None:
    ((key, message, _),) = found(rule('only = "lte"', 'action = "block"'))
    assert key == "rules[0].only"
    assert message == 'limits the uplinks of a connection, but action = "block" selects none'


def test_only_does_not_excuse_two_targets() -> None:
    assert keys(rule('only = "lte"', 'uplink = "lte"', 'policy = "default"')) == ["rules[0]"]


def test_a_rule_without_target_is_told_of_only() -> None:
    assert found(rule('to = "192.0.2.1"')) == [
        (
            "rules[0]",
            "expected exactly one of policy, uplink and action, got none",
            "or use only, a list of uplinks, without any of them",
        )
    ]


def test_an_unknown_uplink_in_only_gets_a_suggestion() -> None:
    assert found(rule('only = ["fibre", "let"]')) == [
        ("rules[0].only", 'there is no uplink "let"', 'did you mean "lte"?')
    ]


def test_only_has_to_leave_the_policy_a_member() -> None:
    text = WEB + rule('policy = "web"', 'only = "lte"')
    assert found(text) == [
        (
            "rules[0].only",
            'names no member of policy "web", so every connection would be refused',
            "its members are fibre",
        )
    ]
    assert load_text(WEB + rule('policy = "web"', 'only = ["lte", "fibre"]')).rules


def test_only_has_to_hold_the_uplink_of_the_rule() -> None:
    assert found(rule('uplink = "fibre"', 'only = "lte"')) == [
        ("rules[0].only", 'lacks "fibre", the uplink of the rule', "add it to only, or remove uplink")
    ]


def test_only_is_no_condition() -> None:
    assert keys(rule('uplink = "fibre"', 'not.only = "lte"')) == ["rules[0].not.only"]


@pytest.mark.parametrize("key", ["cgroup", "not.cgroup"])
def test_only_beside_a_control_group_is_refused(key: str) -> None:
    ((where, message, hint),) = found(rule('only = "lte"', f'{key} = "a.slice"'))
    assert where == f"rules[0].{key}"
    assert "is no longer known" in message
    assert hint == "use user instead"


@pytest.mark.parametrize("key", ["cgroup", "not.cgroup"])
def test_a_control_group_before_only_is_refused_and_both_places_are_named(key: str) -> None:
    text = rule('uplink = "lte"', f'{key} = "a.slice"') + '[[rules]]\naction = "block"\nto = "192.0.2.1"\n'
    ((where, message, hint),) = found(text + '[[rules]]\nonly = "lte"\n')
    assert where == f"rules[0].{key}"
    assert message.endswith("the other rule is rule 3 at config:11")
    assert hint == "move it after that rule, or use user instead"


def test_a_control_group_behind_only_is_fine() -> None:
    text = rule('only = "lte"', 'from = "10.0.0.0/8"') + '[[rules]]\nuplink = "lte"\ncgroup = "a.slice"\n'
    assert len(load_text(text).rules) == 2


@pytest.mark.parametrize(
    ("mark", "hint"),
    [
        ('"0x100"', "rules are evaluated before the choice: use another condition"),
        ('"0x110/0xfff"', "rules are evaluated before the choice: use another condition"),
        ('"0x10/0xffff"', 'did you mean "0x10/0xc0ff"?'),
        ('"0/0x100"', "match other bits"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "not."])
def test_bits_of_our_own_mask_cannot_be_asked_for(prefix: str, mark: str, hint: str) -> None:
    settings = "[global]\nmark_mask = 0x3f00\n"
    ((where, _, way_out),) = found(rule('uplink = "lte"', f"{prefix}fwmark = {mark}") + settings)
    assert (where, way_out) == (f"rules[0].{prefix}fwmark", hint)


@pytest.mark.parametrize("mark", ['"0x10"', '"0x10/0xff"', "0x8000", '"0/0xff"', "0"])
def test_bits_of_others_can_be_asked_for(mark: str) -> None:
    assert load_text(rule('uplink = "lte"', f"fwmark = {mark}")).rules[0].fwmark


def test_the_bits_of_others_depend_on_our_mask() -> None:
    text = rule('uplink = "lte"', 'fwmark = "0x100"') + "[global]\nmark_mask = 0xff0000\n"
    assert load_text(text).rules[0].fwmark


@pytest.mark.parametrize("own", ['user = "root"', "group = 0", 'cgroup = "a.slice"'])
@pytest.mark.parametrize("other", ['in_interface = "lan0"', 'mac = "00:1b:44:11:3a:b7"'])
def test_what_only_the_box_has_does_not_go_with_what_it_has_not(own: str, other: str) -> None:
    ((where, message, _),) = found(rule('uplink = "lte"', own, other))
    assert where == f"rules[0].{own.partition(' ')[0]}"
    assert message.endswith("the rule never matches")


def test_a_user_goes_with_devices_that_are_excluded() -> None:
    assert load_text(rule('uplink = "lte"', "user = 0", 'not.in_interface = "lan0"')).rules


def test_a_rule_behind_one_without_conditions_never_matches(warned: Callable[[str], list[Problem]]) -> None:
    text = rule('uplink = "lte"') + '[[rules]]\naction = "block"\nto = "192.0.2.0/24"\n'
    (warning,) = warned(text)
    assert (warning.where.rpartition("/")[2], warning.key) == ("polywan.toml:7", "rules[1]")
    assert warning.message.startswith("never matches: every connection it could match is already taken by rule 1")
    assert warning.message.endswith("polywan.toml:5")


def test_both_places_of_a_warning_are_found_across_files(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "polywan.toml").write_text(rule('uplink = "lte"', 'to = "192.0.2.0/24"'), encoding="utf-8")
    late = '\n[[rules]]\naction = "block"\nto = "192.0.2.7"\n'
    (tmp_path / "conf.d/late.toml").write_text(late, encoding="utf-8")
    (warning,) = load_with_warnings(tmp_path / "polywan.toml").warnings
    assert str(warning).replace(str(tmp_path), "DIR") == (
        "DIR/conf.d/late.toml:2: rule 2: never matches: every connection it could match is already taken by "
        "rule 1 at DIR/polywan.toml:5 (move the narrower rule before the wider one, or remove it)"
    )


def test_a_rule_that_excludes_what_it_asks_for_never_matches(warned: Callable[[str], list[Problem]]) -> None:
    (warning,) = warned(rule('uplink = "lte"', 'to = "192.0.2.0/25"', 'not.to = "192.0.2.0/24"'))
    assert warning.message == 'never matches: "not" excludes everything that the rule matches'


def test_rules_that_can_match_give_no_warning(warned: Callable[[str], list[Problem]]) -> None:
    text = rule('uplink = "lte"', 'to = "192.0.2.0/25"') + '[[rules]]\naction = "block"\nto = "192.0.2.0/24"\n'
    assert not warned(text)


def test_ten_thousand_rules_are_compared_within_reason(warned: Callable[[str], list[Problem]]) -> None:
    rules = "".join(f'[[rules]]\nuplink = "lte"\nto = "10.{i >> 8}.{i & 255}.0/24"\n' for i in range(10_000))
    assert not warned(BOTH + rules)


@pytest.mark.parametrize("name", ["policy", "nat", "fwd", "only", "default", "list", "time", "to", "via", "all", "a-b"])
def test_words_of_nft_and_of_ours_are_names_like_any_other(name: str) -> None:
    text = f'[uplinks.{name}]\ninterface = "eth1"\n[policies.{name}]\ntiers = [["{name}"]]\n'
    config = load_text(text + f'[[rules]]\npolicy = "{name}"\n[[rules]]\nuplink = "{name}"\nto = "192.0.2.1"\n')
    assert config.rules[0].policy == config.rules[1].uplink == name


def generated(uplinks: list[str], policies: list[str]) -> list[int]:
    """Count what is generated for these names: fewer of anything would mean that two names became one."""
    first, second = uplinks
    algorithms: list[dict[str, object]] = [
        {"algorithm": "random", "affinity": {}},
        {"algorithm": "connection", "affinity": {"key": "source-destination"}},
        {"algorithm": "multipath"},
        {"algorithm": "per-packet"},
        {"algorithm": "source-parity"},
    ]
    links = {name: {"interface": f"wan{n}", "nat": "none"} for n, name in enumerate(uplinks, start=1)}
    config = Config.model_validate(
        {
            "uplinks": links,
            "policies": {name: {"tiers": [uplinks], **more} for name, more in zip(policies, algorithms, strict=True)},
            "rules": [
                *({"policy": name, "to": f"192.0.2.{n}"} for n, name in enumerate(policies)),
                {"uplink": first, "from": "10.0.0.1"},
                {"only": [second], "from": "10.0.0.2", "not": {"to": "10.0.0.3"}},
                {"policy": policies[0], "only": [first], "from": "10.0.0.4"},
            ],
        }
    )
    desired = Engine(config, world(2)).state.decision.desired
    assert desired is not None
    return [len(desired.nft.chains), len(desired.nft.sets), len(desired.nft.maps)]


@pytest.mark.parametrize(
    ("uplinks", "policies"),
    [
        (["mark", "only"], ["p", "p_pairs", "p-pairs", "pairs", "mark"]),
        (["via", "policy"], ["uplink", "only", "via", "steering_rules", "default"]),
        (["rule", "to"], ["rule", "x_4", "x", "slots", "nat"]),
    ],
)
def test_no_two_generated_names_are_the_same(uplinks: list[str], policies: list[str]) -> None:
    neutral = ["default" if name == "default" else f"q{n}" for n, name in enumerate(policies)]
    assert generated(uplinks, policies) == generated(["u1", "u2"], neutral)
