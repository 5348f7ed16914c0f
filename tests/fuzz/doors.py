"""Parsers at the doors: files of a home, settings, frames, command-line words."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from nacl import pwhash

from consilium.actions.dataset.purposes import read_parts
from consilium.actions.files import read_file
from consilium.actions.member.joining import parse_seats
from consilium.commands.dates import parse_time_ms
from consilium.errors import InputError
from consilium.passphrase import read_passphrase
from consilium.settings import load_settings as load_command_settings
from coordinator.errors import HomeUnusable
from coordinator.sequencing.history import History
from coordinator.sequencing.history_bytes import decode_history, encode_history
from coordinator.settings import load_settings as load_coordinator_settings
from ledger.entries.author import Author
from ledger.entries.invitation import InvitationFile, load_invitation
from ledger.entries.operations.federation import Seat
from ledger.entries.rekey_request import RekeyRequest, load_request
from ledger.errors import BadSignature, CannotOpen, KeyFileError, MalformedInput, StoreUnusable
from ledger.exchange.home import MEMBER, MemberConfig, MemberHome
from ledger.formats import key_file
from ledger.formats.key_file import load_keyring, save_keyring
from ledger.formats.keys import SealingKey, seal
from ledger.formats.strict import canonical, encode_b64, parse_canonical
from ledger.rules.log import Log
from node.data.hospital_key import KEY_FILE, load_hospital_key
from node.errors import JobRefused, ServiceError, WorkerMisbehaved
from node.service.settings import SETTINGS_FILE
from node.service.settings import load_settings as load_node_settings
from node.training.process.frames import (
    Failed,
    Intent,
    Ready,
    Result,
    Round,
    failure_frame,
    failure_of,
    read_frame,
    write_frame,
)
from privacy.errors import MaskingRefused
from privacy.masking.member import Secrets
from tests.federation import node_of, one_time_key, ring_of, steward_of
from tests.fuzz import samples
from tests.fuzz.log_formats import text
from tests.fuzz.parser import Parser

_HANDLE = steward_of("basel")


# --- files of a home ----------------------------------------------------------------------------


def _invitation() -> bytes:
    made = samples.federation()
    return canonical(
        InvitationFile(
            consilium=1,
            federation=made.id,
            url="https://hub.example:8460",
            ca=None,
            genesis=encode_b64(made.leaves[0]),
            organisation="basel",
            seats=(Seat(handle=node_of("basel"), role="node"),),
            secret=encode_b64(one_time_key("basel").seed),
        )
    )


def _rekey() -> RekeyRequest:
    return RekeyRequest.of(samples.federation().id, ring_of(node_of("basel"), "node"))


def _history() -> bytes:
    """What a coordinator keeps beside the state of the sample log."""
    history, log = History(), Log()
    for leaf in samples.federation().leaves:
        history.observe(log.append(log.judge(leaf)))
    return encode_history(history.facts)


def _same(one: object, other: object) -> None:
    if one != other:
        raise AssertionError(f"{other!r} does not read back")


def _config() -> bytes:
    return canonical(
        MemberConfig(
            consilium=1,
            federation=samples.federation().id,
            url="https://hub.example:8460",
            handle=node_of("basel"),
            role="node",
            organisation="basel",
        )
    )


def _load_config(data: bytes) -> MemberConfig:
    home = samples.FOLDER / "home"
    home.mkdir(exist_ok=True)
    (home / MEMBER).write_bytes(data)
    return MemberHome(home).config


@cache
def _key_files() -> list[bytes]:
    """A key file whose passphrase costs as little as libsodium lets it."""
    path = samples.FOLDER / "keyring.json"
    dear = key_file._STRENGTHS["interactive"]
    key_file._STRENGTHS["interactive"] = (1, pwhash.argon2id.MEMLIMIT_MIN)
    try:
        save_keyring(path, samples.federation().rings[_HANDLE], b"word", strength="interactive")
    finally:
        key_file._STRENGTHS["interactive"] = dear
    return [path.read_bytes()]


def _hospital_key() -> list[bytes]:
    return [seal(_sealing().public, bytes(32))]


def _sealing() -> SealingKey:
    return SealingKey.from_seed(bytes(range(32)))


def _load_hospital_key(data: bytes) -> bytes:
    samples.in_file(KEY_FILE, data)
    return load_hospital_key(samples.FOLDER, _sealing())


def _pen(data: bytes) -> bytes:
    path = samples.in_file("last-entry.leaf", data)
    author = Author(samples.federation().rings[_HANDLE], None, lambda _: None, path)  # type: ignore[arg-type, return-value]
    author.close()
    assert author._last is not None
    return author._last.leaf


def _settings(file: str, load: Callable[[Path], object]) -> Callable[[bytes], object]:
    def parse(data: bytes) -> object:
        home = samples.FOLDER / f"settings-{file}"
        home.mkdir(exist_ok=True)
        (home / file).write_bytes(data)
        return load(home)

    return parse


def _command_settings(home: Path) -> object:
    before = os.environ.get("CONSILIUM_CONFIG")
    os.environ["CONSILIUM_CONFIG"] = str(home / "consilium.toml")
    try:
        return load_command_settings()
    finally:
        os.environ.pop("CONSILIUM_CONFIG")
        if before is not None:
            os.environ["CONSILIUM_CONFIG"] = before


# --- frames -------------------------------------------------------------------------------------


def _frames() -> list[bytes]:
    made = Round(kind="train", round=3, sha256="0" * 64)
    return [
        write_frame(Ready(production=True)),
        write_frame(Intent(purpose="train", steps=3)),
        write_frame(made, (b"spec", b"", b"model")),
        write_frame(Result(production=False), (b"update",)),
        failure_frame(JobRefused("spec and plan do not fit")),
    ]


def _read_frame(data: bytes) -> Any:
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        if count > len(data) - at:
            raise WorkerMisbehaved("it ended within a frame")
        at += count
        return data[at - count : at]

    header, parts = read_frame(read)
    if at != len(data):
        raise WorkerMisbehaved("bytes after a frame")
    if isinstance(header, Failed):
        failure_of(header, parts)
    return header, parts


def _secrets() -> Secrets:
    context, *rest = (bytes([number]) * 32 for number in range(1, 8))
    return Secrets(context, "basel-node", *rest)


def _toml(plain: str) -> Callable[[], list[bytes]]:
    return lambda: [plain.encode()]


_WITHOUT_SETTINGS = "settings are read, never written"

PARSERS: tuple[Parser, ...] = (
    Parser(
        "invitation", ("ledger.entries.invitation.load_invitation",), lambda: [_invitation()],
        lambda data: load_invitation(samples.in_file("x.invitation", data)), (MalformedInput,),
        canonical,
    ),
    Parser(
        "rekey-request", ("ledger.entries.rekey_request.load_request",),
        lambda: [canonical(_rekey()) + b"\n"],
        lambda data: load_request(samples.in_file("request", data), samples.federation().id),
        (MalformedInput, BadSignature), without="its last line feed is free",
        fixpoint=lambda request: _same(parse_canonical(canonical(request), RekeyRequest), request),
    ),
    Parser(
        "history", ("coordinator.sequencing.history_bytes.decode_history",), lambda: [_history()],
        decode_history, (MalformedInput,), without="its writer is known by a MAC over it",
        fixpoint=lambda facts: _same(decode_history(encode_history(facts)), facts),
    ),
    Parser("member-config", (), lambda: [_config()], _load_config, (MalformedInput,), canonical),
    Parser(
        "key-file", ("ledger.formats.key_file.load_keyring",), _key_files,
        lambda data: load_keyring(samples.in_file("keys", data), b"word"), (KeyFileError,),
        without="sealed with a fresh salt and nonce each time", weight=10,
    ),
    Parser(
        "sealed-box", ("ledger.formats.keys.SealingKey.open",), _hospital_key,
        lambda data: _sealing().open(data), (CannotOpen,), without="sealed with a fresh key",
    ),
    Parser(
        "hospital-key", ("node.data.hospital_key.load_hospital_key",), _hospital_key,
        _load_hospital_key, (ServiceError,), without="sealed with a fresh key",
    ),
    Parser(
        "pen", (), lambda: samples.leaves()[:3], _pen, (StoreUnusable,), lambda leaf: leaf,
    ),
    Parser(
        "coordinator-settings", ("coordinator.settings.load_settings",),
        lambda: [canonical({"federation": "0" * 64, "port": 8460, "host": "::1"})],
        _settings("coordinator.json", load_coordinator_settings), (HomeUnusable,),
        without=_WITHOUT_SETTINGS, weight=10,
    ),
    Parser(
        "coordinator-settings-toml", (),
        _toml('federation = "' + "0" * 64 + '"\nquota_per_s = 3.5\nhome = "x"\n'),
        _settings("coordinator.toml", load_coordinator_settings), (HomeUnusable,),
        without=_WITHOUT_SETTINGS, weight=10,
    ),
    Parser(
        "node-settings", ("node.service.settings.load_settings",),
        _toml('listen = "127.0.0.1:8470"\nepsilon_max = "2.5"\nhours_from = 8\nround_limit_s = 3.0\n'),
        _settings(SETTINGS_FILE, load_node_settings), (ServiceError,), without=_WITHOUT_SETTINGS,
        weight=10,
    ),
    Parser(
        "purpose-parts", ("consilium.actions.dataset.purposes.read_parts",),
        lambda: [b"research=2.5", b"research=2 public_health=0.1"],
        lambda data: read_parts(data.decode("utf-8", "surrogateescape").split()), (InputError,),
        without="numbers may be written in several ways",
    ),
    Parser(
        "command-settings", ("consilium.settings.load_settings",),
        _toml('home = "~/here"\nkey_strength = "interactive"\n'),
        _settings("consilium.toml", _command_settings), (InputError,), without=_WITHOUT_SETTINGS,
        weight=10,
    ),
    Parser(
        "frame", ("node.training.process.frames.read_frame",), _frames, _read_frame, (WorkerMisbehaved,),
        lambda read: write_frame(read[0], read[1]),
    ),
    Parser(
        "passphrase-file", ("consilium.passphrase.read_passphrase",), lambda: [b"a word\n"],
        lambda data: read_passphrase(samples.in_file("word", data), of="keys"), (InputError,),
        without="its first line is the value",
    ),
    Parser(
        "date", ("consilium.commands.dates.parse_time_ms",),
        lambda: [b"2026-01-01", b"2026-01-01T12:30:00+01:00", b"2026-01-01T12:30:00Z"],
        lambda data: parse_time_ms(text(data)), (InputError,), without="ISO 8601 has many spellings",
    ),
    Parser(
        "seats", ("consilium.actions.member.joining.parse_seats",), lambda: [b"ada=researcher"],
        lambda data: parse_seats("basel", (text(data),)), (InputError,),
        lambda seats: "".join(f"{s.handle}={s.role}" for s in seats).encode(),
    ),
    Parser(
        "limited-file", ("consilium.actions.files.read_file",), lambda: [b"a file"],
        lambda data: read_file(samples.in_file("file", data), 1000), (InputError,), lambda data: data,
    ),
    Parser(
        "masking-secrets", ("privacy.masking.member.Secrets.decode",),
        lambda: [_secrets().encode()],
        Secrets.decode, (MaskingRefused,), lambda secrets: secrets.encode(),
    ),
)  # fmt: skip
