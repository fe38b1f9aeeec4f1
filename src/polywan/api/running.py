"""What the running daemon says of itself: what it did or would do, and what is in force. Fields are only added."""

from polywan.api.document import Document


class Shown(Document):
    """Something in force, as text."""

    text: str


class Reloaded(Document):
    """What a reload did.

    Attributes:
        generation: number of the last plan.
        changed: the kernel was changed.
        ms: how long that took, in milliseconds.
        changes: what the file says anew, for people.
    """

    generation: int
    changed: bool
    ms: float
    changes: tuple[str, ...]


class Operation(Document):
    """One change of the kernel: its kind, and what it is, for people."""

    op: str
    text: str


class Planned(Document):
    """What a configuration would change now, in that order, and what people should know."""

    ops: tuple[Operation, ...]
    warnings: tuple[str, ...]


class Removed(Document):
    """What was removed from the kernel.

    Attributes:
        removed: number of operations.
        failed: what the kernel refused.
        unrestored: settings whose old values are lost.
        problems: what else was not done.
    """

    removed: int
    failed: tuple[str, ...]
    unrestored: tuple[str, ...]
    problems: tuple[str, ...]
