"""A whole federation on one machine: founded, trained, verified, reported, in about a minute.

The coordinator and every hospital's node are processes of their own that talk HTTP over loopback. All
else is done by the very commands that people type, in this process to save their start; each is
shown as it runs. What is different from a real federation: one machine, one person who holds all
passphrases (in a file), and key files at the "interactive" strength, whose passphrases are cheaper to
guess. What lies in ``--out`` afterwards::

    coordinator/            home: log, blobs, keys
    <hospital>/node/        home of each node: its own verified copy, its private register
    <hospital>/steward/     home of each steward
    researcher/             home of the researcher
    genesis.leaf            what everybody trusts from the start
    demo.consilium          the ledger as one file
    model.safetensors       the released model
    reports/                data use, budget, contribution, verification: HTML and JSON
    consilium.toml          settings for further commands: CONSILIUM_CONFIG=DIR/consilium.toml
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from consilium.actions.audit.reporting import verified, write_all
from consilium.actions.experiment.watching import show_progress
from consilium.actions.federation.founding import INVITATIONS, SUFFIX
from consilium.actions.speaking import open_member, positive_number
from consilium.client import Client
from consilium.client import Progress as Standing
from consilium.demo.data import DemoData, DemoSite, breast_cancer, demo_spec, heart_disease
from consilium.demo.processes import Service, Services, free_port
from consilium.demo.result import Result, collect, show_result
from consilium.errors import InputError, RunFailed
from consilium.settings import load_settings
from consilium.terminal import note
from ledger.experiment.spec import ExperimentSpec
from ledger.formats.documents import encode_document

COORDINATOR = "coordinator"
RESEARCHER = "researcher"
GENESIS = "genesis.leaf"
BUNDLE = "demo.consilium"
MODEL = "model.safetensors"
REPORTS = "reports"
DEFAULT_OUT = "demo-out"
RUN_TIMEOUT_S = 1800.0
SETTLE_TIMEOUT_S = 60.0


def run_demo(
    *,
    data: Path | None,
    hospitals: int,
    rounds: int,
    epsilon: float,
    out: Path | None,
    keep_running: bool,
    as_json: bool,
    secure_aggregation: bool = False,
) -> Result:
    """Run the demo and show its result.

    Args:
        data: folder with UCI heart disease, or None for simulated hospitals.
        hospitals: how many of the latter.
        rounds: of training.
        epsilon: each hospital's promise to its patients, all of which the experiment may use.
        out: a new or empty folder; by default ``demo-out`` or ``demo-out-2`` and so on,
            or a temporary one with ``as_json``.
        keep_running: leave the services on until Ctrl-C.
        as_json: print one JSON object as the last line of standard output.
        secure_aggregation: mask every vector.

    Raises:
        InputError: the folder is not empty, or the data are not there; nothing was started.
        RunFailed: a step failed; says which.
    """
    began = time.monotonic()
    positive_number(epsilon, "--epsilon")
    given = None if data is None else heart_disease(data)
    folder = _folder(out, as_json)
    found = given or breast_cancer(folder / "data", hospitals)
    spec = demo_spec(found, epsilon=epsilon, rounds=rounds, secure_aggregation=secure_aggregation)
    demo = _Demo(folder, found, spec, epsilon, began)
    with demo.settings(), _stopped_in_order():
        result = demo.run(keep_running=keep_running)
    show_result(result, found)
    if as_json:
        sys.stdout.write(json.dumps(result.as_json()) + "\n")
    if not result.verified:
        raise RunFailed(f"the ledger did not verify: consilium audit verify {folder}")
    return result


@dataclass
class _Demo:
    """One run of the demo."""

    folder: Path
    data: DemoData
    spec: ExperimentSpec
    epsilon: float
    began: float

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """Settings for this process's commands and its services, also left in the folder."""
        passphrase = self.folder / "passphrase"
        passphrase.touch(mode=0o600)
        passphrase.write_text(secrets.token_urlsafe(18) + "\n")
        file = self.folder / "consilium.toml"
        values = {"passphrase_file": str(passphrase), "key_strength": "interactive"}
        lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
        file.write_text("".join(lines))
        variables = {"CONSILIUM_CONFIG": str(file)}
        variables |= {f"CONSILIUM_{name.upper()}": value for name, value in values.items()}
        before = {name: os.environ.get(name) for name in variables}
        os.environ.update(variables)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value

    def run(self, *, keep_running: bool) -> Result:
        """All steps."""
        logs = self.folder / "logs"
        logs.mkdir()
        self._say(f"{self.data.about}; in {self.folder}")
        with Services(logs) as services:
            self._found(services)
            nodes = [self._join(site, services) for site in self.data.sites]
            self._join_researcher()
            experiment = self._propose()
            for service in nodes:
                service.ready()
            self._approve()
            self._train(experiment, services)
            self._wait_for_settlements(experiment, services)
            if keep_running:
                self._keep_running(services)
        return self._audit()

    def _found(self, services: Services) -> None:
        port = free_port()
        home = self._home(COORDINATOR)
        invited = [f"--hospital={site.hospital}" for site in self.data.sites]
        self._do(
            "federation", "create", "demo", "--organisation=operator",
            f"--url=http://127.0.0.1:{port}", *invited, "--researcher=institute=ada",
            f"--home={home}",
        )  # fmt: skip
        genesis = (self.folder / COORDINATOR / GENESIS).read_bytes()
        (self.folder / GENESIS).write_bytes(genesis)
        self._serve(services, COORDINATOR, "coordinator", "run", f"--port={port}", f"--home={home}")
        services.running[-1].ready()

    def _join(self, site: DemoSite, services: Services) -> Service:
        home = self._home(site.hospital)
        self._do("member", "join", self._invitation(site.hospital), f"--home={home}")
        schema = self._document(f"{site.schema.dataset}.json", encode_document(site.schema))
        card = self._document(f"{site.schema.dataset}-card.json", encode_document(site.card))
        self._do(
            "dataset", "register", f"--data={site.data}", f"--schema={schema}",
            f"--card={card}", f"--epsilon={self.epsilon:g}", f"--home={home}",
        )  # fmt: skip
        return self._serve(services, site.hospital, "node", "run", f"--home={home}")

    def _join_researcher(self) -> None:
        home = self._home(RESEARCHER)
        self._do("member", "join", self._invitation("institute"), f"--home={home}")

    def _propose(self) -> str:
        spec = self._document("experiment.json", encode_document(self.spec))
        said = self._do(
            "experiment", "propose", str(spec), "--json", f"--home={self._home(RESEARCHER)}"
        )
        proposed: str = json.loads(said)["id"]
        return proposed

    def _approve(self) -> None:
        for site in self.data.sites:
            home = self._home(site.hospital)
            self._do("experiment", "approve", self.spec.name, "--yes", f"--home={home}")

    def _train(self, experiment: str, services: Services) -> None:
        home = self.folder / RESEARCHER
        self._say(f"$ consilium experiment watch {self.spec.name} --home={home}")
        with self._client() as client:
            last = show_progress(self.spec.name, _standings(client, experiment, services))
        if last is None or last.status != "released":
            reason = "unknown" if last is None else last.reason
            raise RunFailed(f"the experiment was stopped: {reason}; see {self.folder / 'logs'}")
        out = self.folder / MODEL
        self._do("model", "download", self.spec.name, f"--out={out}", f"--home={home}")

    def _wait_for_settlements(self, experiment: str, services: Services) -> None:
        """Until every node gave back what it did not use, under a final checkpoint."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        with self._client() as client:
            while time.monotonic() < deadline:
                held = client.state.experiments[experiment].reservations.values()
                settled = [r.settled_at for r in held]
                final = client.view.final_size
                if all(index is not None and index < final for index in settled):
                    return
                services.check()
                client.follow(wait_s=1.0)
        raise RunFailed(f"a node did not settle its budget; see {self.folder / 'logs'}")

    def _keep_running(self, services: Services) -> None:
        note("The services stay on. Look around, for example:")
        note(f"  export CONSILIUM_CONFIG={self.folder / 'consilium.toml'}")
        note(f"  consilium ledger list --home {self._home(RESEARCHER)}")
        note("Ctrl-C stops them and goes on to the audit.")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                services.check()
                time.sleep(1.0)

    def _audit(self) -> Result:
        bundle, reports = self.folder / BUNDLE, self.folder / REPORTS
        self._do("ledger", "export", f"--at={self._home(COORDINATOR)}", f"--out={bundle}")
        self._say(f"$ consilium audit report all {bundle} --out={reports}")
        with verified(str(bundle), str(self.folder / GENESIS)) as found:
            written = write_all(found, reports, by="consilium demo")
        self._say(f"$ consilium audit verify {self.folder} --trust={self.folder / GENESIS}")
        return collect(
            self.folder,
            bundle=bundle,
            genesis=self.folder / GENESIS,
            model=self.folder / MODEL,
            reports=written,
            sites=self.data.sites,
            began=self.began,
        )

    def _client(self) -> contextlib.AbstractContextManager[Client]:
        return _client_of(self.folder / RESEARCHER)

    def _home(self, name: str) -> str:
        return str(self.folder / name)

    def _invitation(self, organisation: str) -> str:
        return str(self.folder / COORDINATOR / INVITATIONS / f"{organisation}{SUFFIX}")

    def _document(self, name: str, content: bytes) -> Path:
        folder = self.folder / "documents"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_bytes(content)
        return path

    def _serve(self, services: Services, name: str, *arguments: str) -> Service:
        self._say(f"$ consilium {' '.join(arguments)} &")
        return services.start(name, arguments)

    def _do(self, *arguments: str) -> str:
        """Run a command in this process; returns its standard output."""
        from consilium.cli import INTERRUPTED, main

        self._say(f"$ consilium {' '.join(arguments)}")
        output, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            code = main(arguments)
        with (self.folder / "logs" / "commands.log").open("a", encoding="utf-8") as log:
            log.write(f"$ consilium {' '.join(arguments)}\n{output.getvalue()}{errors.getvalue()}")
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise RunFailed(
                f"`consilium {' '.join(arguments)}` failed ({code}):\n{errors.getvalue().strip()}"
            )
        return output.getvalue()

    def _say(self, line: str) -> None:
        note(f"{time.monotonic() - self.began:5.1f} s  {line}")


def _folder(out: Path | None, as_json: bool) -> Path:
    if out is None and as_json:
        return Path(tempfile.mkdtemp(prefix="consilium-demo-"))
    folder = _unused(DEFAULT_OUT) if out is None else out.expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; name a new folder with --out")
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}") from None
    return folder


def _unused(name: str) -> Path:
    """That folder here, or with the next number when an earlier demo filled it."""
    folder, number = Path(name).absolute(), 1
    while folder.is_dir() and any(folder.iterdir()):
        number += 1
        folder = Path(f"{name}-{number}").absolute()
    return folder


@contextlib.contextmanager
def _stopped_in_order() -> Iterator[None]:
    """Let SIGTERM end the demo as Ctrl-C does, so that its services end too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _client_of(home: Path) -> Iterator[Client]:
    settings = load_settings(home=home)
    with open_member(settings.home, settings.passphrase_file) as member:
        client = Client.of(member)
        client.follow()
        yield client


def _standings(client: Client, experiment: str, services: Services) -> Iterator[Standing]:
    """An experiment's progress, as long as all services live."""
    deadline = time.monotonic() + RUN_TIMEOUT_S
    last: Standing | None = None
    while last is None or not last.ended:
        now = client.progress(experiment)
        if now != last:
            yield now
            last = now
        if not now.ended:
            services.check()
            if time.monotonic() > deadline:
                raise RunFailed(f"the experiment did not end within {RUN_TIMEOUT_S:.0f} s")
            client.follow(wait_s=2.0)
