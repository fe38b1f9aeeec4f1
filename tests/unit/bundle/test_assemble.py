"""A bundle as a value: what goes in, what is said of the rest, and what the file is like."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from polywan.bundle import assemble, own, system
from polywan.bundle.part import Part
from polywan.core.errors import PolywanError
from polywan.core.masking.listing import different, listing
from polywan.core.masking.masking import mask
from polywan.doctor.reading.collect import Places

SECRET = "hunter2hunter2"


def part(name: str) -> Part:
    return Part(name, f"what {name} is", lambda: "")


def assembled(
    found: Mapping[str, str], unread: Mapping[str, str] | None = None, config: str = "x = 1\n"
) -> assemble.Bundle:
    wanted = [part(name) for name in (*found, *(unread or {}))]
    configuration = {"config/files.txt": "config/polywan.toml  /etc/x.toml\n", "config/polywan.toml": config}
    return assemble.assemble(wanted, configuration, found, unread or {}, "box", frozenset())


def test_the_first_files_say_what_is_in_it_what_is_missing_and_what_was_masked() -> None:
    bundle = assembled({"a.txt": f"password = {SECRET}\n"}, {"b.txt": "box says: no, at 84.12.33.7"})
    assert list(bundle.files) == ["README.txt", "masked.txt", "config/files.txt", "config/polywan.toml", "a.txt"]
    assert "a.txt                what a.txt is" in bundle.files["README.txt"]
    assert "  b.txt: this-host says: no, at 240.0.0.7\n" in bundle.files["README.txt"]
    assert bundle.missing == {"b.txt": "this-host says: no, at 240.0.0.7"}
    assert "  a.txt:1 (password)\n" in bundle.files["masked.txt"]
    assert SECRET not in "".join(bundle.files.values())


def test_the_list_counts_each_kind_and_names_places_and_no_value() -> None:
    text = (
        f"token: {SECRET}\n84.12.33.7 84.12.33.7 84.12.33.8\n2a00::1\n00:11:22:33:44:55 joe@example.com /home/joe box\n"
    )
    masked = mask({"a.txt": text, "b.txt": SECRET}, "box")
    assert different(masked) == {
        "secrets": 1,
        "IPv4 addresses": 2,
        "IPv6 addresses": 1,
        "hardware addresses": 1,
        "host names": 1,
        "mail addresses": 1,
        "home directories": 1,
    }
    said = listing(masked)
    assert "  a.txt:1 (token)\n" in said
    assert "  a.txt: 3 times\n" in said
    assert not any(value in said for value in (SECRET, "84.12", "2a00", "33:44", "joe", "box"))


def test_without_a_configuration_that_is_said() -> None:
    bundle = assemble.assemble([], {}, {}, {}, "", frozenset())
    assert bundle.missing == {"config": "there is no configuration that can be read; check.txt says why"}
    assert list(bundle.files) == ["README.txt", "masked.txt"]


def test_what_orders_a_terminal_about_is_escaped_and_json_stays_json() -> None:
    bundle = assembled({"a.txt": "x\x1b[2Jy\u202e\tz", "b.json": '{"a": "\x1b[2J"}', "c.txt": "one\r\ntwo\r\n"})
    assert bundle.files["a.txt"] == "x\\x1b[2Jy\\x202e\tz"
    assert json.loads(bundle.files["b.json"]) == {"a": "\x1b[2J"}
    assert bundle.files["c.txt"] == "one\ntwo\n"


def test_a_part_without_end_is_cut() -> None:
    text = assembled({"a.txt": "x" * (assemble.MOST_CHARACTERS + 7)}).files["a.txt"]
    assert text[assemble.MOST_CHARACTERS :] == "\n[7 more characters were left out]\n"


@pytest.mark.parametrize("host", ["default", "eth0"])
def test_a_host_that_is_called_like_a_word_of_the_file_keeps_its_name(host: str) -> None:
    text = f"{host} = 1\n"
    kept = mask({"a": text}, host, frozenset({"default"})).texts["a"]
    assert (kept == text) is (host == "default")


def test_the_archive_has_one_folder_and_says_nothing_of_whoever_made_it() -> None:
    files = {"README.txt": "x", "kernel/a.json": "[]"}
    packed = assemble.archive(files, 1_800_000_000.5)
    assert packed == assemble.archive(files, 1_800_000_000.5)
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == ["polywan-bundle/README.txt", "polywan-bundle/kernel/a.json"]
    assert {(m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {
        (0o600, 0, 0, "", "", 1_800_000_000)
    }


def test_large_sets_are_cut_and_small_ones_are_not() -> None:
    ruleset = "set a {\n\telements = { 1,\n\t\t2, 3 }\n}\nset b {\n\telements = { 1, 2 }\n}\n"
    assert system.shortened(ruleset, 2) == ruleset.replace("{ 1,\n\t\t2, 3 }", "{ 1,\n\t\t2 } # and 1 more")


def test_files_of_the_configuration_get_fixed_names_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "polywan.toml").write_text("a = 1\n")
    (tmp_path / "conf.d/a%2f..-b.toml").write_text("b = 1\n")
    (tmp_path / "conf.d/b.toml").write_text("c = 1\n")
    found = own.configuration(tmp_path / "polywan.toml")
    assert list(found) == [
        "config/files.txt",
        "config/polywan.toml",
        "config/conf.d/001.toml",
        "config/conf.d/002.toml",
    ]
    assert found["config/files.txt"].splitlines()[1] == f"config/conf.d/001.toml  {tmp_path}/conf.d/a%2f..-b.toml"


def test_a_bad_configuration_is_in_it_with_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "polywan.toml"
    file.write_text("[uplinks.a]\ninterface = 1\nweight = 0\n")
    assert own.configuration(file)["config/polywan.toml"] == file.read_text()
    assert [line.partition(": ")[0] for line in own.check(file).splitlines()] == [f"{file}:2", f"{file}:3"]
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/x.toml").write_bytes(b"\xff")
    assert list(own.configuration(file)) == ["config/files.txt", "config/polywan.toml"]
    assert "x.toml:1: file: is not UTF-8 text" in own.check(file)


def test_a_configuration_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert own.configuration(tmp_path / "polywan.toml") == {}
    assert "cannot be read: no such file or directory" in own.check(tmp_path / "polywan.toml")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(config=tmp_path / "polywan.toml", state_dir=tmp_path, runtime_dir=tmp_path, root=tmp_path)


def refusing(text: str) -> Callable[[], str]:
    def read() -> str:
        raise PolywanError(text)

    return read


def test_what_fails_or_takes_too_long_hides_nothing_else(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import threading

    hanging = threading.Event()
    wanted = (
        Part("good.txt", "good", lambda: "good\n"),
        Part("slow.txt", "slow", lambda: str(hanging.wait(30.0)), 0.05),
        Part("bad.txt", "bad", refusing("no such program")),
    )
    monkeypatch.setattr(own, "parts", lambda _: wanted)
    monkeypatch.setattr(system, "parts", lambda _: ())
    seen: list[tuple[int, int]] = []
    try:
        bundle = asyncio.run(assemble.gather(places, "", frozenset(), lambda *done: seen.append(done)))
    finally:
        hanging.set()
    assert bundle.files["good.txt"] == "good\n"
    assert bundle.missing["slow.txt"] == "it did not come within 0 s"
    assert bundle.missing["bad.txt"] == "no such program"
    assert seen[-1] == (4, 4)
