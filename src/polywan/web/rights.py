"""What the process reads and is before it serves: the certificate, and another user than root."""

from __future__ import annotations

import os
import pwd
import ssl

from polywan.core.errors import NotPermitted, PolywanError
from polywan.web.settings import Settings

WEB_USER = "polywan-web"


def context(settings: Settings) -> ssl.SSLContext | None:
    """Return what encrypts connections; None without a certificate.

    Raises:
        NotPermitted: this user may not read it.
        PolywanError: it cannot be used.
    """
    if settings.tls is None:
        return None
    cert, key = settings.tls
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without an answer to it, OpenSSL asks for the password of a key on the terminal.
        found.load_cert_chain(cert, key, password=lambda: "")
    except PermissionError as error:
        raise NotPermitted(f"cannot read {cert} and {key}: permission denied for this user") from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PolywanError(
            f"cannot use the certificate {cert} with the key {key}: {why.lower()}; expected PEM, without a password"
        ) from error
    return found


def page_account() -> pwd.struct_passwd | None:
    """Return the user that the package makes for the page, None without one."""
    try:
        return pwd.getpwnam(WEB_USER)
    except KeyError:
        return None


def leave_root() -> None:
    """Become the page's user, for good, if this process is root.

    Raises:
        NotPermitted: there is no such user, or the kernel refuses.
    """
    if os.geteuid() != 0:
        return
    account = page_account()
    if account is None:
        raise NotPermitted(
            f"the page is not served as root, and there is no user {WEB_USER}: create it "
            f"(`useradd --system --groups polywan {WEB_USER}`), or start it as a user of the group polywan"
        )
    try:
        os.initgroups(WEB_USER, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    except OSError as error:
        raise NotPermitted(f"cannot become the user {WEB_USER}: {(error.strerror or '').lower()}") from error
