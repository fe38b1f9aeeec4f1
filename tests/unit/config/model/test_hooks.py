"""What [hooks] may say."""

from __future__ import annotations

import pytest

from polywan.config import ConfigError, Hooks, load_text

UPLINK = '[uplinks.fibre]\ninterface = "eth1"\n[hooks]\n'


def hooks(text: str) -> Hooks:
    return load_text(UPLINK + text).hooks


def test_a_hook_is_a_path_or_a_program_with_arguments() -> None:
    found = hooks('up = "/etc/polywan/my hook"\ndown = ["mail", "-s", "", "-s"]')
    assert found.command("up") == ("/etc/polywan/my hook",)
    assert found.command("down") == ("mail", "-s", "", "-s")
    assert found.command("address") is None
    assert found.timeout == 30.0


def test_a_file_without_hooks_has_none() -> None:
    found = load_text(UPLINK.replace("[hooks]\n", "")).hooks
    assert [found.command(key) for key in Hooks.model_fields if key != "timeout"] == [None] * 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('all-down = "x"', 'config:4: hooks.all-down: unknown key (did you mean "all_down"?)'),
        ("up = 3", "config:4: hooks.up: expected a program and its arguments, as a list of strings, got 3"),
        ("up = []", "config:4: hooks.up: expected at least one value, got an empty list (remove the key instead)"),
        ('up = "a\\u0000b"', "config:4: hooks.up: expected a program and its arguments"),
        ('up = ["a", ["b"]]', "config:4: hooks.up[1]: expected a program and its arguments"),
        ('timeout = "1h"', 'config:4: hooks.timeout: expected a duration from "1s" to "10m", got "1h"'),
        ('timeout = "0s"', 'config:4: hooks.timeout: expected a duration from "1s" to "10m", got "0s"'),
    ],
)
def test_what_is_wrong_has_its_line_and_key(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        hooks(text)
    assert said in str(refused.value)
