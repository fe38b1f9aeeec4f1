"""`polywan bundle`: the file that it writes, and the one that it does not replace."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from polywan import files
from polywan.bundle import own, system
from polywan.bundle.part import Part
from polywan.cli import bundle, exit_code, group
from polywan.core.errors import NotPermitted, PolywanError


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "parts", lambda _: (Part("a.txt", "a text", lambda: "token: abcdefg1\n"),))
    monkeypatch.setattr(system, "parts", lambda _: ())


def ran(folder: Path, *words: str) -> Result:
    nowhere = ["--config", str(folder / "none.toml"), "--state-dir", str(folder), "--runtime-dir", str(folder)]
    return CliRunner().invoke(group, ["bundle", *nowhere, *words])


def test_it_says_what_it_wrote_what_is_missing_and_what_was_masked(tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    done = ran(tmp_path, "--out", str(out))
    assert (done.exit_code, done.stdout) == (0, f"{out}\n")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("3 files, ")
    assert rest == [
        "not in it: config: there is no configuration that can be read; check.txt says why",
        "masked: secrets: 1",
        f"look at it before you give it away: tar xzOf {out} | less",
    ]
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["b.tar.gz"]


def test_json_prints_the_same_facts(tmp_path: Path) -> None:
    out = tmp_path / "b.tar.gz"
    facts: dict[str, Any] = json.loads(ran(tmp_path, "--json", "--out", str(out)).stdout)
    assert (facts["path"], facts["bytes"]) == (str(out), out.stat().st_size)
    assert facts["files"] == ["README.txt", "masked.txt", "a.txt"]
    assert (facts["masked"], list(facts["missing"])) == ({"secrets": 1}, ["config"])


def test_the_name_tells_the_time_and_not_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = ran(tmp_path)
    (name,) = os.listdir(tmp_path)
    assert done.stdout == f"{name}\n"
    assert name.startswith("polywan-bundle-2")
    assert os.uname().nodename not in name
    with tarfile.open(tmp_path / name) as tar:
        assert tar.getnames()[0] == "polywan-bundle/README.txt"


@pytest.mark.parametrize("link", [False, True])
def test_a_file_that_is_there_is_not_replaced(tmp_path: Path, link: bool) -> None:
    out = tmp_path / "b.tar.gz"
    out.symlink_to("nowhere") if link else out.write_text("mine")
    done = ran(tmp_path, "--out", str(out))
    assert isinstance(done.exception, PolywanError)
    assert str(done.exception) == f"{out} is there already, and nothing was written: choose another --out"
    assert os.listdir(tmp_path) == ["b.tar.gz"]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied"), 5, "permission denied; choose another --out"),
        (FileExistsError(17, "File exists"), 1, "appeared in the meantime, and nothing was written"),
        (OSError(28, "No space left on device"), 1, "cannot write"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, code: int, said: str
) -> None:
    def refusing(*_: object) -> None:
        raise error

    monkeypatch.setattr(files, "put", refusing)
    done = ran(tmp_path, "--out", str(tmp_path / "b.tar.gz"))
    assert isinstance(done.exception, PolywanError)
    assert isinstance(done.exception, NotPermitted) is (code == 5)
    assert (exit_code(done.exception), said in str(done.exception)) == (code, True)


def test_a_file_is_put_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.put(path, b"one")
    with pytest.raises(FileExistsError):
        files.put(path, b"two")
    with pytest.raises(FileNotFoundError):
        files.put(tmp_path / "none" / "x", b"three")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"one", ["x"])


def test_a_machine_that_is_called_like_a_key_of_the_file_keeps_its_name() -> None:
    assert {"gateway", "uplinks", "default", "weight"} <= bundle._words()


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio, "run", lambda coroutine: interrupted(coroutine.close()))
    assert ran(tmp_path, "--out", str(tmp_path / "b.tar.gz")).exit_code == 1
    assert os.listdir(tmp_path) == []
