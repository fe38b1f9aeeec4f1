"""Settings below a root: read, written, and nowhere else."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from polywan.core.errors import KernelError
from polywan.kernel import sysctl

NAME = "net/ipv4/conf/eth1.5/rp_filter"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    file = tmp_path / "sys" / NAME
    file.parent.mkdir(parents=True)
    file.write_text("0\n")
    (tmp_path / "outside").write_text("secret")
    return tmp_path / "sys"


def test_a_value_is_read_without_its_newline(root: Path) -> None:
    assert sysctl.read(NAME, root) == "0"


def test_a_written_value_is_read_back(root: Path) -> None:
    sysctl.write(NAME, "2", root)
    assert sysctl.read(NAME, root) == "2"


@pytest.mark.parametrize("path", ["net/ipv4/absent", "net/ipv4"])
def test_what_is_no_setting_reads_as_absent(root: Path, path: str) -> None:
    assert sysctl.read(path, root) is None


def test_writing_an_absent_setting_does_not_make_it(root: Path) -> None:
    with pytest.raises(KernelError) as caught:
        sysctl.write("net/ipv4/absent", "1", root)
    assert caught.value.errno == errno.ENOENT
    assert not (root / "net/ipv4/absent").exists()


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "net/../../outside", "", ".", "net\0"])
def test_a_path_that_leads_outside_is_refused(root: Path, path: str) -> None:
    with pytest.raises(KernelError) as reading:
        sysctl.read(path, root)
    with pytest.raises(KernelError):
        sysctl.write(path, "1", root)
    assert reading.value.errno == errno.EINVAL
