"""The honest world of every attack, and the table of what became of them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from ledger.formats.value import replace
from tests.adversary.registry import Row, row_of, table
from tests.adversary.ward import Ward
from tests.adversary.world import World
from tests.federation import POLICY

_ROWS = pytest.StashKey[list[Row]]()
_FAILED = pytest.StashKey[bool]()


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    """Four hospitals that witness, a coordinator, a researcher; everybody has followed the log."""
    changed = request.node.get_closest_marker("policy")
    policy = POLICY if changed is None else replace(POLICY, **changed.kwargs)
    made = World(tmp_path, policy=policy)
    yield made
    made.close()
    mark = request.node.get_closest_marker("attack")
    if mark is not None and not request.node.stash.get(_FAILED, True):
        request.config.stash.setdefault(_ROWS, []).append(row_of(mark, made.exposures))


@pytest.fixture
def ward(world: World) -> Ward:
    return Ward(world)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "attack(name, exposed_by, evidence): see registry.py")
    config.addinivalue_line("markers", "policy(**fields): the world's policy, where it is another")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = not report.passed
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_ROWS, [])
    if not config.getoption("--attack-table") or not rows:
        return
    terminalreporter.section(f"{len(rows)} attacks")
    for line in table(rows):
        terminalreporter.write_line(line)
