"""Other versions of libnftables than the one installed here: those of Debian's releases, each in its system."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Final

from polywan.kernel.nft.libnftables import Nftables, refusal

_PROGRAM: Final = """
import ctypes, json, sys
library = ctypes.CDLL("libnftables.so.1")
library.nft_ctx_new.restype = ctypes.c_void_p
library.nft_ctx_get_output_buffer.restype = library.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
context = ctypes.c_void_p(library.nft_ctx_new(0))
library.nft_ctx_buffer_output(context)
library.nft_ctx_buffer_error(context)
for line in sys.stdin:
    text, flags = json.loads(line)
    library.nft_ctx_output_set_flags(context, flags)
    failed = library.nft_run_cmd_from_buffer(context, text.encode())
    buffers = library.nft_ctx_get_output_buffer(context), library.nft_ctx_get_error_buffer(context)
    print(json.dumps([failed, *(buffer.decode() for buffer in buffers)]), flush=True)
"""


class OtherNftables(Nftables):
    """libnftables of another system, in the network namespace of the thread that makes this."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._process = subprocess.Popen(
            ["chroot", root, "python3", "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def _command(self, text: str, flags: int) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([text, flags]) + "\n")
        self._process.stdin.flush()
        failed, output, complaint = json.loads(self._process.stdout.readline())
        if failed:
            raise refusal(complaint)
        return str(output)

    def close(self) -> None:
        """End its process."""
        self._process.communicate()
        super().close()
