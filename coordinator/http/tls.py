"""The coordinator's certificate and key, looked at before anything is served.

What cannot serve is refused with the file and what to do, where the server would end in a traceback or
every member would be turned away: half a pair, a file that is no PEM, a key of another certificate, a
certificate that has expired or does not hold yet, for which this machine's clock may be the reason. A key that others than its owner can read, and a certificate that is about to
expire, are warned of: a container's secrets may have to be like that.
"""

from __future__ import annotations

import logging
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from coordinator.errors import HomeUnusable
from coordinator.settings import CoordinatorSettings

SOON = timedelta(days=21)

_log = logging.getLogger(__name__)


def check_tls(settings: CoordinatorSettings, now: datetime | None = None) -> datetime | None:
    """See that the settings' certificate and key can serve; plain HTTP needs neither.

    Args:
        settings: of the home.
        now: the time, with its zone; by default this machine's.

    Returns:
        When the certificate ends, or None for plain HTTP.

    Raises:
        HomeUnusable: they cannot.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise HomeUnusable(settings.home, "TLS needs both tls_certificate and tls_key")
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except OSError as error:
        raise HomeUnusable(certificate, f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise HomeUnusable(certificate, "it holds no certificate in PEM") from None
    _check_pair(certificate, key)
    # Others in the file may be cross-signed ones that nobody needs any more: members judge by a path that holds.
    begins, ends = chain[0].not_valid_before_utc, chain[0].not_valid_after_utc
    _check_time(certificate, begins, ends, datetime.now(UTC) if now is None else now)
    if stat.S_IMODE(key.stat().st_mode) & 0o077:
        _log.warning("%s: others than its owner have access to the TLS key; run: chmod 600", key)
    return ends


def days_left(ends: datetime | None, now: datetime | None = None) -> int | None:
    """Whole days until a certificate ends, below 0 when it has; None for none."""
    return None if ends is None else (ends - (now or datetime.now(UTC))).days


def _check_pair(certificate: Path, key: Path) -> None:
    def no_passphrase() -> str:
        raise HomeUnusable(key, "it is encrypted, and nobody is there to be asked; decrypt it")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        why = "it is another certificate's" if error.reason == "KEY_VALUES_MISMATCH" else "no PEM"
        raise HomeUnusable(key, f"it is no key for {certificate} ({why})") from None
    except OSError as error:
        raise HomeUnusable(key, f"cannot be read ({error.strerror})") from None


def _check_time(path: Path, begins: datetime, ends: datetime, now: datetime) -> None:
    if begins > now:
        raise HomeUnusable(
            path,
            f"it is valid from {begins:%Y-%m-%d %H:%M} UTC on, and this machine's clock says "
            f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC: set the clock right, or wait",
        )
    if ends < now:
        raise HomeUnusable(path, f"it expired on {ends:%Y-%m-%d}; members refuse it, so renew it")
    if ends < now + SOON:
        _log.warning("%s: the certificate expires on %s; renew it", path, f"{ends:%Y-%m-%d}")
