"""Settings of the command line: a flag, else the environment, else a file, else the default.

The file is ``consilium.toml`` in the current directory, or the one that ``CONSILIUM_CONFIG`` names;
environment variables are ``CONSILIUM_HOME``, ``CONSILIUM_PASSPHRASE_FILE`` and so on; an empty one is
none. Secrets are never settings: a passphrase is named by its file (``passphrase.py``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from consilium.errors import InputError
from ledger.formats.documents import explain

DEFAULT_FILE = "consilium.toml"
DEFAULT_HOME = Path("~/.consilium")


class Settings(BaseSettings):
    """What a person may set once instead of giving it with every command.

    Attributes:
        home: the member's home, or a directory that holds several (``homes.py``).
        passphrase_file: a file with the passphrase of its keys.
        key_strength: how dear each guess of a passphrase is made when keys are created.
    """

    model_config = SettingsConfigDict(
        env_prefix="CONSILIUM_", env_ignore_empty=True, frozen=True, extra="forbid"
    )

    home: Path = DEFAULT_HOME
    passphrase_file: Path | None = None
    key_strength: Literal["interactive", "moderate", "sensitive"] = "moderate"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags before the environment before the file."""
        file = Path(os.environ.get("CONSILIUM_CONFIG") or DEFAULT_FILE)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)


def load_settings(**flags: object) -> Settings:
    """The settings in force; flags that are None were not given.

    Raises:
        InputError: the file or a variable is not valid; says which field.
    """
    named = os.environ.get("CONSILIUM_CONFIG") or None
    if named is not None and not Path(named).exists():
        raise InputError(f"CONSILIUM_CONFIG names {named}, which is not there")
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise InputError(f"settings: {explain(error)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"settings file {named or DEFAULT_FILE}: {error}") from None
    try:
        home = settings.home.expanduser()
    except RuntimeError:
        raise InputError(f"settings: home: {settings.home} is nobody's home directory") from None
    return settings.model_copy(update={"home": home})
