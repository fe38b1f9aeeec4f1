"""The configuration on disk beside the one in force. Fields are added, never changed."""

from collections.abc import Mapping

from polywan.api.document import Document
from polywan.api.requests import ProblemFound
from polywan.api.running import Operation


class PendingConfiguration(Document):
    """What the files say now, and what `reload` would change.

    Attributes:
        schema: version of the document.
        differs: a file says something else than what is in force.
        files: names of those files, below the configuration's directory.
        in_force, on_disk: the texts of all files, by name; without what cannot be read.
        problems: why `reload` would refuse; then nothing is known of the rest.
        changes: what the files say anew, in words.
        operations: what that would change in the kernel now, in order.
        warnings: what people should know about it.
    """

    schema: int
    differs: bool
    files: tuple[str, ...]
    in_force: Mapping[str, str]
    on_disk: Mapping[str, str]
    problems: tuple[ProblemFound, ...]
    changes: tuple[str, ...]
    operations: tuple[Operation, ...]
    warnings: tuple[str, ...]
