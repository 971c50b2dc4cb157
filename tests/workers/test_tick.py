"""The tick and the task body: what is due is asked once, sent until claimed, and run once."""

import logging
import threading
import time
from collections.abc import Iterable

import pytest
from sqlalchemy import func, select, text

from engine.errors import Unavailable
from engine.pipeline import loop
from engine.store import jobs
from engine.store.embeddings import Embedding
from engine.store.jobs import Due, Job
from engine.store.session import Workspace
from tests.store.test_jobs import ask, claimed, expire, row
from tests.workers.conftest import open_stage
from workers.__main__ import cause_of_death
from workers.app import make_app
from workers.job_task import JobTask
from workers.tasks import task_name
from workers.tick import Tick, keep_ticking


class Mailbox:
    """A broker whose messages stay unread until `read` says otherwise; `lose` forgets them."""

    def __init__(self) -> None:
        self.unread: list[Due] = []
        self.sent: list[Due] = []

    def send(self, job: Due) -> None:
        self.unread.append(job)
        self.sent.append(job)

    def n_unread(self, queues: Iterable[str]) -> dict[str, int]:
        return {queue: sum(job.queue == queue for job in self.unread) for queue in queues}

    def lose(self) -> None:
        self.unread.clear()

    read = lose


def ids(sent: list[Due]) -> list[int]:
    return [job.job_id for job in sent]


def test_every_arrow_of_the_loop_has_a_task_of_its_name(sqlite_workspace: Workspace) -> None:
    app = make_app(sqlite_workspace.settings)
    ours = {name for name in app.tasks if name.startswith("maskloop.")}
    assert ours == {task_name(kind) for kind in loop.ARROWS} and "maskloop.embed" in ours


def test_messages_are_json_and_leave_no_results_or_events(sqlite_workspace: Workspace) -> None:
    conf = make_app(sqlite_workspace.settings).conf
    assert (conf.accept_content, conf.task_serializer, conf.result_backend) == (["json"], "json", None)
    assert conf.task_ignore_result and not conf.task_acks_late and conf.worker_prefetch_multiplier == 1
    assert not conf.worker_enable_remote_control and not conf.worker_send_task_events


def test_a_job_message_delivered_three_times_embeds_once(workspace: Workspace, tiny_weights: bytes) -> None:
    open_stage(workspace, tiny_weights, n_images=1)
    broker = Mailbox()
    Tick(workspace, broker)()
    task = make_app(workspace.settings).tasks[task_name(broker.sent[0].kind)]
    for _ in range(3):
        task.apply(args=[broker.sent[0].job_id])
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Embedding)) == 1
        assert session.scalars(select(Job.attempt)).all() == [1]


def test_one_that_only_wakes_sends_for_what_waits_and_asks_for_nothing(
    workspace: Workspace, tiny_weights: bytes
) -> None:
    open_stage(workspace, tiny_weights, n_images=2)
    broker = Mailbox()
    waker = Tick(workspace, broker, asks=False)
    assert waker() == 0 and broker.sent == []
    with workspace.write() as session:
        assert loop.due(session, workspace.settings) == 2
    assert waker() == 2 and len(broker.sent) == 2


def test_due_work_is_asked_once_however_many_tick(workspace: Workspace, tiny_weights: bytes) -> None:
    open_stage(workspace, tiny_weights, n_images=2)
    broker = Mailbox()
    ticks = [Tick(workspace, broker) for _ in range(3)]
    threads = [threading.Thread(target=tick) for tick in ticks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 2
    assert len(set(ids(broker.sent))) <= 2


def test_a_lost_message_is_sent_again_and_a_claimed_job_is_not(sqlite_workspace: Workspace) -> None:
    broker = Mailbox()
    patient, hasty = Tick(sqlite_workspace, broker), Tick(sqlite_workspace, broker, again_s=0.0)
    job_id = ask(sqlite_workspace)
    assert [patient(), patient(), hasty()] == [1, 0, 0], "one unread message is enough for one job"
    broker.lose()
    assert [patient(), hasty()] == [0, 1]
    broker.read()
    claimed(sqlite_workspace, job_id)
    assert [patient(), hasty()] == [0, 0]
    expire(sqlite_workspace, job_id)
    assert patient() == 1, "a worker is woken for a new attempt at once"


def test_a_queue_that_nobody_reads_stays_short(sqlite_workspace: Workspace) -> None:
    broker = Mailbox()
    tick = Tick(sqlite_workspace, broker, limit=3, again_s=0.0)
    for n in range(10):
        ask(sqlite_workspace, f"bulk:{n}", priority=60)
    ask(sqlite_workspace, "other queue", queue="gpu")
    assert [tick(), tick(), tick()] == [4, 0, 0]


def test_any_message_runs_the_most_urgent_job_and_then_the_others(
    sqlite_workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    bulk = ask(sqlite_workspace, "bulk", priority=60)
    urgent = ask(sqlite_workspace, "urgent", priority=10)
    elsewhere = ask(sqlite_workspace, "elsewhere", priority=1, queue="train")
    JobTask(sqlite_workspace.settings, queues=("cpu",))(bulk)
    ended = [row(sqlite_workspace, job_id) for job_id in (urgent, bulk, elsewhere)]
    # They embed an image that does not exist: what counts here is who was run, and when.
    assert [job.state for job in ended] == ["failed", "failed", "queued"]
    assert ended[0].ended_at <= ended[1].started_at


def test_a_broken_broker_stops_no_tick_and_is_said_once(
    sqlite_workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    stopped, tries = threading.Event(), []

    class Away(Mailbox):
        def n_unread(self, queues: Iterable[str]) -> dict[str, int]:
            tries.append(queues)
            raise Unavailable("the broker does not answer")

    ask(sqlite_workspace)
    thread = threading.Thread(target=keep_ticking, args=(Tick(sqlite_workspace, Away()), stopped))
    with caplog.at_level(logging.WARNING):
        thread.start()
        end = time.monotonic() + 10
        while len(tries) < 3 and time.monotonic() < end:
            time.sleep(0.05)
        stopped.set()
        thread.join()
    assert len(tries) >= 3 and caplog.text.count("no tick") == 1


def test_a_dataset_the_loop_stumbles_over_holds_up_no_waiting_job(
    sqlite_workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = ask(sqlite_workspace)
    with sqlite_workspace.write() as session:
        session.execute(
            text("INSERT INTO datasets (id, name, created_at, settings) VALUES (9, 'x', 'soon', '{}')")
        )
    broker = Mailbox()
    Tick(sqlite_workspace, broker)()
    assert ids(broker.sent) == [job_id] and "could not be asked for" in caplog.text


def test_a_message_for_a_job_that_is_gone_wakes_a_worker_and_changes_nothing(
    sqlite_workspace: Workspace,
) -> None:
    waiting = ask(sqlite_workspace, queue="train")
    JobTask(sqlite_workspace.settings, queues=("cpu",))(404)
    assert row(sqlite_workspace, waiting).state == "queued"


def test_the_jobs_of_a_dead_child_are_not_left_to_their_leases(sqlite_workspace: Workspace) -> None:
    run = JobTask(sqlite_workspace.settings)
    dead = claimed(sqlite_workspace, ask(sqlite_workspace, "dead"), f"{run.worker}/7")
    alive = claimed(sqlite_workspace, ask(sqlite_workspace, "alive"), f"{run.worker}/8")
    other = claimed(sqlite_workspace, ask(sqlite_workspace, "other"), "elsewhere:1:a/7")
    assert run.bury([8, 9], "its process crashed") == [dead.job_id]
    states = [row(sqlite_workspace, held.job_id).state for held in (dead, alive, other)]
    assert states == ["queued", "running", "running"]


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("Worker exited prematurely: signal 9 (SIGKILL) Job: 3.", "ran out of memory"),
        ("Worker exited prematurely: signal 11 (SIGSEGV) Job: 3.", "crashed (SIGSEGV)"),
        ("Worker exited prematurely: exitcode 3 Job: 3.", "(exit code 3)"),
    ],
)
def test_a_death_is_told_in_a_sentence(lost: str, said: str) -> None:
    assert said in cause_of_death(lost)


def test_a_stopping_worker_claims_nothing_and_gives_back_what_it_holds(sqlite_workspace: Workspace) -> None:
    run = JobTask(sqlite_workspace.settings)
    held = claimed(sqlite_workspace, ask(sqlite_workspace, "held"), f"{run.worker}/7")
    waiting = ask(sqlite_workspace, "waiting")
    run.stopping.set()
    run(waiting)
    assert run.give_back() == 1
    with sqlite_workspace.read() as session:
        assert {jobs.state_of(session, job_id) for job_id in (held.job_id, waiting)} == {"queued"}
