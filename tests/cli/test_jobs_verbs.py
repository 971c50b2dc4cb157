"""`maskloop jobs`: filters, reasons, and one clear sentence for a word that means nothing."""

from pathlib import Path

import pytest

from engine.config import load_settings
from engine.store import jobs
from engine.store.datasets import add_dataset
from engine.store.session import open_workspace
from tests.cli.conftest import Maskloop


@pytest.fixture
def ledger(home: Path) -> Path:
    """Two datasets; in the first a failed training and a waiting image, in the second a waiting image."""
    workspace = open_workspace(load_settings(home))
    with workspace.write() as session:
        one, other = add_dataset(session, "one"), add_dataset(session, "other")
        session.flush()
        jobs.ask(session, "train", {}, "train:1", dataset_id=one.id, queue="train", max_attempts=1)
        jobs.ask(session, "embed", {}, "embed:1", dataset_id=one.id)
        jobs.ask(session, "embed", {}, "embed:2", dataset_id=other.id)
        training = jobs.claim(session, 1, "worker", 60.0)
        assert training is not None
        jobs.fail(session, training, "its process crashed (SIGSEGV)", retry_in_s=None)
    workspace.close()
    return home


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [3, 2, 1]),
        (["--state", "queued"], [3, 2]),
        (["--kind", "train"], [1]),
        (["--dataset", "one"], [2, 1]),
        (["--dataset", "one", "--kind", "embed", "--state", "queued"], [2]),
        (["--limit", "1"], [3]),
    ],
)
def test_jobs_are_filtered_by_state_kind_and_dataset(
    ledger: Path, maskloop: Maskloop, options: list[str], expected: list[int]
) -> None:
    found = maskloop("jobs", "list", *options, "--home", ledger, "--json").json
    assert [job["id"] for job in found] == expected


def test_the_reason_of_a_failed_job_is_in_the_list_and_it_can_be_retried_and_cancelled(
    ledger: Path, maskloop: Maskloop
) -> None:
    assert "(SIGSEGV)" in maskloop("jobs", "show", 1, "--home", ledger).out
    (failed,) = maskloop("jobs", "list", "--state", "failed", "--home", ledger, "--json").json
    assert failed["reason"] == "its process crashed (SIGSEGV)"
    assert "queued again" in maskloop("jobs", "retry", 1, "--home", ledger).out
    assert "is cancelled" in maskloop("jobs", "cancel", 1, "--home", ledger).out


@pytest.mark.parametrize(("option", "known"), [("--state", "queued"), ("--kind", "embed")])
def test_a_word_that_no_job_has_is_refused_with_those_there_are(
    ledger: Path, maskloop: Maskloop, option: str, known: str
) -> None:
    ended = maskloop("jobs", "list", option, "quick", "--home", ledger)
    assert ended.code == 1 and "'quick'" in ended.err and known in ended.err and ended.err.count("\n") == 1
