import pytest

from polywan.config import ConfigError, load_text

DSL = '[uplinks.dsl]\ninterface = "ppp0"\n'
BANDWIDTH = 'bandwidth = {down = "50Mbit", up = "10Mbit"}\n'


def found(text: str) -> list[tuple[int, str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_text(text)
    return [(int(p.where.rpartition(":")[2]), p.key, p.message, p.hint) for p in caught.value.problems]


def test_an_empty_table_shapes_with_the_defaults() -> None:
    shaping = load_text(DSL + BANDWIDTH + "shaping = {}\n").uplinks["dsl"].shaping
    assert shaping is not None
    assert (shaping.algorithm, shaping.share, shaping.link) == ("cake", 0.95, None)


@pytest.mark.parametrize(("value", "hint"), [("true", "write shaping = {} for the defaults"), ('"cake"', "")])
def test_shaping_that_is_no_table_is_refused_with_what_would_be_right(value: str, hint: str) -> None:
    ((line, key, message, shown_hint),) = found(DSL + BANDWIDTH + f"shaping = {value}\n")
    assert (line, key, message, shown_hint) == (4, "uplinks.dsl.shaping", f"expected a table, got {value}", hint)


def test_shaping_without_a_bandwidth_is_refused_where_it_is_asked_for() -> None:
    assert found(DSL + "shaping = {}\n") == [
        (
            3,
            "uplinks.dsl.shaping",
            "needs the uplink's bandwidth, which is absent",
            'add bandwidth = {down = "…", up = "…"} with what the line carries',
        )
    ]


@pytest.mark.parametrize("text", ["0", '"0"', '"0Mbit"', "{down = 0, up = 1000000}", '{down = "5Mbit", up = "0bit"}'])
def test_a_bandwidth_of_zero_is_refused_with_what_would_be_right(text: str) -> None:
    ((line, key, message, _),) = found(DSL + f"bandwidth = {text}\nshaping = {{}}\n")
    assert line == 3
    assert key.startswith("uplinks.dsl.bandwidth")
    assert message.startswith('expected a bandwidth such as "500Mbit" ("1kbit" to "1Tbit"), got ')


@pytest.mark.parametrize("share", ["0", '"0%"', '"49%"', '"101%"', "2", "true", '"much"'])
def test_a_share_that_makes_no_sense_is_refused(share: str) -> None:
    ((line, key, message, _),) = found(DSL + BANDWIDTH + f"[uplinks.dsl.shaping]\nshare = {share}\n")
    assert (line, key) == (5, "uplinks.dsl.shaping.share")
    assert message.startswith('expected a share from "50%" to "100%", got ')


@pytest.mark.parametrize(("share", "part"), [('"50%"', 0.5), ('"87.5%"', 0.875), ("1", 1.0), ("0.9", 0.9)])
def test_a_share_is_a_percentage_or_a_number(share: str, part: float) -> None:
    shaping = load_text(DSL + BANDWIDTH + f"shaping = {{share = {share}}}\n").uplinks["dsl"].shaping
    assert shaping is not None
    assert shaping.share == part


def test_an_unknown_algorithm_is_refused_with_the_likely_one() -> None:
    ((_, key, message, hint),) = found(DSL + BANDWIDTH + 'shaping = {algorithm = "fq_codle"}\n')
    assert key == "uplinks.dsl.shaping.algorithm"
    assert message == 'expected "cake", "fq_codel" or "prio", got "fq_codle"'
    assert "fq_codel" in hint


@pytest.mark.parametrize("algorithm", ["fq_codel", "prio"])
def test_what_the_line_adds_needs_the_algorithm_that_counts_it(algorithm: str) -> None:
    ((_, key, message, _),) = found(DSL + BANDWIDTH + f'shaping = {{algorithm = "{algorithm}", link = "docsis"}}\n')
    assert key == "uplinks.dsl.shaping.link"
    assert message == f'has no effect with algorithm "{algorithm}": only "cake" counts what the line adds'


def test_a_device_that_shaping_makes_is_no_uplink() -> None:
    ((line, key, message, _),) = found('[uplinks.dsl]\ninterface = "pw-ifb1"\n')
    assert (line, key) == (2, "uplinks.dsl.interface")
    assert message == '"pw-ifb1" cannot be an uplink: polywan gives such names to devices that it makes itself'


def test_a_device_that_several_uplinks_share_cannot_be_shaped() -> None:
    other = DSL.replace("dsl", "lte")
    problems = found(DSL + BANDWIDTH + "shaping = {}\n" + other)
    assert [(key, message) for _, key, message, _ in problems if key == "uplinks.dsl.shaping"] == [
        (
            "uplinks.dsl.shaping",
            'cannot be used: uplink "lte" has the same device "ppp0", and a device has one queue for all its packets',
        )
    ]
