"""What is wrong with a machine: what `polywan doctor --json` prints. Fields are added, never changed."""

from polywan.api.document import Document


class Step(Document):
    """One step of a fix: a program to run, or a file to write; one of the two is empty.

    Attributes:
        command: program and arguments, without a shell.
        path: the file that is written.
        text: what is written into it.
        append: it is added to the end of the file, which is made when it is not there; else the file is new.
    """

    command: tuple[str, ...] = ()
    path: str = ""
    text: str = ""
    append: bool = False


class Fix(Document):
    """How to mend it.

    Attributes:
        how: one sentence; without `steps`, what the administrator has to do himself.
        steps: what `--fix` would do, in this order.
    """

    how: str
    steps: tuple[Step, ...] = ()


class Finding(Document):
    """Something that is wrong.

    Attributes:
        check: name of the check that found it.
        severity: "fault" for what does not work now, "warning" for what will not work some day or in some cases,
            "note" for what is worth knowing.
        what: one sentence.
        evidence: what shows it, one line each: a rule, a counter, an answer of the kernel.
        consequence: what the user notices of it, one sentence.
        fix: None when there is nothing to mend.
    """

    check: str
    severity: str
    what: str
    evidence: tuple[str, ...]
    consequence: str
    fix: Fix | None = None


class NotChecked(Document):
    """A check that could not be made, and why."""

    check: str
    reason: str


class Diagnosis(Document):
    """What was found, the worst first.

    Attributes:
        schema: version of the document.
        healthy: nothing is worse than a note.
        checked: names of the checks that were made.
        seconds: how long it took.
    """

    schema: int
    version: str
    healthy: bool
    findings: tuple[Finding, ...]
    not_checked: tuple[NotChecked, ...]
    checked: tuple[str, ...]
    seconds: float
