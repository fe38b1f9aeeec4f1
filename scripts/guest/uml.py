"""User-mode Linux: a kernel that is an ordinary program, and reads this machine's files by its hostfs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from guest.share import SYSTEM, Request

INIT = f"""#!/bin/sh
[ $$ -eq 1 ] || exit 1
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
share=${{0%/*}}
lower=/ top=/mnt new=/mnt/root
mount -t tmpfs top $top
mkdir $top/over $top/work $new
{SYSTEM}
mount -t hostfs -o "$share" share $new/mnt/share
while read -r kept; do
    mkdir -p "$new$kept"
    mount -t hostfs -o "$kept" kept "$new$kept"
done < "$share/kept"
cd $new
mkdir -p mnt/before
pivot_root . mnt/before
exec chroot . /bin/sh /mnt/share/run
"""


def boot(share: Path, program: Path, request: Request) -> subprocess.Popen[bytes]:
    """Start the guest; its processes are of its group."""
    init = share / "init"
    init.write_text(INIT)
    init.chmod(0o755)
    console = os.open(share / "console", os.O_WRONLY | os.O_APPEND)
    words = [
        str(program), f"mem={request.mem}M", f"ncpus={request.cpus}", "seccomp=auto", "root=/dev/root",
        "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}", "quiet", "panic=-1", "con=null",
        f"con0=null,fd:{console}", f"uml_dir={share}/",
        "dummy.numdummies=0", "ifb.numifbs=0", "bonding.max_bonds=0",
    ]  # fmt: skip
    try:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[console], start_new_session=True
        )
    finally:
        os.close(console)
