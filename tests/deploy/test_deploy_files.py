from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from consilium.cli import explain_failure
from coordinator.settings import CoordinatorSettings
from ledger.errors import AlreadyRunning, StoreUnusable
from node.service.settings import NodeSettings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
UNITS = sorted(p for p in (DEPLOY / "systemd").iterdir() if p.suffix in (".service", ".timer"))
SERVICES = [unit for unit in UNITS if "@" not in unit.name]


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return loaded


def services() -> list[tuple[str, dict[str, Any]]]:
    return list(compose()["services"].items())


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("unit", UNITS, ids=[unit.name for unit in UNITS])
def test_systemd_accepts_a_unit(unit: Path, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    # The program is not installed here; everything else of the unit is judged as it stands.
    text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
    text = re.sub(r"^Documentation=.*$", "", text, flags=re.MULTILINE)
    copy = tmp_path / unit.name
    copy.write_text(text)
    done = subprocess.run(
        [tool, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, [])


@pytest.mark.parametrize("unit", SERVICES, ids=[unit.stem for unit in SERVICES])
def test_a_unit_gets_its_passphrase_as_a_credential_and_gains_no_privilege(unit: Path) -> None:
    lines = unit.read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("LoadCredential=passphrase:/etc/consilium/") for line in lines)
    assert "NoNewPrivileges=yes" in lines
    assert "ProtectSystem=strict" in lines
    assert "CapabilityBoundingSet=" in lines
    assert not any("PASSPHRASE" in line or "--passphrase" in line for line in lines)
    user = next(line.removeprefix("User=") for line in lines if line.startswith("User="))
    assert f"u {user} " in (DEPLOY / "systemd" / "consilium.sysusers").read_text(encoding="utf-8")


@pytest.mark.parametrize("unit", SERVICES, ids=[unit.stem for unit in SERVICES])
def test_a_service_comes_back_however_long_its_surroundings_were_away(unit: Path) -> None:
    lines = unit.read_text(encoding="utf-8").splitlines()
    assert {"Restart=on-failure", "StartLimitIntervalSec=0"} <= set(lines)
    # What can pass by itself must not end with the one code that is not tried again.
    assert "RestartPreventExitStatus=2" in lines
    passing = (StoreUnusable("db", "refused"), AlreadyRunning("db", "its writer"))
    assert {explain_failure(error)[0] for error in passing} == {1}


def test_caddy_accepts_its_file() -> None:
    tool = shutil.which("caddy")
    if tool is None:
        pytest.skip("caddy is not installed")
    file = str(DEPLOY / "proxy" / "Caddyfile")
    command = [tool, "validate", "--adapter", "caddyfile", "--config", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_reference_of_the_compose_file_is_defined_and_used() -> None:
    whole = compose()
    used: dict[str, set[str]] = {"secrets": set(), "volumes": set(), "networks": set()}
    for _, service in services():
        used["networks"] |= set(service.get("networks", []))
        for secret in service.get("secrets", []):
            used["secrets"].add(secret if isinstance(secret, str) else secret["source"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                used["volumes"].add(source)
        assert set(service.get("depends_on", {})) <= set(whole["services"])
    assert used == {kind: set(whole[kind]) for kind in used}


def test_every_service_is_hardened_and_says_whether_it_is_healthy() -> None:
    for name, service in services():
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["healthcheck"]["test"], name
        assert service["cap_drop"] == ["ALL"], name
        # PostgreSQL's image changes its user itself.
        assert ("cap_add" in service) == (name == "db"), name
        assert service["logging"]["options"]["max-size"], name


def test_only_the_coordinator_publishes_a_port_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in services() if "ports" in service}
    assert published == {"coordinator": ["127.0.0.1:8460:8460"]}
    assert compose()["networks"]["inside"] == {"internal": True}


def test_no_secret_stands_in_the_compose_file() -> None:
    for name, service in services():
        for variable, value in service.get("environment", {}).items():
            secret = "PASS" in variable.upper() or "SECRET" in variable.upper()
            assert not secret or str(value).startswith("/run/secrets/"), f"{name}: {variable}"
    ignored = (DEPLOY / ".gitignore").read_text(encoding="utf-8").split()
    assert {"/secrets/", "/invitations/", "/data/"} <= set(ignored)


def test_environment_variables_of_the_compose_file_are_settings() -> None:
    known = {f"CONSILIUM_NODE_{name}".upper() for name in NodeSettings.model_fields}
    known |= {f"CONSILIUM_COORDINATOR_{name}".upper() for name in CoordinatorSettings.model_fields}
    known |= {"CONSILIUM_PASSPHRASE_FILE"}
    for name, service in services():
        ours = {v for v in service.get("environment", {}) if v.startswith("CONSILIUM_")}
        assert ours <= known, name


def test_the_images_are_built_from_stages_and_files_that_exist() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", dockerfile(), re.MULTILINE))
    targets = {s["build"]["target"] for _, s in services() if "build" in s}
    assert targets <= stages
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert f"!{source}" in kept, source


def test_the_images_are_built_from_all_that_the_package_is_made_of() -> None:
    made = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = made["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = " ".join(re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE)).split()
    assert {*wheel["packages"], *wheel["force-include"]} <= set(copied)


def test_the_images_run_as_a_user_without_rights_and_hold_no_secret() -> None:
    text = dockerfile()
    last = text[text.index("AS runtime") :]
    assert "USER 10001:10001" in last
    assert "ENTRYPOINT" in last
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert not re.search(r"^(?:ENV|ARG) .*(?:PASS|SECRET|KEY)", text, re.MULTILINE)


def test_the_coordinator_s_image_has_no_torch() -> None:
    text = dockerfile()
    assert "COPY --from=build /opt" in text[text.index("AS coordinator") :]
    built = text[text.index("AS build\n") : text.index("AS build-node")]
    assert "[train]" not in built
    pinned = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"^torch==", pinned, re.MULTILINE)) == 1
