"""The warm process: real ones, killed, orphaned and lied to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ledger.entries.operations.plans import Purpose
from ledger.experiment.tensors import decode_update
from ledger.formats.documents import encode_document
from node.errors import (
    DatasetChanged,
    DatasetError,
    IntentRefused,
    JobRefused,
    WorkerDied,
    WorkerMisbehaved,
)
from node.training.process.frames import (
    Failed,
    Intent,
    Ping,
    failure_frame,
    failure_of,
    read_frame,
    write_frame,
)
from node.training.process.worker import Worker
from tests.node.cases import SPLIT_KEY, heart_file, heart_schema
from tests.node.training.test_rounds import PARAMETERS, job_for
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    os.environ["CONSILIUM_TEST_FEDERATION"] = "1"
    with Worker(test_noise=7) as worker:
        worker.start()
        yield worker
    del os.environ["CONSILIUM_TEST_FEDERATION"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "heart.data"
    shutil.copyfile(heart_file(), path)
    return path


def ignore(purpose: Purpose, steps: int) -> None:
    """Record nothing: these tests look at bytes."""


def reader(data: bytes) -> Callable[[int], bytes]:
    rest = bytearray(data)

    def read(count: int) -> bytes:
        if count > len(rest):
            raise EOFError
        piece = bytes(rest[:count])
        del rest[:count]
        return piece

    return read


def test_one_process_serves_many_rounds_and_asks_before_each_noise(
    worker: Worker, file: Path
) -> None:
    pid = worker.pid
    intents: list[tuple[Purpose, int]] = []
    job = job_for(file)
    first = worker.run_round(job, lambda purpose, steps: intents.append((purpose, steps)))
    baseline = worker.run_round(
        job_for(file, "baseline"), lambda purpose, steps: intents.append((purpose, steps))
    )
    assert decode_update(first, PARAMETERS).any()
    assert decode_update(baseline, 32).any()
    assert intents == [("train", 1), ("baseline_train", 3), ("baseline_evaluate", 1)]
    assert worker.run_round(job, ignore) == first  # test noise depends on the round alone
    assert worker.run_round(job.model_copy(update={"round": 2}), ignore) != first
    assert worker.pid == pid
    assert not worker.production


def test_loading_tells_the_administrator_hash_and_counts(worker: Worker, file: Path) -> None:
    loaded = worker.load_dataset(file, encode_document(heart_schema()), SPLIT_KEY)
    assert (loaded.rows, loaded.train_units + loaded.test_units) == (303, 303)
    assert loaded.sha256 == job_for(file).sha256


def test_typed_refusals_cross_the_pipe_with_their_fields(worker: Worker, file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"63.0", b"930", 1))
    with pytest.raises(DatasetError) as bad:
        worker.load_dataset(file, encode_document(heart_schema()), SPLIT_KEY)
    assert (bad.value.dataset, bad.value.column, bad.value.row) == ("cleveland-heart", "age", 1)
    assert '"930" is outside 20..90 years' in str(bad.value)
    job = job_for(file).model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DatasetChanged) as changed:
        worker.run_round(job, ignore)
    assert changed.value.expected == "0" * 64
    with pytest.raises(JobRefused, match="Schema"):
        worker.load_dataset(file, b"{}", SPLIT_KEY)
    worker.ping()


def test_what_the_recorder_raises_is_raised_and_nothing_is_released(
    worker: Worker, file: Path
) -> None:
    class Full(Exception):
        pass

    def full(purpose: Purpose, steps: int) -> None:
        raise Full

    pid = worker.pid
    with pytest.raises(Full):
        worker.run_round(job_for(file), full)
    worker.ping()
    assert worker.pid == pid


def test_a_killed_process_is_a_typed_error_and_the_next_call_starts_another(
    worker: Worker, file: Path
) -> None:
    job = job_for(file)
    pid = worker.pid
    with pytest.raises(WorkerDied) as died:
        worker.run_round(job, lambda purpose, steps: worker.kill())
    assert died.value.exit_code == -signal.SIGKILL
    assert decode_update(worker.run_round(job, ignore), PARAMETERS).any()
    assert worker.pid not in (None, pid)


def test_a_caller_that_was_interrupted_leaves_no_reply_to_the_next(
    worker: Worker, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_for(file)
    expected = worker.run_round(job, ignore)
    pid = worker.pid

    def interrupted(header: object, *parts: bytes) -> None:
        original(header, *parts)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    original = worker._send
    monkeypatch.setattr(worker, "_send", interrupted)
    with pytest.raises(KeyboardInterrupt):
        worker.run_round(job.model_copy(update={"round": 2}), ignore)
    monkeypatch.undo()
    assert worker.run_round(job, ignore) == expected
    assert worker.pid != pid


def test_a_process_that_does_not_answer_in_time_is_killed(worker: Worker) -> None:
    worker.start()
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkerDied, match="in time"):
        worker.ping(timeout_s=0.2)
    assert worker.pid is None


def test_a_process_that_was_told_to_end_does_and_the_next_call_starts_another() -> None:
    with Worker() as worker:
        worker.start()
        assert worker.production
        pid = worker.pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        while worker.pid is not None:
            time.sleep(0.01)
        worker.ping()
        assert worker.pid != pid
    assert worker.pid is None


def test_a_process_whose_parent_is_killed_ends_by_itself() -> None:
    script = textwrap.dedent("""
        import time
        from node.training.process.worker import Worker
        worker = Worker()
        worker.start()
        print(worker.pid, flush=True)
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    ends = time.monotonic() + PATIENCE_S
    while _runs(child):
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_predictable_noise_is_refused_outside_a_test_federation() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "CONSILIUM_TEST_FEDERATION"}
    done = subprocess.run(
        [sys.executable, "-m", "node.training.process.worker_process", "--test-noise", "1"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "CONSILIUM_TEST_FEDERATION=1" in done.stderr
    assert done.stdout == ""


def test_a_training_process_that_fails_over_a_row_says_where_and_not_what() -> None:
    """Its standard error is the node's log."""
    script = (
        "import sys, warnings; from node.training.process import worker_process as process; "
        "process.say_nothing_of_rows(); row = sys.argv[1]; warnings.warn(row); "
        "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)); float(row)"
    )
    command = [sys.executable, "-c", script, "Anna Muster"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "(0, 0)\n"
    assert done.stderr.startswith("the training process ends: ValueError at <string>:1")
    assert "Anna" not in done.stderr


def test_the_parents_side_imports_no_torch() -> None:
    script = "import sys, node.training.process.worker; sys.exit('torch' in sys.modules or 'opacus' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_frames_survive_the_round_trip_and_refuse_what_they_do_not_know() -> None:
    frame = write_frame(Intent(purpose="train", steps=3), (b"", b"\x00\xff"))
    header, parts = read_frame(reader(frame))
    assert (header, parts) == (Intent(purpose="train", steps=3), (b"", b"\x00\xff"))
    for broken in (
        write_frame(Ping()).replace(b"ping", b"pong"),
        b"\xff" * 12,
        write_frame(Ping())[:-4] + b"\x00\x00\x00\x09",
        write_frame(Ping())[:-4] + b"\x00\x00\x00\x01" + b"\xff" * 8,
    ):
        with pytest.raises(WorkerMisbehaved):
            read_frame(reader(broken))


def test_every_error_that_may_cross_comes_back_as_it_was() -> None:
    for error in (
        DatasetError("ward", "bad \u00e4", column="age", row=7),
        DatasetError("ward", "bad"),
        DatasetChanged("/a", expected="0", found=None),
        JobRefused("no"),
        IntentRefused("train"),
    ):
        header, parts = read_frame(reader(failure_frame(error)))
        assert isinstance(header, Failed)
        back = failure_of(header, parts)
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
    with pytest.raises(WorkerMisbehaved, match="without its fields"):
        failure_of(Failed(error="JobRefused"), (b"[]",))


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_header_has_one_spelling() -> None:
    header = b'{"production":true, "type":"ready"}'
    frame = len(header).to_bytes(4, "big") + header + bytes(4)
    with pytest.raises(WorkerMisbehaved, match="another than its one spelling"):
        read_frame(reader(frame))
