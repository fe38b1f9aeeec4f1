"""The page's process under systemd: started by one command, without a right, and the way to act by it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from polywan.web.settings import SELF_MADE
from support.machine.box import Box

PAGE = "polywan-web.service"
FAR = "100.64.1.2:8410"
"""The box's address in the network of its first provider."""

ASK = """
import json, ssl, sys, urllib.request, urllib.error
method, path, token, where = sys.argv[1:5]
fields = {"Content-Type": "application/json", "X-Polywan": "1", "Authorization": "Bearer " + token}
request = urllib.request.Request(where + "/api" + path, method=method,
    headers=fields if token else {}, data=b"{}" if method == "POST" else None)
try:
    trust = ssl._create_unverified_context()
    answer = urllib.request.urlopen(request, timeout=20, context=trust)
    print(json.dumps([answer.status, json.load(answer)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


def ask(box: Box, method: str, path: str, token: str = "", where: str = "http://127.0.0.1:8410") -> tuple[int, Any]:
    status, answer = json.loads(box.machine.run("python3", "-c", ASK, method, path, token, where).stdout)
    return status, answer


@pytest.fixture(scope="module")
def served(box: Box) -> Box:
    assert box.machine.show(PAGE, "UnitFileState") == "disabled"
    box.machine.run("systemctl", "start", PAGE)
    return box


def test_the_page_is_served_to_this_machine_once_the_service_is_started(served: Box) -> None:
    status, answer = ask(served, "GET", "/v1/status")
    assert (status, len(answer["uplinks"])) == (200, 2)


def test_its_process_has_a_user_of_its_own_and_no_right(served: Box) -> None:
    pid = served.machine.show(PAGE, "MainPID")
    text = served.machine.run("cat", f"/proc/{pid}/status").stdout
    found = {key: value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    user = served.machine.run("id", "-u", "polywan-web").stdout.strip()
    group = served.machine.run("id", "-g", "polywan").stdout.strip()
    assert found["Uid"] == [user] * 4
    assert group in found["Groups"]
    assert {found[key][0] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["NoNewPrivs"] == ["1"]


def test_root_makes_a_token_and_its_holder_acts(served: Box) -> None:
    token = served.polywan("web", "token", "add", "laptop", "--scope", "act").stdout.strip()
    assert re.fullmatch(r"pw_[A-Za-z0-9_-]{43}", token)
    assert ask(served, "POST", "/v1/uplinks/isp1/disable")[0] == 401
    status, answer = ask(served, "POST", "/v1/uplinks/isp1/disable", token)
    assert (status, answer["state"]) == (200, "disabled")
    assert served.up() == {"isp2"}
    assert ask(served, "POST", "/v1/uplinks/isp1/enable", token)[0] == 200
    served.balanced()
    assert "web.acted: laptop at 127.0.0.1" in served.machine.log("polywan-web")


def test_a_revoked_token_is_good_for_nothing(served: Box) -> None:
    token = served.polywan("web", "token", "add", "phone").stdout.strip()
    assert ask(served, "GET", "/whoami", token) == (200, {"scopes": ["read"], "name": "phone"})
    served.polywan("web", "token", "revoke", "phone")
    assert ask(served, "GET", "/whoami", token)[0] == 401


def test_the_page_outlives_a_daemon_that_is_away(served: Box) -> None:
    served.machine.run("systemctl", "stop", "polywan.service")
    assert ask(served, "GET", "/v1/status")[0] == 503
    served.machine.run("systemctl", "start", "polywan.service")
    assert ask(served, "GET", "/v1/status")[0] == 200


def drop_in(box: Box, *lines: str) -> None:
    """Give the service these settings."""
    box.disk.write(f"/etc/systemd/system/{PAGE}.d/far.conf", "\n".join(("[Service]", *lines, "")))
    box.machine.run("systemctl", "daemon-reload")


def test_beyond_loopback_it_does_not_start_without_tls_and_is_not_tried_again(served: Box) -> None:
    served.machine.run("systemctl", "stop", PAGE)
    drop_in(served, f"Environment=POLYWAN_WEB_LISTEN={FAR}")
    served.machine.run("systemctl", "start", PAGE, check=False)
    assert served.machine.show(PAGE, "ActiveState") == "failed"
    assert "openssl req -x509" in served.machine.log("polywan-web")


def test_the_settings_of_the_guide_serve_it_to_others_by_tls_with_a_key_that_only_root_reads(
    served: Box, tmp_path: Path
) -> None:
    host = FAR.rpartition(":")[0]
    subprocess.run(SELF_MADE.format(name=host, kind="IP").split(), cwd=tmp_path, check=True, capture_output=True)
    for name in ("web.crt", "web.key"):
        served.disk.write(f"/etc/ssl/{name}", (tmp_path / name).read_text(encoding="utf-8"))
    served.machine.run("chmod", "600", "/etc/ssl/web.key")
    drop_in(
        served,
        f'Environment=POLYWAN_WEB_LISTEN="{FAR} 127.0.0.1:8410"',
        "LoadCredential=cert:/etc/ssl/web.crt",
        "LoadCredential=key:/etc/ssl/web.key",
        "Environment=POLYWAN_WEB_CERT=%d/cert POLYWAN_WEB_KEY=%d/key",
    )
    token = served.polywan("web", "token", "add", "far").stdout.strip()
    served.machine.run("systemctl", "restart", PAGE)
    where = f"https://{FAR}"
    assert ask(served, "GET", "/v1/status", where=where)[0] == 401
    assert ask(served, "GET", "/v1/status", token, where)[0] == 200
    assert ask(served, "GET", "/v1/status", where="https://127.0.0.1:8410")[0] == 200
