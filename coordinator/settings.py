"""A coordinator's settings: flags over environment over file over defaults.

The file is ``coordinator.toml`` or ``coordinator.json`` in the home (``found.py`` writes the latter);
the environment's names begin with ``CONSILIUM_COORDINATOR_``. Unknown names are refused. No secret is
a setting: the passphrase comes from elsewhere, a database password from PostgreSQL's own files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    JsonConfigSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from coordinator.errors import HomeUnusable
from coordinator.http.uploads import UploadLimits
from coordinator.sequencing.quota import Quota
from ledger.copies.blobs import MAX_BLOB
from ledger.entries.operations.values import Hash
from ledger.formats.documents import explain

TOML = "coordinator.toml"
JSON = "coordinator.json"
KEYRING = "keyring.json"
LEDGER = "ledger.db"
BLOBS = "blobs"
GENESIS = "genesis.leaf"
HEAD = "head.note"
REFILL = "refill.json"
UPLOADS = "uploads.log"


class CoordinatorSettings(BaseSettings):
    """Where a coordinator lives, listens and how much it takes.

    Attributes:
        federation: the id of the federation that the home was made for.
        home: directory with keys, blobs and, by default, the database.
        database: URL of the log's database; by default ``ledger.db`` in the home.
        host, port: where to listen; port 0 takes a free one.
        tls_certificate, tls_key: PEM files; without them plain HTTP, for loopback or behind a proxy.
        quota_per_s, quota_burst: entries that one member may add.
        blob_limit: bytes of the largest blob.
        unnamed_limit: bytes that one member may bring before entries name them.
        daily_limit: bytes that one member may bring a day.
        keep_free: bytes of the disk that uploads leave to the log.
        final_interval_s: seconds between final checkpoints that nobody waits for.
        merge_delay_s: seconds within which a receipt promises an entry under a checkpoint.
        upload_days: days after which an unfinished upload is dropped.
    """

    model_config = SettingsConfigDict(
        env_prefix="CONSILIUM_COORDINATOR_", extra="forbid", frozen=True
    )

    federation: Hash
    home: Path
    database: str | None = None
    host: str = "127.0.0.1"
    port: int = Field(8460, ge=0, le=65535)
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    quota_per_s: float = Field(50.0, gt=0)
    quota_burst: float = Field(1000.0, ge=1)
    blob_limit: int = Field(MAX_BLOB, ge=1024, le=MAX_BLOB)
    unnamed_limit: int = Field(4 * 2**30, ge=1024)
    daily_limit: int = Field(256 * 2**30, ge=1024)
    keep_free: int = Field(2**30, ge=0)
    final_interval_s: float = Field(0.5, ge=0)
    merge_delay_s: float = Field(60.0, ge=1, le=3000)
    upload_days: float = Field(7.0, gt=0)

    @property
    def database_url(self) -> str:
        """The log's database."""
        return self.database or f"sqlite:///{(self.home / LEDGER).resolve()}"

    @property
    def quota(self) -> Quota:
        """What each member may add."""
        return Quota(self.quota_per_s, self.quota_burst)

    @property
    def upload_limits(self) -> UploadLimits:
        """What each member may bring."""
        return UploadLimits(self.unnamed_limit, self.daily_limit, self.keep_free)


def load_settings(home: Path, **flags: Any) -> CoordinatorSettings:
    """Read the settings of a home.

    Args:
        home: the coordinator's directory.
        flags: settings given on the command line; None means not given.

    Raises:
        HomeUnusable: no home, or a setting that cannot be; says which.
    """
    toml, json = home / TOML, home / JSON
    if not (toml.is_file() or json.is_file()):
        raise HomeUnusable(
            home, f"it is no coordinator's home (no {JSON}); make one: consilium federation create"
        )

    class FromHome(CoordinatorSettings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                init_settings,
                env_settings,
                TomlConfigSettingsSource(settings_cls, toml_file=toml),
                JsonConfigSettingsSource(settings_cls, json_file=json),
            )

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return FromHome(home=home, **given)
    except ValidationError as error:
        raise HomeUnusable(home, f"a setting cannot be: {explain(error)}") from None
    except TypeError:  # JSON, but no object: the library that reads it expects one
        raise HomeUnusable(home, f"{JSON} must be a mapping of settings") from None
    except (ValueError, RecursionError) as error:
        raise HomeUnusable(home, f"its settings file cannot be read: {error}") from None
