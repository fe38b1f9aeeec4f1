"""The user of the page's process on a machine that has none: a list of users of the test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polywan.daemon.api.peers import PAGE_USER
from support.users import SERVICE, User

PAGE = User("the page's user", 4714, (SERVICE,))


@contextmanager
def with_page_user(directory: Path) -> Iterator[None]:
    """Have the page's user among the users of the machine, for programs of this mount namespace that start now."""
    users = Path("/etc/passwd").read_text(encoding="utf-8")
    kept = [line for line in users.splitlines() if not line.startswith(f"{PAGE_USER}:")]
    found = directory / "passwd"
    entry = f"{PAGE_USER}:x:{PAGE.uid}:{SERVICE}::/nonexistent:/usr/sbin/nologin"
    found.write_text("\n".join([*kept, entry, ""]), encoding="utf-8")
    found.chmod(0o644)
    subprocess.run(["mount", "--bind", found, "/etc/passwd"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", "/etc/passwd"], check=True)
