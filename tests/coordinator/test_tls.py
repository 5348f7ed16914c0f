"""A certificate that cannot serve is refused with its file before anything is served."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from consilium.commands.status import coordinator_status
from coordinator.errors import HomeUnusable
from coordinator.http.tls import check_tls, days_left
from coordinator.settings import CoordinatorSettings
from tests.coordinator.serving import Serving
from tests.federation import Federation
from tests.patience import PATIENCE_S

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def pair(
    folder: Path, name: str = "tls", days: int = 90, secret: bytes = b"", since_days: float = 100
) -> tuple[Path, Path]:
    """A certificate and its key on disk."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator.example.org")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=since_days))
        .not_valid_after(NOW + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    sealing = (
        serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealing)
    )
    paths[1].chmod(0o600)
    return paths


def check(folder: Path, certificate: Path | None, key: Path | None) -> datetime | None:
    return check_tls(
        CoordinatorSettings(
            federation="0" * 64, home=folder, tls_certificate=certificate, tls_key=key
        ),
        NOW,
    )


def test_a_pair_that_serves_and_plain_http_are_let_through(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert check(tmp_path, *pair(tmp_path)) == NOW + timedelta(days=90)
    assert check(tmp_path, None, None) is None
    assert not caplog.records


def test_half_a_pair_another_key_and_what_is_no_pem_are_named(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path)
    _, other = pair(tmp_path, "other")
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"junk")
    for given, where, why in (
        ((certificate, None), tmp_path, "TLS needs both"),
        ((certificate, other), other, "it is another certificate's"),
        ((certificate, junk), junk, "no PEM"),
        ((junk, key), junk, "no certificate in PEM"),
        ((tmp_path / "nowhere", key), tmp_path / "nowhere", "cannot be read"),
        ((certificate, tmp_path / "nowhere"), tmp_path / "nowhere", "cannot be read"),
    ):
        with pytest.raises(HomeUnusable, match=why) as refused:
            check(tmp_path, *given)
        assert refused.value.path == where


def test_a_sealed_key_and_an_expired_certificate_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HomeUnusable, match="it is encrypted"):
        check(tmp_path, *pair(tmp_path, "sealed", secret=b"correct horse"))
    with pytest.raises(HomeUnusable, match="it expired on 2026-05-31; members refuse it"):
        check(tmp_path, *pair(tmp_path, "old", days=-1))


def test_an_open_key_and_a_certificate_that_is_about_to_expire_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificate, key = pair(tmp_path, days=20)
    key.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        check(tmp_path, certificate, key)
    assert [record.getMessage() for record in caplog.records] == [
        f"{certificate}: the certificate expires on 2026-06-21; renew it",
        f"{key}: others than its owner have access to the TLS key; run: chmod 600",
    ]


def test_a_certificate_that_does_not_hold_yet_is_refused_with_what_the_clock_says(
    tmp_path: Path,
) -> None:
    with pytest.raises(HomeUnusable, match="it is valid from 2026-06-01 06:00 UTC on") as refused:
        check(tmp_path, *pair(tmp_path, since_days=-0.25))
    assert "this machine's clock says 2026-06-01 00:00 UTC" in refused.value.reason
    assert "set the clock right" in refused.value.reason


def test_the_days_that_are_left_are_in_health_metrics_and_status(tmp_path: Path) -> None:
    assert days_left(NOW + timedelta(days=3, hours=5), NOW) == 3
    assert days_left(NOW - timedelta(hours=1), NOW) == -1
    assert days_left(None) is None
    ends = datetime.now(UTC) + timedelta(days=12, hours=1)
    with Serving(Federation.found(("basel",)), tmp_path, certificate_ends=ends) as serving:
        assert (
            httpx.get(serving.url + "/readyz", timeout=PATIENCE_S).json()["certificate_days"] == 12
        )
        assert (
            "\nconsilium_certificate_days 12\n"
            in httpx.get(serving.url + "/metrics", timeout=PATIENCE_S).text
        )
        assert coordinator_status(serving.url)["certificate"] == "12 days left"
