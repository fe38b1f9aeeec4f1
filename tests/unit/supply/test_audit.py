"""The verdicts on what pip-audit says; its words are recorded from runs of version 2.10.1."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from supply.audit import ACCEPTED, Acceptance, Outcome, acceptances, judge

GOOD = '{"dependencies": [{"name": "click", "version": "8.5.1", "vulns": []}], "fixes": []}\n'
VULNERABLE = (
    '{"dependencies": [{"name": "h11", "version": "0.15.0", "vulns": [{"id": "CVE-2025-43859", "fix_versions": '
    '["0.16.0"], "aliases": ["GHSA-vqfr-h8mv-ghfj"], "description": "h11 accepts some malformed Chunked-Encoding '
    'bodies"}]}, {"name": "click", "version": "8.5.1", "vulns": []}], "fixes": []}\n'
)
UNKNOWN = (
    '{"dependencies": [{"name": "anyio", "skip_reason": "Dependency not found on PyPI and could not be audited: '
    'anyio (4.16.0)"}, {"name": "click", "skip_reason": "Dependency not found on PyPI and could not be audited: click '
    '(8.5.1)"}], "fixes": []}\n'
)
REFUSED = (
    "Traceback (most recent call last):\n"
    '  File "requests/adapters.py", line 723, in send\n'
    "    raise ProxyError(e, request=request)\n"
    "requests.exceptions.ProxyError: Max retries exceeded with url: /pypi/h11/0.15.0/json (Caused by "
    "ProxyError('Unable to connect to proxy', NewConnectionError('[Errno 111] Connection refused')))\n"
)
TIMED_OUT = "ERROR:pip_audit._cli:Could not connect to PyPI's vulnerability feed\n"
NO_HASH = "ERROR:pip_audit._cli:requirement click>=8 does not contain a hash\n"
TODAY = date(2026, 11, 30)
LINE = "h11 0.15.0: CVE-2025-43859, fixed in 0.16.0: h11 accepts some malformed Chunked-Encoding bodies"


def accepting(until: date, package: str = "h11", name: str = "CVE-2025-43859") -> dict[str, Acceptance]:
    return {name: Acceptance(package=package, reason="never reads such bodies", until=until)}


def test_packages_without_a_vulnerability_are_good() -> None:
    verdict = judge(0, GOOD, "No known vulnerabilities found\n", {}, TODAY)
    assert (verdict.outcome, verdict.lines) == (Outcome.GOOD, ("1 packages without a vulnerability",))


def test_a_vulnerability_fails_and_says_what_mends_it() -> None:
    verdict = judge(1, VULNERABLE, "Found 1 known vulnerability in 1 package\n", {}, TODAY)
    assert (verdict.outcome, verdict.lines) == (Outcome.FAILED, (LINE,))


def test_a_vulnerability_of_two_lock_files_is_told_once() -> None:
    twice = json.loads(VULNERABLE)
    twice["dependencies"] *= 2
    assert judge(1, json.dumps(twice), "", {}, TODAY).lines == (LINE,)


@pytest.mark.parametrize(("status", "output", "complaints"), [(1, "", REFUSED), (1, "", TIMED_OUT), (0, UNKNOWN, "")])
def test_a_service_that_does_not_answer_is_no_failure_and_no_success(status: int, output: str, complaints: str) -> None:
    verdict = judge(status, output, complaints, {}, TODAY)
    assert verdict.outcome is Outcome.SKIPPED
    assert verdict.lines[0].startswith("SKIPPED: the advisory service does not answer")


def test_one_package_that_the_service_does_not_know_fails() -> None:
    some = json.loads(GOOD)
    some["dependencies"] += json.loads(UNKNOWN)["dependencies"][:1]
    verdict = judge(0, json.dumps(some), "", {}, TODAY)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.lines == ("anyio: the advisory service does not know this package",)


@pytest.mark.parametrize("output", ["", "[]", "null", "{}", '{"dependencies": []}'])
def test_a_run_that_looked_at_nothing_fails(output: str) -> None:
    assert judge(1, output, NO_HASH, {}, TODAY).outcome is Outcome.FAILED
    assert judge(0, output, "", {}, TODAY).outcome is Outcome.FAILED


def test_a_run_that_failed_says_why() -> None:
    verdict = judge(1, "", "WARNING: x\n" + NO_HASH, {}, TODAY)
    assert verdict.lines == (f"pip-audit ended with 1 and no report: {NO_HASH.strip()}",)


@pytest.mark.parametrize("name", ["CVE-2025-43859", "GHSA-vqfr-h8mv-ghfj"])
def test_an_accepted_advisory_counts_until_its_last_day(name: str) -> None:
    assert judge(1, VULNERABLE, "", accepting(TODAY, name=name), TODAY).outcome is Outcome.GOOD
    verdict = judge(1, VULNERABLE, "", accepting(date(2026, 11, 29), name=name), TODAY)
    assert (verdict.outcome, verdict.lines) == (Outcome.FAILED, (f"{LINE} (accepted until 2026-11-29)",))


def test_what_is_accepted_of_one_package_is_not_accepted_of_another() -> None:
    assert judge(1, VULNERABLE, "", accepting(TODAY, package="click"), TODAY).outcome is Outcome.FAILED


def test_an_accepted_advisory_that_is_over_is_told() -> None:
    verdict = judge(0, GOOD, "", accepting(TODAY), TODAY)
    assert verdict.outcome is Outcome.GOOD
    assert verdict.lines[1:] == ("CVE-2025-43859: accepted, but not found any more: remove it",)


def test_an_advisory_orders_no_terminal_about() -> None:
    said = json.loads(VULNERABLE)
    said["dependencies"][0]["vulns"][0]["description"] = "\x1b]0;x\x07bad\nworse"
    assert judge(1, json.dumps(said), "", {}, TODAY).lines == (LINE.rpartition(": ")[0] + ": ?]0;x?bad",)


def test_the_file_of_accepted_advisories_is_as_it_should_be() -> None:
    text = (Path(__file__).parents[3] / "packaging" / ACCEPTED).read_text("utf-8")
    acceptances(text)
    example = "\n".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#   "))
    assert acceptances(example)["CVE-2025-43859"].until == date(2027, 1, 31)


@pytest.mark.parametrize(
    "entry", ['package = "h11"', 'package = "h11"\nreason = ""\nuntil = 2027-01-31', 'package = "h11"\nreason = "x"']
)
def test_an_acceptance_without_reason_or_end_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r'advisories."X": expected '):
        acceptances(f'[advisories."X"]\n{entry}\n')
