"""Settings of the node service: file, environment, flags, in rising order of rank.

File: ``node.toml`` in the member's home. Environment: ``CONSILIUM_NODE_<NAME>``. Flags are given by
the command line as keyword arguments. Secrets are no settings: the passphrase comes from a prompt, a
file or a credential.
"""

from __future__ import annotations

import ipaddress
import os
from contextvars import ContextVar
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from ledger.formats.documents import explain
from node.errors import ServiceError

SETTINGS_FILE = "node.toml"
TEST_FEDERATION = "CONSILIUM_TEST_FEDERATION"

_FILE: ContextVar[Path | None] = ContextVar("settings file", default=None)

Hour = Annotated[int, Field(ge=0, le=24)]


class NodeSettings(BaseSettings):
    """How a node runs.

    Attributes:
        listen: address of the local API, ``host:port``; port 0 takes a free one.
        allow_remote: let ``listen`` be another address than this machine's own.
        epsilon_max: most epsilon that one experiment may cost a dataset here, or None.
        hours_from, hours_to: local hours of the day in which data may be used; over midnight where
            from is above to; equal for always.
        round_limit_s: after which a training process is killed, or None.
        follow_wait_s: how long the coordinator may hold a request for news.
        cosign_interval_s: least time between cosignatures for which nobody waits.
        reply_slot_s: replies to a round leave at multiples of so many seconds of UTC; 0 for at once.
        promises: the hospital's book of promises, where it is in several federations; absolute.
        training: ``noop`` sends noise alone, in test federations, to measure everything else.
        log_format: ``json`` lines, or ``text`` for people.
    """

    model_config = SettingsConfigDict(
        env_prefix="CONSILIUM_NODE_", extra="forbid", frozen=True, validate_default=True
    )

    listen: str = "127.0.0.1:0"
    allow_remote: bool = False
    epsilon_max: Annotated[Decimal, Field(gt=0, le=1000)] | None = None
    hours_from: Hour = 0
    hours_to: Hour = 0
    round_limit_s: Annotated[float, Field(gt=0)] | None = None
    follow_wait_s: Annotated[float, Field(gt=0, le=30)] = 25.0
    cosign_interval_s: Annotated[float, Field(ge=0, le=60)] = 0.5
    reply_slot_s: Annotated[int, Field(ge=0, le=3600)] = 0
    promises: Path | None = None
    training: Literal["worker", "noop"] = "worker"
    log_format: Literal["json", "text"] = "json"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before environment before file."""
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_FILE.get())
        return (init_settings, env_settings, toml)

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not colon or not host or not port.isdigit() or int(port) > 65_535:
            raise ValueError(f"{value!r} is not host:port")
        return value

    @field_validator("promises")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError(f"{value} is no absolute path: every home must mean the same file")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.allow_remote and not _is_loopback(self.host):
            raise ValueError(
                f"listen {self.listen} is not an address of this machine alone; "
                "set allow_remote to open the status page to a network"
            )
        if self.training == "noop" and os.environ.get(TEST_FEDERATION) != "1":
            raise ValueError(f"training = noop is for test federations ({TEST_FEDERATION}=1)")
        return self

    @property
    def host(self) -> str:
        """Host part of ``listen``."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """Port part of ``listen``."""
        return int(self.listen.rpartition(":")[2])

    def works_at(self, hour: int) -> bool:
        """Whether data may be used in that local hour of the day, 0 .. 23."""
        begin, end = self.hours_from, self.hours_to
        if begin == end:
            return True
        if begin < end:
            return begin <= hour < end
        return hour >= begin or hour < end


def load_settings(home: Path, **flags: object) -> NodeSettings:
    """Read the settings of a node's home.

    Args:
        home: where ``node.toml`` may lie.
        flags: given on the command line; None counts as not given.

    Raises:
        ServiceError: a setting is unknown or out of range, or the file is no TOML; says which.
    """
    token = _FILE.set(home / SETTINGS_FILE)
    try:
        given = {name: value for name, value in flags.items() if value is not None}
        return NodeSettings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ServiceError(f"settings: {explain(error)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ServiceError(f"{home / SETTINGS_FILE} cannot be read: {error}") from None
    finally:
        _FILE.reset(token)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
