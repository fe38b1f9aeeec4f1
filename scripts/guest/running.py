"""A guest from its start to its end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from guest import qemu, uml
from guest.errors import GuestError
from guest.kernels import Kernel
from guest.processes import started
from guest.share import Request, prepare

LATE, DIED, NO_KERNEL = 124, 125, 126
"""Exit statuses that are not the command's."""
BOOT: Final = {"uml": uml.boot, "qemu": qemu.boot}


def boot(kernel: Kernel, share: Path, request: Request) -> subprocess.Popen[bytes]:
    """Start a guest.

    Raises:
        GuestError: its kernel cannot be started.
    """
    try:
        return BOOT[kernel.backend](share, kernel.path, request)
    except OSError as error:
        raise GuestError(f"{kernel.path} cannot be started: {error.strerror}") from None


def follow(guest: subprocess.Popen[bytes], share: Path, seconds: float) -> bool:
    """Pass on what the command prints until the guest has ended; False when it did not in time."""
    ends = time.monotonic() + seconds
    with (share / "stdout").open("rb") as out, (share / "stderr").open("rb") as err:
        pairs = ((out, sys.stdout.buffer), (err, sys.stderr.buffer))
        while True:
            ended = guest.poll() is not None
            for source, target in pairs:
                if text := source.read():
                    target.write(text)
                    target.flush()
            if ended or time.monotonic() > ends:
                return ended
            time.sleep(0.05)


def run(kernel: Kernel, request: Request) -> int:
    """Run a command in a guest; return its exit status, LATE or DIED.

    Raises:
        GuestError: the kernel cannot be started.
    """
    with tempfile.TemporaryDirectory(prefix="polywan-vm-") as directory:
        share = Path(directory)
        prepare(share, request)
        with started(lambda: boot(kernel, share, request)) as guest:
            in_time = follow(guest, share, request.seconds)
        status = share / "status"
        if status.exists():
            return int(status.read_text())
        why = "the guest died" if in_time else f"no end within {request.seconds:g} s"
        console = (share / "console").read_text(errors="replace")[-2000:]
        print(f"polywan: {why}; its console:\n{console}", file=sys.stderr)
        return DIED if in_time else LATE
