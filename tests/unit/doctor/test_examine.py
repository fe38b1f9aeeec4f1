"""Checks are made on what was read, and none hides another."""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix, Step
from polywan.doctor import mending
from polywan.doctor.box import Box, Check
from polywan.doctor.checks import CHECKS
from polywan.doctor.examine import ORDER, examine


def finding(severity: str, check: str = "some", *steps: Step) -> Finding:
    return Finding(
        check=check, severity=severity, what="", evidence=(), consequence="", fix=Fix(how="", steps=tuple(steps))
    )


def finds(severity: str) -> Check:
    def look(_: Box) -> Iterator[Finding]:
        yield finding(severity)

    return Check(severity, look)


def breaks(_: Box) -> Iterator[Finding]:
    raise ValueError("no such thing")


def test_the_worst_is_told_first() -> None:
    found = examine(Box(), [finds("note"), finds("fault"), finds("warning")], 0.0)

    assert tuple(each.severity for each in found.findings) == ORDER


def test_a_check_that_fails_is_told_and_hides_nothing() -> None:
    found = examine(Box(), [Check("broken", breaks), finds("fault")], 0.0)

    assert [skipped.check for skipped in found.not_checked] == ["broken"]
    assert found.checked == ("fault",)


def test_a_check_is_not_made_without_what_it_needs() -> None:
    found = examine(Box(unread={"firewall": "nft is not there"}), [Check("rules", breaks, ("firewall",))], 0.0)

    assert [(skipped.check, skipped.reason) for skipped in found.not_checked] == [("rules", "nft is not there")]


def test_notes_leave_a_machine_healthy() -> None:
    assert examine(Box(), [finds("note")], 0.0).healthy
    assert not examine(Box(), [finds("warning")], 0.0).healthy


def test_of_a_machine_without_any_link_only_that_is_said() -> None:
    found = examine(Box(), CHECKS, 0.0)

    assert [each.check for each in found.findings] == ["no-default"]
    assert found.not_checked == ()


def test_no_two_checks_have_one_name() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_a_step_that_several_fixes_need_is_done_once() -> None:
    step, other = Step(command=("true",)), Step(path="/etc/x", text="a\n", append=True)

    assert mending.steps([finding("fault", "a", step, other), finding("fault", "b", step)]) == (step, other)
