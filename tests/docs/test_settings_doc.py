from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from coordinator.settings import CoordinatorSettings
from node.service.local_api import WITNESS
from node.service.settings import NodeSettings
from tests.docs import pages

SETTINGS: dict[str, type[BaseSettings]] = {
    "docs/hospital-it.md": NodeSettings,
    "docs/coordinator.md": CoordinatorSettings,
}


@pytest.mark.parametrize("page", SETTINGS)
def test_every_setting_is_documented_with_its_default_and_no_other(page: str) -> None:
    documented = {row[0]: row[1] for row in pages.rows(pages.section(page, "Settings"))}
    expected = {}
    for name, info in SETTINGS[page].model_fields.items():
        default = None if info.is_required() else info.default
        expected[name] = "none" if default is None else f"`{str(default).lower()}`"
    assert documented == expected


@pytest.mark.parametrize(
    ("page", "module"),
    [
        ("docs/hospital-it.md", "node/service/status.py"),
        ("docs/coordinator.md", "coordinator/http/metrics.py"),
    ],
)
def test_every_metric_is_documented_and_no_other(page: str, module: str) -> None:
    documented = {row[0] for row in pages.rows(pages.read(page)) if row[0].startswith("consilium_")}
    source = Path(pages.REPOSITORY / module).read_text(encoding="utf-8")
    rendered = set(re.findall(r"consilium_[a-z_]+[a-z]", source))
    if "consilium_node_cell_epsilon" in rendered:  # the rest of the name is put on while rendering
        rendered.remove("consilium_node_cell_epsilon")
        rendered |= {f"consilium_node_cell_epsilon_{name}" for name in ("promised", "spent")}
    assert documented == rendered


def test_every_path_of_the_local_service_is_documented_and_no_other() -> None:
    text = pages.section("docs/hospital-it.md", "Watch it")
    documented = {row[0] for row in pages.rows(text) if row[0].startswith(("GET ", "POST "))}
    source = pages.read("node/service/local_api.py")
    served = {
        f"{method.upper()} {path}"
        for method, path in re.findall(r'@app\.(get|post)\("([^"]+)"', source)
    }
    # The witness's routes are added below a prefix; f-strings spell a brace twice.
    witness = pages.read("ledger/exchange/witness_http.py")
    served |= {
        f"{method.upper()} {WITNESS}{path.replace('{{', '{').replace('}}', '}')}"
        for method, path in re.findall(r'@app\.(get|post)\(f"{prefix}([^"]+)"', witness)
    }
    assert documented == served
