"""Which bits of the marks are ours: as the file says, else as before, until `down`."""

from __future__ import annotations

from typing import Final

from polywan.config import Config
from polywan.core.state.memory import Memory

BEFORE: Final = 0x3F00
"""The default of versions that did not remember their mask."""


def settled(config: Config, memory: Memory) -> Config:
    """Return the configuration with the mask that is in force, where the file names none.

    Connections, sockets and sets of the kernel carry marks under it, so that an upgrade must not exchange it for
    another default.
    """
    if "mark_mask" in config.global_.model_fields_set:
        return config
    mask = memory.mask or (BEFORE if memory.ids else config.global_.mark_mask)
    if mask == config.global_.mark_mask:
        return config
    settings = config.global_.model_copy(update={"mark_mask": mask})
    return config.model_copy(update={"global_": settings})
