"""A captive portal answers in the place of a page.

Only the page of the file is asked for (`health.http_url`): doctor sends to nobody that the administrator has not named.
"""

from __future__ import annotations

from collections.abc import Iterator

from polywan.api.doctor import Finding, Fix
from polywan.doctor.box import Box
from polywan.doctor.facts.line import PageAnswer


def check(box: Box) -> Iterator[Finding]:
    """Find lines by which another answers than by the rest, or one that says that it is a portal."""
    for page in box.line.pages:
        if not page.wrong:
            continue
        alike = [
            other for other in box.line.pages if other.url == page.url and other.egress.family is page.egress.family
        ]
        elsewhere = [other for other in alike if other.ok and other.egress.device != page.egress.device]
        if elsewhere:
            yield _finding(page, f"by {elsewhere[0].egress.device}: {elsewhere[0].detail}")
        elif "captive portal" in page.detail:
            yield _finding(page, "")


def _finding(page: PageAnswer, elsewhere: str) -> Finding:
    egress = page.egress
    shown = f"{page.url} by {egress.device} (IPv{egress.family})"
    how = f"log in with a browser on {egress.device}, and see what answers: curl --head --interface {egress.device} "
    how += page.url
    if not elsewhere:
        how += "; if the page itself has changed, correct `health.http_url` or `health.http_status`"
    return Finding(
        check="captive-portal",
        severity="fault" if elsewhere else "warning",
        what=f"{'a' if elsewhere else 'probably a'} captive portal answers by {egress.device} instead of {page.url}",
        evidence=(f"{shown}: {page.detail}", *filter(None, [elsewhere])),
        consequence=f"until you log in there, connections by {egress.device} end at the portal: pages show a "
        "login or a certificate error, and other programs fail",
        fix=Fix(how=how),
    )
