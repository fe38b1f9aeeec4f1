"""Tokens on disk: who writes what, what is believed of it, and that nobody is led elsewhere."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polywan.core.errors import BusyError, NewerError, PolywanError
from polywan.web import token_files
from polywan.web.token_files import TOKENS_FILE, USES_FILE, TokenFile, changing, tokens_of, uses_of
from polywan.web.tokens import Token, digest_of, shown_as, tokens_restored, tokens_stored
from support.state_files import FOLDER, TOKENS

ONE = Token(name="phone", digest=digest_of("pw_phone"), scope="read", created=1.5, expires=None)
OTHER = Token(name="laptop", digest=digest_of("pw_laptop"), scope="act", created=2.0, expires=100.0)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", fullmatch=True)
MOMENTS = st.floats(0, 1e11)
ANY_TOKEN = st.builds(
    Token,
    name=NAMES,
    digest=st.binary(min_size=32, max_size=32).map(bytes.hex),
    scope=st.sampled_from(["read", "act"]),
    created=MOMENTS,
    expires=st.none() | MOMENTS,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["tokens", "version", "name", "scope"]), inner),
)


@given(st.lists(ANY_TOKEN, max_size=5, unique_by=lambda token: token.name))
def test_what_is_stored_is_restored_as_the_same(tokens: list[Token]) -> None:
    assert tokens_restored(json.loads(json.dumps(tokens_stored(tokens)))) == tuple(tokens)


@given(JSON)
def test_no_json_makes_a_reader_fail_in_another_way(found: object) -> None:
    if isinstance(found, dict):
        with suppress(ValueError):
            tokens_restored(found)


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("pw_phone", 1e9, ONE),
        ("pw_laptop", 99.0, OTHER),
        ("pw_laptop", 100.0, None),
        ("pw_phon", 0.0, None),
        (ONE.digest, 0.0, None),
        ("", 0.0, None),
        ("\udcff", 0.0, None),
    ],
)
def test_a_token_is_known_by_its_whole_text_until_it_expires(text: str, now: float, expected: Token | None) -> None:
    assert shown_as(text, (ONE, OTHER), now) == expected


def test_the_text_of_a_token_is_in_no_file(tmp_path: Path) -> None:
    with changing(tmp_path / "web", None) as tokens:
        tokens.append(ONE)
    assert "pw_phone" not in (tmp_path / "web" / TOKENS_FILE).read_text()
    assert (tmp_path / "web" / TOKENS_FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "web").stat().st_mode & 0o777 == 0o700


def test_an_error_in_the_middle_leaves_the_old_tokens(tmp_path: Path) -> None:
    with changing(tmp_path, None) as tokens:
        tokens.append(ONE)
    with suppress(LookupError), changing(tmp_path, None) as tokens:
        tokens.clear()
        raise LookupError
    assert tokens_of(tmp_path) == (ONE,)


def test_two_commands_do_not_overwrite_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_files, "_LOCK_TIMEOUT", 0.1)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(BusyError, match="another program is changing the tokens"), changing(tmp_path, None):
        pass
    os.close(held)


def test_a_file_of_a_newer_polywan_is_refused_and_stays(tmp_path: Path) -> None:
    content = json.dumps({"version": 99, "tokens": []})
    (tmp_path / TOKENS_FILE).write_text(content)
    with pytest.raises(NewerError, match="written by a newer polywan"), changing(tmp_path, None):
        pass
    assert (tmp_path / TOKENS_FILE).read_text() == content


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"version": 1, "tokens": [{}]}', "[" * 200_000, '{"version": 1, "tokens": 5}']
)
def test_a_file_that_makes_no_sense_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / TOKENS_FILE).write_text(content)
    with pytest.raises(PolywanError, match="move it away, and make new tokens"):
        tokens_of(tmp_path)


def test_neither_file_leads_to_another_one(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text(json.dumps(tokens_stored([ONE])))
    directory = tmp_path / "web"
    directory.mkdir()
    for name in (TOKENS_FILE, USES_FILE):
        (directory / name).symlink_to(precious)
    with pytest.raises(PolywanError, match="symbolic link"):
        tokens_of(directory)
    assert uses_of(directory) == {}


@pytest.mark.parametrize("content", ["", "[]", '{"a": "b", "c": -1, "d": true}', "[" * 200_000])
def test_what_is_not_known_of_the_use_of_tokens_is_left_out(tmp_path: Path, content: str) -> None:
    (tmp_path / USES_FILE).write_text(content)
    assert uses_of(tmp_path) == {}


@pytest.mark.parametrize("release", [path.name for path in FOLDER.iterdir() if (path / TOKENS_FILE).exists()])
def test_the_tokens_of_every_release_are_good(release: str, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(FOLDER / release, tmp_path / "web"))
    assert tokens_of(directory) == TOKENS


def test_when_tokens_were_used_last_outlives_the_server(tmp_path: Path) -> None:
    with changing(tmp_path, None) as tokens:
        tokens += [ONE, OTHER]
    assert TokenFile(tmp_path).shown("pw_laptop", 90.0) == OTHER
    assert TokenFile(tmp_path).shown("pw_phone", 95.0) == ONE
    assert uses_of(tmp_path) == {OTHER.digest: 90.0, ONE.digest: 95.0}


def test_a_use_that_a_wrong_clock_recorded_does_not_stay_for_ever(tmp_path: Path) -> None:
    with changing(tmp_path, None) as tokens:
        tokens.append(ONE)
    tokens_seen = TokenFile(tmp_path)
    for now in (1e9, 95.0):
        tokens_seen.shown("pw_phone", now)
    assert uses_of(tmp_path) == {ONE.digest: 95.0}
