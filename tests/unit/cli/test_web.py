"""`polywan web` as a user meets it: what it refuses to do, and tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from polywan.cli import group
from polywan.web.token_files import tokens_of
from polywan.web.tokens import digest_of


def web(*words: str | Path) -> Result:
    return CliRunner().invoke(group, ["web", *map(str, words)])


def test_every_wrong_option_is_told_at_once() -> None:
    found = web("--listen", "x", "--listen", "127.0.0.1:99999", "--host", "a b", "--cert", "web.crt")
    assert found.exit_code == 2
    assert [found.output.count(word) for word in ("--listen: expected", "--host: expected", "belong together")] == [
        2,
        1,
        1,
    ]


def test_beyond_loopback_it_does_not_start_without_tls_and_a_token_and_says_how_to_get_both(tmp_path: Path) -> None:
    found = web("--listen", "192.0.2.1:8410", "--state-dir", tmp_path)
    assert found.exit_code == 2
    assert "openssl req -x509" in found.output
    assert "polywan web token add" in found.output


def test_a_token_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    found = web("token", "add", "phone", "--state-dir", tmp_path)
    assert found.exit_code == 0
    text = found.stdout.strip()
    assert text.startswith("pw_")
    assert len(text) == 46
    assert "may read until it is revoked; it is not shown again" in found.stderr
    assert [one.digest for one in tokens_of(tmp_path)] == [digest_of(text)]
    assert text not in web("token", "list", "--state-dir", tmp_path).output


def test_two_tokens_are_different(tmp_path: Path) -> None:
    assert len({web("token", "add", name, "--state-dir", tmp_path).stdout for name in "abc"}) == 3


def test_a_token_says_its_scope_and_when_it_ends(tmp_path: Path) -> None:
    words = ("token", "add", "laptop", "--scope", "act", "--expires", "90d", "--json", "--state-dir", tmp_path)
    made = json.loads(web(*words).stdout)
    (token,) = tokens_of(tmp_path)
    assert (made["name"], made["scope"], digest_of(made["token"])) == ("laptop", "act", token.digest)
    assert token.expires is not None
    assert round(token.expires - token.created) == 90 * 86400
    (listed,) = json.loads(web("token", "list", "--json", "--state-dir", tmp_path).stdout)["tokens"]
    assert listed == {key: text for key, text in made.items() if key != "token"}


def test_a_revoked_token_is_gone_and_its_name_may_be_used_again(tmp_path: Path) -> None:
    web("token", "add", "phone", "--state-dir", tmp_path)
    again = web("token", "add", "phone", "--state-dir", tmp_path)
    assert (again.exit_code, "there is a token phone already" in again.output) == (2, True)
    unknown = web("token", "revoke", "fone", "--state-dir", tmp_path)
    assert (unknown.exit_code, 'did you mean "phone"?' in unknown.output) == (2, True)
    assert web("token", "revoke", "phone", "--state-dir", tmp_path).exit_code == 0
    assert tokens_of(tmp_path) == ()
    none_left = web("token", "revoke", "phone", "--state-dir", tmp_path)
    assert none_left.stderr.endswith('there is no token "phone"\n')
    assert web("token", "add", "phone", "--state-dir", tmp_path).exit_code == 0


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "ä", "x" * 41, "a\x1b"])
def test_a_name_that_could_be_something_else_is_refused(tmp_path: Path, name: str) -> None:
    found = web("token", "add", "--state-dir", tmp_path, "--", name)
    assert found.exit_code == 2
    assert found.output.replace("\n", "").isprintable()
    assert tokens_of(tmp_path) == ()


@pytest.mark.parametrize("time", ["5x", "0s", "-1d", "40000d"])
def test_a_time_that_makes_no_sense_is_refused(tmp_path: Path, time: str) -> None:
    found = web("token", "add", "phone", "--state-dir", tmp_path, "--expires", time)
    assert (found.exit_code, "--expires: expected a duration" in found.output) == (2, True)


def test_a_list_without_tokens_is_empty(tmp_path: Path) -> None:
    assert json.loads(web("token", "list", "--json", "--state-dir", tmp_path / "none").stdout) == {"tokens": []}
