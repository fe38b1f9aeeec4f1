"""Read all parts at the same time, mask them, and pack them into one file."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from polywan import __version__
from polywan.bundle import own, system
from polywan.bundle.part import Part
from polywan.core.masking.listing import listing
from polywan.core.masking.masking import Masked, mask
from polywan.core.words import printable
from polywan.doctor.reading.at_once import Reading
from polywan.doctor.reading.collect import Places

FOLDER: Final = "polywan-bundle"
"""Everything is below it, so that nothing else is overwritten where it is unpacked."""

MOST_CHARACTERS: Final = 1 << 20
"""Of one part: the kernel's state of 254 uplinks has half of it."""

_CONFIGURATION: Final = "config"

_ABOUT: Final = """\
This is a bundle of polywan {version}: what others need to see of a machine, to help with polywan on it.
Secrets, public addresses and names of people and of the machine are masked: masked.txt says what, and where.
Look through the files before you give them to others. Domains and names of uplinks are as they are.

What is in it:
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What goes into the file.

    Attributes:
        files: their texts by path, in order, masked.
        masked: what was masked.
        missing: parts that could not be read, and why, masked.
    """

    files: Mapping[str, str]
    masked: Masked
    missing: Mapping[str, str]


async def gather(places: Places, host: str, words: frozenset[str], on_done: Callable[[int, int], None]) -> Bundle:
    """Read this machine, within 15 s.

    Args:
        places: where polywan keeps its files.
        host: as for `mask`.
        words: likewise.
        on_done: told how many parts are done, and of how many.
    """
    wanted = (*own.parts(places), *system.parts(places.root))
    reading = Reading()
    reading.on_done = lambda: on_done(len(reading.found) + len(reading.unread), len(wanted) + 1)
    await reading.read(
        {
            _CONFIGURATION: lambda: own.configuration(places.config),
            **{part.name: part.read for part in wanted},
        },
        {part.name: part.limit for part in wanted},
    )
    return assemble(wanted, reading.found.pop(_CONFIGURATION, {}), reading.found, reading.unread, host, words)


def assemble(
    wanted: Sequence[Part],
    configuration: Mapping[str, str],
    found: Mapping[str, str],
    unread: Mapping[str, str],
    host: str,
    words: frozenset[str],
) -> Bundle:
    """Put a bundle together from what was read; what is too long or has control characters is made readable."""
    missing = dict(unread)
    if not configuration:
        missing.setdefault(_CONFIGURATION, "there is no configuration that can be read; check.txt says why")
    texts = {**configuration, **{part.name: found[part.name] for part in wanted if part.name in found}}
    readable = {name: _readable(name, text) for name, text in texts.items()}
    readable["missing"] = "\n".join(printable(reason) for reason in missing.values())
    masked = mask(readable, host, words)
    reasons = dict(zip(missing, masked.texts["missing"].split("\n"), strict=True)) if missing else {}
    kept = {name: text for name, text in masked.texts.items() if name != "missing"}
    about = _about(wanted, configuration, kept, reasons)
    return Bundle(files={"README.txt": about, "masked.txt": listing(masked), **kept}, masked=masked, missing=reasons)


def _about(
    wanted: Sequence[Part], configuration: Mapping[str, str], texts: Mapping[str, str], missing: Mapping[str, str]
) -> str:
    what = {part.name: part.what for part in wanted}
    what |= dict.fromkeys(configuration, "the configuration") | {"config/files.txt": "what its files are called"}
    width = max(map(len, texts), default=0)
    lines = [f"  {name:{width}}  {what[name]}" for name in texts]
    if missing:
        lines += ["", "What could not be read:", *(f"  {name}: {reason}" for name, reason in missing.items())]
    return _ABOUT.format(version=__version__) + "".join(f"{line}\n" for line in lines)


def _readable(name: str, text: str) -> str:
    """Return a text that cannot order a terminal about, and is not too long."""
    text = text.replace("\r\n", "\n")
    if len(text) > MOST_CHARACTERS:
        text = f"{text[:MOST_CHARACTERS]}\n[{len(text) - MOST_CHARACTERS} more characters were left out]\n"
    escaped = _in_json if name.endswith(".json") else printable
    return "\n".join(line if line.isprintable() else escaped(line, "\t") for line in text.split("\n"))


def _in_json(line: str, keep: str) -> str:
    # iproute2 puts names of devices into JSON as they are.
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in line)


def archive(files: Mapping[str, str], now: float) -> bytes:
    """Return a .tar.gz of the files, each for its owner alone; it says nothing of whoever made it."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=now) as zipped,
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for name, text in files.items():
            content = text.encode("utf-8", "replace")
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(now), 0o600
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
