"""Cells by calendar year and statistics, over real processes: registered, learned from, described."""

from __future__ import annotations

import time
from pathlib import Path

import yaml

from tests.journeys.federation import SCHEMA, RealFederation

HOSPITALS = ("alpha", "beta")


def with_patients(real: RealFederation, hospital: str) -> tuple[Path, Path]:
    table, schema = real.write_table(hospital)
    head, *rows = table.read_text().splitlines()
    lines = [f"who,{head}", *(f"{hospital}{at},{row}" for at, row in enumerate(rows))]
    table.write_text("\n".join(lines) + "\n")
    columns = [{"name": "who", "type": "patient_id"}, *SCHEMA["columns"]]  # type: ignore[misc]
    document = SCHEMA | {"dataset": f"{hospital}-ward", "columns": columns}
    schema.write_text(yaml.safe_dump(document))
    return table, schema


def test_a_federation_learns_from_calendar_blocks_and_describes_a_dataset(tmp_path: Path) -> None:
    real = RealFederation(tmp_path / "run", HOSPITALS)
    with real.services:
        real.found()
        real.start_coordinator()
        registered = {}
        for name in HOSPITALS:
            real.run("member", "join", f"coordinator/invitations/{name}.invitation",
                     f"--home={name}")  # fmt: skip
            table, schema = with_patients(real, name)
            registered[name] = real.run(
                "dataset", "register", f"--data={table}", f"--schema={schema}", "--epsilon=8",
                "--blocks=year", f"--home={name}", "--json",
            ).json  # fmt: skip
        cells = registered["alpha"]["cells"]
        block = cells[0].split("-")[1]
        assert cells == [f"alpha-{block}-test", f"alpha-{block}-train"]
        assert registered["alpha"]["left_out"] == 0

        nodes = {name: real.start_node(name) for name in HOSPITALS}
        real.join_researcher()
        real.propose(rounds=2, quorum=2, blocks=[block])
        for name in HOSPITALS:
            real.approve(name)
        real.run(
            "dataset", "describe", "alpha-ward", "--epsilon=1", "--yes", "--bins=6", "--home=alpha"
        )
        deadline = time.monotonic() + 240
        while real.show()["status"] != "released":
            assert time.monotonic() < deadline, real.show()
            time.sleep(0.5)

        real.kill(nodes["alpha"])
        real.run("dataset", "describe", "alpha-ward", "--answer", "--home=alpha")
        told = real.run("dataset", "describe", "alpha-ward", "--home=researcher", "--json",
                        "--html=alpha.html").json  # fmt: skip
        columns = {column["column"]: column for column in told[0]["columns"]}
        assert list(columns) == ["age", "pressure", "sex", "ill"]
        assert len(columns["age"]["counts"]) == 7
        assert "<svg" in (real.folder / "alpha.html").read_text()
        budget = {row["cell"]: row for row in real.run(
            "dataset", "budget", "alpha-ward", "--home=researcher", "--json").json["cells"]}  # fmt: skip
        assert all(name in budget for name in cells)
        real.run("audit", "verify", "coordinator")
