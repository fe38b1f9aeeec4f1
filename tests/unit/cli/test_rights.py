"""An ordinary user: every verb says in one sentence what is not allowed and what to do, and ends with 5."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from polywan.api import calls
from polywan.api.requests import Nothing
from polywan.cli import exit_code, group, options
from polywan.client import Client
from polywan.config import load
from polywan.core.errors import ControlError, NotPermitted, UnreadableError
from polywan.daemon.rundir import locked

GOOD = '[uplinks.a]\ninterface = "wan1"\n'


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Refuse one path to everybody, root included, as the kernel does to ordinary users."""
    forbidden: list[Path] = []

    def refusing(self: Path, real: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if any(self == path or path in self.parents for path in forbidden):
            raise PermissionError(13, os.strerror(13), str(self))
        return real(self, *args, **more)

    for name in ("open", "mkdir", "iterdir"):
        real = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda self, *a, real=real, **m: refusing(self, real, *a, **m))
    opened = os.open
    monkeypatch.setattr(os, "open", lambda path, *a, **m: refusing(Path(path), opened, *a, **m))
    return forbidden.append


def failure(*argv: str) -> tuple[int, str]:
    done = CliRunner().invoke(group, argv, standalone_mode=False)
    if isinstance(done.exception, SystemExit) or done.exception is None:
        return (done.return_value or 0), done.output
    assert isinstance(done.exception, Exception)
    return exit_code(done.exception), str(done.exception)


@pytest.mark.parametrize("verb", ["check", "plan", "run"])
def test_a_configuration_that_may_not_be_read_is_a_matter_of_rights(
    tmp_path: Path, forbid: Callable[[Path], None], verb: str
) -> None:
    file = tmp_path / "polywan.toml"
    file.write_text(GOOD)
    forbid(file)
    code, message = failure(verb, "--config", str(file))
    assert code == 5
    assert f"{file}: file: cannot be read: permission denied (use sudo, or give this user read access)" in message


def test_a_file_that_is_bad_beside_one_that_may_not_be_read_is_bad(
    tmp_path: Path, forbid: Callable[[Path], None]
) -> None:
    (tmp_path / "polywan.toml").write_text("[")
    (tmp_path / "conf.d").mkdir()
    forbid(tmp_path / "conf.d")
    with pytest.raises(Exception, match="permission denied") as caught:
        load(tmp_path / "polywan.toml")
    assert not isinstance(caught.value, UnreadableError)
    assert exit_code(caught.value) == 3


def test_a_runtime_directory_that_may_not_be_made_is_a_matter_of_rights(
    tmp_path: Path, forbid: Callable[[Path], None]
) -> None:
    forbid(tmp_path)
    with pytest.raises(NotPermitted, match="use sudo"), locked(tmp_path / "run"):
        pass


def test_a_recording_that_may_not_be_read_is_a_matter_of_rights(tmp_path: Path, forbid: Callable[[Path], None]) -> None:
    config, box = tmp_path / "polywan.toml", tmp_path / "box" / "box.json"
    config.write_text(GOOD)
    forbid(tmp_path / "box")
    for verb in (["plan"], ["why", "-", "192.0.2.1"]):
        code, message = failure(*verb, "--config", str(config), "--observed", str(box), "--state-dir", str(tmp_path))
        assert (code, message) == (5, f"cannot read {box}: Permission denied: use sudo, or another file")


def test_a_socket_that_may_not_be_used_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("polywan.client._Connection.connect", refuse)
    with pytest.raises(ControlError, match="use sudo, or join the group") as caught:
        Client(tmp_path).ask(calls.STATUS, Nothing())
    assert exit_code(caught.value) == 5


def test_no_path_is_refused_before_whoever_opens_it_can_say_why() -> None:
    for verb in ("plan", "why", "down", "run", "check", "status"):
        command = group.get_command(None, verb)  # type: ignore[arg-type] # the group does not look at it
        assert command is not None
        paths = [param.type for param in command.params if hasattr(param.type, "readable")]
        assert all(kind is options.path for kind in paths), verb
