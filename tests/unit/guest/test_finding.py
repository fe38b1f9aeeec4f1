"""The kernel of a guest: taken from where it is said, told by a line, and missed in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from guest.cache import digest

from support.guest import HIDEABLE, Checkout

BUILD = "there is no kernel for a guest; `scripts/vm --build` makes one in some 7 minutes, "
CHANGED = "scripts/guest/kernel.config has changed since the last `scripts/vm --build`"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.at(tmp_path)


def build(checkout: Checkout, config: str | None = None) -> Path:
    """Put what stands for a kernel of that configuration, or the present one, into the cache."""
    checkout.cache.mkdir(parents=True, exist_ok=True)
    kernel = checkout.cache / f"linux-{digest(config or checkout.config.read_text())}.uml"
    kernel.touch(0o755)
    return kernel


def test_without_a_kernel_it_says_how_to_make_one(checkout: Checkout) -> None:
    done = checkout.find()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (126, "", 1)
    assert done.stderr.startswith(f"polywan: {BUILD}")


def test_a_kernel_beside_the_checkout_is_unpacked_once(checkout: Checkout) -> None:
    checkout.pack(b"a kernel")
    cached = checkout.cache / "linux.uml"
    assert checkout.find().stdout == f"{cached}\n"
    assert cached.read_bytes() == b"a kernel"
    assert os.access(cached, os.X_OK)
    before = cached.stat().st_ino
    checkout.find()
    assert cached.stat().st_ino == before


def test_one_in_the_cache_does_without_what_was_beside_the_checkout(checkout: Checkout) -> None:
    packed = checkout.pack(b"a kernel")
    checkout.find()
    packed.unlink()
    assert checkout.find().stderr.startswith("polywan: the guest's kernel is user-mode Linux in the cache: ")


def test_one_that_was_built_comes_before_one_beside_the_checkout(checkout: Checkout) -> None:
    checkout.pack(b"a kernel")
    kernel = build(checkout)
    done = checkout.find()
    assert done.stdout == f"{kernel}\n"
    assert done.stderr == f"polywan: the guest's kernel is user-mode Linux that scripts/vm --build made: {kernel}\n"


def test_one_that_was_built_from_another_configuration_is_not_taken_and_not_forgotten(checkout: Checkout) -> None:
    build(checkout, "CONFIG_OF_YESTERDAY=y\n")
    done = checkout.find()
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr.endswith(f"; {CHANGED}\n")
    checkout.pack(b"a kernel")
    done = checkout.find()
    assert done.stdout == f"{checkout.cache / 'linux.uml'}\n"
    assert done.stderr.endswith(f"; {CHANGED}\n")


def test_a_comment_in_the_configuration_makes_no_other_kernel(checkout: Checkout) -> None:
    kernel = build(checkout)
    with checkout.config.open("a") as file:
        file.write("\n# CONFIG_OF_TOMORROW=y\n")
    assert checkout.find().stdout == f"{kernel}\n"


def test_one_that_is_named_comes_first(checkout: Checkout, tmp_path: Path) -> None:
    checkout.pack(b"a kernel")
    build(checkout)
    mine = tmp_path / "mine"
    mine.touch(0o755)
    assert checkout.find(POLYWAN_VM_KERNEL=str(mine)).stdout == f"{mine}\n"


def test_one_that_cannot_be_started_is_named_in_one_sentence(checkout: Checkout, tmp_path: Path) -> None:
    for named in (tmp_path / "nowhere", tmp_path):
        done = checkout.find(POLYWAN_VM_KERNEL=str(named))
        assert (done.returncode, done.stdout) == (126, "")
        assert done.stderr == f"polywan: {named} is no program, so it is no kernel for a guest\n"


def test_one_that_is_torn_or_has_no_place_is_named_in_one_sentence_and_leaves_nothing(
    checkout: Checkout, tmp_path: Path
) -> None:
    packed = checkout.pack(b"a kernel" * 1000)
    whole = packed.read_bytes()
    for contents in (whole[:-20], b"no xz"):
        packed.write_bytes(contents)
        done = checkout.find()
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (126, "", 1)
        assert done.stderr.startswith(f"polywan: {packed} cannot be unpacked to ")
        assert list(checkout.cache.iterdir()) == []
    packed.write_bytes(whole)
    (tmp_path / "file").touch()
    done = checkout.find(XDG_CACHE_HOME=str(tmp_path / "file"))
    assert (done.returncode, done.stderr.count("\n")) == (126, 1)


def test_debians_kernel_is_taken_where_there_is_no_other(checkout: Checkout) -> None:
    image = checkout.unpack_debian()
    done = checkout.find()
    assert done.stdout == f"{image}\n"
    assert done.stderr == f"polywan: the guest's kernel is QEMU with Debian's kernel 6.1.0-1-amd64: {image}\n"
    kernel = build(checkout)
    assert checkout.find().stdout == f"{kernel}\n"


def test_the_backend_can_be_chosen(checkout: Checkout) -> None:
    image = checkout.unpack_debian()
    assert checkout.find("--backend", "uml").stderr.startswith(f"polywan: {BUILD}")
    kernel = build(checkout)
    assert checkout.find("--backend", "uml").stdout == f"{kernel}\n"
    assert checkout.find("--backend", "qemu").stdout == f"{image}\n"


def test_debians_kernel_that_is_not_there_is_missed_in_one_sentence(checkout: Checkout) -> None:
    build(checkout)
    done = checkout.find("--backend", "qemu")
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == (
        "polywan: there is no Debian kernel in the cache for QEMU; `scripts/vm --backend qemu --build` fetches it\n"
    )


@pytest.mark.skipif(not HIDEABLE, reason="all programs are in /usr/sbin")
def test_a_qemu_that_is_not_there_is_missed_in_one_sentence(checkout: Checkout, tmp_path: Path) -> None:
    checkout.unpack_debian()
    (tmp_path / "tools" / "qemu-system-x86_64").unlink()
    done = checkout.find("--backend", "qemu", PATH=str(tmp_path / "tools"))
    assert done.stderr == ("polywan: a guest by QEMU needs qemu-system-x86_64; run: apt-get install qemu-system-x86\n")
    assert checkout.find(PATH=str(tmp_path / "tools")).stderr.startswith(f"polywan: {BUILD}")


def test_a_kernel_that_is_no_program_for_this_machine_is_named_in_one_sentence(checkout: Checkout) -> None:
    kernel = build(checkout)
    kernel.write_bytes(b"neither a script nor a program")
    done = checkout.run("true", directory=Path("/"))
    assert done.returncode == 126
    assert done.stderr.endswith(f"\npolywan: {kernel} cannot be started: Exec format error\n")


def test_a_directory_that_the_guest_has_not_is_no_place_to_start_in(checkout: Checkout) -> None:
    build(checkout)
    done = checkout.run("true", directory=Path("/dev/shm"))
    assert done.returncode == 2
    assert "error: the guest has no /dev/shm: " in done.stderr


def test_a_directory_that_is_not_there_is_refused(checkout: Checkout) -> None:
    build(checkout)
    done = checkout.run("--rw", "/nowhere", "true")
    assert done.returncode == 2
    assert done.stderr.endswith("--rw /nowhere: no such directory\n")
