"""A real ssh server in a namespace, and clients that reach it from another one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from polywan.lab.namespaces import Namespace

_PORT = 22


class SshServer:
    """Serves root of one namespace, by one key.

    Args:
        namespace: where it listens.
        directory: for its keys.
    """

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self._namespace = namespace
        self._keys = directory / "ssh"
        self._keys.mkdir()
        for name in ("host", "client"):
            self._make_key(self._keys / name)
        (self._keys / "authorized").write_text((self._keys / "client.pub").read_text())
        Path("/run/sshd").mkdir(exist_ok=True, mode=0o755)
        self._process = self._start()

    def client(self, namespace: Namespace, address: str, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command by ssh from another namespace."""
        argv = ["ssh", "-i", str(self._keys / "client"), "-F", "none", "-o", "StrictHostKeyChecking=no"]
        argv += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes"]
        argv += ["-o", "ConnectTimeout=10", f"root@{address}", " ".join(command)]
        with namespace.entered():
            return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def close(self) -> None:
        """End it; its sessions end with their clients."""
        self._process.kill()
        self._process.wait()

    def _make_key(self, path: Path) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)

    def _start(self) -> subprocess.Popen[str]:
        config = self._keys / "sshd_config"
        config.write_text(
            f"Port {_PORT}\nHostKey {self._keys}/host\nAuthorizedKeysFile {self._keys}/authorized\n"
            "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\nUseDNS no\n"
        )
        process = self._namespace.start(["/usr/sbin/sshd", "-D", "-e", "-f", str(config)])
        until = time.monotonic() + 10
        while "LISTEN" not in self._namespace.run(["ss", "-Hltn", f"sport = :{_PORT}"]).stdout:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        return process


@contextmanager
def ssh_server(namespace: Namespace, directory: Path) -> Iterator[SshServer]:
    """Serve ssh in a namespace for as long as the context lasts."""
    server = SshServer(namespace, directory)
    try:
        yield server
    finally:
        server.close()
