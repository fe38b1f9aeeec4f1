"""Every error polywan raises on purpose.

::

    PolywanError
    ├── ConfigError     the file is wrong; carries every problem at once        (exit 3)
    │   └── UnreadableError   this user may not read it                         (exit 5)
    ├── KernelError     the kernel refused an operation; carries its errno      (exit 1 or 5)
    ├── MissingFeature  a kernel feature or tool is absent; says the package    (exit 1)
    ├── NotPermitted    the process may not change networking                   (exit 5)
    ├── CapacityError   more uplinks than the mark mask has room for            (exit 3)
    ├── ListError       a file of prefixes cannot be read                       (never ends a program)
    ├── BusyError       another daemon runs here already                        (exit 1)
    ├── NewerError      a newer polywan has written a file of the state         (exit 1)
    ├── ControlError    the daemon cannot be reached or refused                 (exit 4 or 1)
    │   └── BusyHereError     the page has no room for one more question        (never ends a program)
    ├── QuestionError   `why` was asked about a packet that cannot exist        (exit 2)
    └── LabError        the lab cannot be built, or something in it failed      (exit 1)
"""

from __future__ import annotations

from polywan.config.errors import ConfigError, PolywanError, Problem, UnreadableError

__all__ = [
    "BusyError",
    "CapacityError",
    "ConfigError",
    "ControlError",
    "KernelError",
    "MissingFeature",
    "NewerError",
    "NotPermitted",
    "PolywanError",
    "Problem",
    "UnreadableError",
]


class KernelError(PolywanError):
    """The kernel refused one operation.

    Attributes:
        operation: what was asked, readable.
        errno: the kernel's error number (see errno(3)), 0 when it gave only text.
    """

    def __init__(self, operation: str, errno: int, message: str) -> None:
        super().__init__(f"{operation}: {message}")
        self.operation = operation
        self.errno = errno


class MissingFeature(PolywanError):
    """The machine lacks something polywan needs; the text names it and the package that brings it."""


class NotPermitted(PolywanError):
    """The process may not change networking; the text says how it would be allowed to."""


class CapacityError(PolywanError):
    """There are more uplinks than marks in the mask."""


class BusyError(PolywanError):
    """Another daemon runs in this network namespace, or holds this runtime directory."""


class NewerError(PolywanError):
    """A newer polywan has written a file of the state; the text says what to do, and the file stays as it is."""


class ControlError(PolywanError):
    """The daemon cannot be reached, or refused the request.

    Attributes:
        status: the HTTP status when it answered, 0 when it could not be reached, 502 when its answer makes no sense.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
