"""What the page may do follows from the user of its process: a running daemon decides it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from polywan.lab.daemon import DaemonProcess
from polywan.lab.network import build
from polywan.lab.scenario import configuration
from support.page_user import PAGE, with_page_user
from support.users import KILLED_WITH_US, SERVICE, User, as_the_service
from support.web import WebProcess, token, web_process

pytestmark = pytest.mark.needs("root")

MEMBER = User("a member of the group", 4712, (SERVICE,))
OTHER = User("another user", 4713)
AS_OUR_PAGE = {"Content_Type": "application/json", "X_Polywan": "1"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with with_page_user(tmp_path_factory.mktemp("users")), build(2) as lab:
        directory = Path("/run/polywan-web-rights")
        daemon = DaemonProcess(lab.router, configuration(lab.topology, (1, 1)), directory, as_the_service)
        for path in (directory, daemon.state):
            os.chown(path, SERVICE, SERVICE)
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            assert daemon.troubles == []


def as_user(user: User) -> list[str]:
    groups = f"--groups={','.join(map(str, user.groups))}" if user.groups else "--clear-groups"
    return ["setpriv", f"--reuid={user.uid}", f"--regid={user.uid}", groups, "--inh-caps=-all", *KILLED_WITH_US, "--"]


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory for the page of any user of these tests."""
    directory = Path("/run/polywan-web-state")
    directory.mkdir(exist_ok=True)
    yield directory
    for file in (directory / "web").glob("*"):
        file.unlink()


def acts(page: WebProcess, field: str, path: str = "/api/v1/uplinks/isp1/disable") -> tuple[int, str]:
    found = page.ask("POST", path, b"{}", Authorization=field, **AS_OUR_PAGE)
    return found.status, str(found.json)


def give(state: Path, user: User) -> str:
    field = token(state, "laptop", "act")
    for path in (state / "web", *(state / "web").iterdir()):
        os.chown(path, user.uid, user.uid)
    return field


def test_the_pages_own_user_acts(daemon: DaemonProcess, state: Path) -> None:
    field = give(state, PAGE)
    words = ("--state-dir", str(state / "web"))
    with web_process(daemon.namespace, daemon.runtime, *words, behind=as_user(PAGE)) as page:
        assert page.get("/api/v1/status").status == 200
        assert acts(page, field)[0] == 200
        assert daemon.uplink(1).state == "disabled"
        assert acts(page, field, "/api/v1/uplinks/isp1/enable")[0] == 200
        assert acts(page, field, "/api/v1/down")[0] == 404
        assert acts(page, field, "/api/v1/reload")[0] == 404


def test_a_page_of_another_member_of_the_group_reads_only_whatever_its_tokens_say(
    daemon: DaemonProcess, state: Path
) -> None:
    field = give(state, MEMBER)
    words = ("--state-dir", str(state / "web"))
    with web_process(daemon.namespace, daemon.runtime, *words, behind=as_user(MEMBER)) as page:
        assert page.get("/api/v1/status").status == 200
        status, said = acts(page, field)
        assert (status, "only root" in said) == (403, True)
        assert daemon.uplink(1).state != "disabled"


def test_a_page_of_a_user_outside_of_the_group_says_that_it_cannot_reach_the_daemon(daemon: DaemonProcess) -> None:
    with web_process(daemon.namespace, daemon.runtime, behind=as_user(OTHER)) as page:
        found = page.get("/api/v1/status")
        assert (found.status, "join the group" in found.json["error"]) == (503, True)


def test_a_page_that_root_starts_is_the_pages_user_from_then_on(daemon: DaemonProcess) -> None:
    with web_process(daemon.namespace, daemon.runtime) as page:
        text = Path(f"/proc/{page.pid}/status").read_text(encoding="utf-8")
        found = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
        assert found["Uid"] == [str(PAGE.uid)] * 4
        assert found["Gid"] == [str(SERVICE)] * 4
        assert str(SERVICE) in found["Groups"]
        assert "0" not in found["Groups"]
        assert {found[key][0] for key in ("CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert page.get("/api/v1/status").status == 200
