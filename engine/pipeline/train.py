"""TrainingSnapshot -> ModelVersion: the frozen masks, a spawned trainer, a candidate with its decoder."""

import os
import re
import selectors
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from engine.config import Settings
from engine.errors import NotFound, Unavailable
from engine.formats.pictures import decode_stored
from engine.geometry.rle import Rle
from engine.modeling.card import read_card
from engine.store.device_slots import DeviceSlot, device_slot
from engine.store.events import record_event
from engine.store.images import Image
from engine.store.masks import Mask
from engine.store.model_versions import ModelVersion
from engine.store.reviews import is_reviewed
from engine.store.runner import Cancelled, Work, Write
from engine.store.session import Workspace
from engine.store.snapshots import Snapshot, SnapshotImage, SnapshotMask
from engine.training.dataset import Sample, write_folder

_STEP = re.compile(r"step (\d+)/(\d+) (\d+) s ")
# How long a cancelled job may look away, and how long the trainer may take to save what it has.
_LISTEN_S, _SAVE_S = 0.5, 8.0
# glibc gives large blocks back to the kernel and faults them in again; keeping them halves a step's time.
_KEEP_PAGES = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


def train(work: Work, *, snapshot_id: int, parent_id: int | None, architecture: str | None = None) -> Write:
    """Fine-tunes the parent's weights on a training snapshot; the result is a candidate, nothing more.
    Without a parent it begins with random weights of the `architecture`.

    The trainer is a process of its own at low priority: it sees files, no database, and resumes from its last
    checkpoint when the job is run again on this machine. Raises Unavailable with its last words if it fails.
    """
    workspace = work.workspace
    with workspace.read() as session:
        snapshot = session.get(Snapshot, snapshot_id)
        parent = None if parent_id is None else session.get(ModelVersion, parent_id)
        if snapshot is None or (parent is None and architecture is None):
            raise NotFound(f"no snapshot {snapshot_id} or no model version {parent_id}")
    begins_with = f"random-{architecture}" if parent is None else parent.weights_sha256[:16]
    folder = workspace.settings.home / "training" / f"{snapshot.digest_sha256[:16]}-{begins_with}"
    samples = _materialise(work, snapshot_id, folder / "samples")
    start = (
        {"--architecture": architecture}
        if parent is None
        else {"--start": workspace.blobs.local_path(parent.weights_sha256)}
    )
    checkpoint = _run_trainer(work, samples, start, folder / "run")
    row = _candidate(workspace, snapshot, parent, checkpoint.read_bytes(), _export_decoder(checkpoint))

    def write(session: Session) -> dict[str, Any]:
        return _add(session, row)

    shutil.rmtree(folder)
    return write


def _materialise(work: Work, snapshot_id: int, folder: Path) -> Path:
    """The snapshot as a folder of arrays; the file list is written last, so a half-made one is made again."""
    if not (folder / "samples.jsonl").is_file():
        write_folder(_samples(work, snapshot_id), folder)
    return folder


def _samples(work: Work, snapshot_id: int) -> Iterator[Sample]:
    workspace = work.workspace
    with workspace.read() as session:
        members = select(Image).join(SnapshotImage, SnapshotImage.image_id == Image.id)
        images = session.scalars(
            members.where(SnapshotImage.snapshot_id == snapshot_id).order_by(Image.export_id)
        ).all()
    for image in images:
        work.stop_if_cancelled()
        with workspace.read() as session:
            columns = select(Mask.counts, is_reviewed())
            members_of = columns.join(SnapshotMask, SnapshotMask.mask_id == Mask.id)
            here = (SnapshotMask.snapshot_id == snapshot_id) & (Mask.image_id == image.id)
            found = session.execute(members_of.where(here).order_by(Mask.export_id, Mask.id)).all()
        pixels = decode_stored(workspace.blobs.read(image.pixels_sha256))
        masks = [Rle(size=[image.height, image.width], counts=text) for text, _ in found]
        human = any(reviewed for _, reviewed in found)
        # A picture's masks are drawn together, so it is the picture that is seen more often.
        weight = 1.0 if human else 1.0 / workspace.settings.train.human_oversampling
        yield Sample(pixels, masks, weight, human, image.near_duplicate_group)


def _run_trainer(work: Work, samples: Path, start: Mapping[str, object], out: Path) -> Path:
    """Starts the trainer, passes its progress on, and returns the checkpoint it wrote."""
    settings = work.workspace.settings
    with device_slot(settings, "train", work.stop_if_cancelled) as slot:
        process = subprocess.Popen(
            _command(settings, slot, samples, start, out),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | _environment(slot),
            # The trainer keeps the devices locked for as long as it lives, whatever becomes of this process.
            pass_fds=slot.lock_fds,
        )
        os.setpriority(os.PRIO_PROCESS, process.pid, settings.worker.nice)
        last_words = ""
        try:
            for line in _lines(process):
                # No sign of life: a trainer that prints no step for worker.stall_s is ended as stuck.
                if work.cancelled():
                    raise Cancelled
                if step := _STEP.match(line):
                    work.progress({"step": int(step[1]), "steps": int(step[2]), "seconds": int(step[3])})
                # torchrun adds a page of its own after a stated error of ours.
                if line.strip() and not last_words.startswith("error: "):
                    last_words = line.strip()
        finally:
            _stop(process)
    if process.returncode != 0 or not Path(last_words).is_file():
        raise Unavailable(f"the trainer ended with code {process.returncode}: {last_words[-300:]}")
    return Path(last_words)


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    """What the process prints, line by line, and an empty line whenever it has been silent for a while."""
    assert process.stdout is not None
    pipe, unfinished = process.stdout.fileno(), b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(_LISTEN_S):
                yield ""
                continue
            part = os.read(pipe, 65536)
            *lines, unfinished = (unfinished + part).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in lines)
            if not part:
                yield unfinished.decode("utf-8", "replace")
                return


def _command(
    settings: Settings, slot: DeviceSlot, samples: Path, start: Mapping[str, object], out: Path
) -> list[str]:
    train = settings.train
    limit = {"--steps": train.steps} if train.steps else {"--max-seconds": train.max_seconds}
    options: dict[str, object] = {
        **limit,
        **start,
        "--recipe": settings.train.recipe,
        "--samples": samples,
        "--out": out,
        # Of CUDA's devices the trainer sees only its own, counted from nought.
        "--device": "cuda" if slot.device.startswith("cuda") else slot.device,
        "--processes": len(slot.devices),
    }
    if train.tensorboard:
        options["--tensorboard"] = Path(train.tensorboard) / out.parent.name
    if train.mlflow:
        options["--mlflow"] = train.mlflow
    if train.tensorboard or train.mlflow:
        options["--pictures-every"] = train.pictures_every
    flat = [str(part) for pair in options.items() for part in pair]
    return [sys.executable, "-m", "engine.training", *flat]


def _environment(slot: DeviceSlot) -> dict[str, str]:
    """All cores but one, which stays with the page and its clicks, are shared out among the processes."""
    n_cores = len(os.sched_getaffinity(0)) - 1
    environment = {"OMP_NUM_THREADS": str(max(1, n_cores // len(slot.devices)))} | _KEEP_PAGES
    if slot.device.startswith("cuda"):
        numbers = [name.partition(":")[2] or "0" for name in slot.devices]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(numbers)
    return environment


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the trainer if it still runs. It saves after its present step; one that takes too long for that is
    ended by force, and resumes from its last saved state. Its other ranks end with it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=_SAVE_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _export_decoder(checkpoint: Path) -> bytes:
    """The prompt decoder as ONNX, checked against torch before it is returned."""
    from engine.modeling.onnx import export_decoder  # half a minute of imports that no other job needs
    from engine.modeling.registry import build_sam

    return export_decoder(build_sam(checkpoint=checkpoint))


def _candidate(
    workspace: Workspace, snapshot: Snapshot, parent: ModelVersion | None, weights: bytes, decoder: bytes
) -> ModelVersion:
    config, metadata = read_card(weights)
    return ModelVersion(
        dataset_id=snapshot.dataset_id,
        architecture=config.name,
        config=config.to_dict(),
        weights_sha256=workspace.blobs.put(weights),
        decoder_sha256=workspace.blobs.put(decoder),
        parent_id=None if parent is None else parent.id,
        snapshot_id=snapshot.id,
        training=dict(metadata),
    )


def _add(session: Session, row: ModelVersion) -> dict[str, Any]:
    """Names the candidate by its place in the dataset's line; weights that exist already are no news."""
    same = (ModelVersion.dataset_id == row.dataset_id) & (ModelVersion.weights_sha256 == row.weights_sha256)
    known = session.scalar(select(ModelVersion).where(same))
    if known is not None:
        return {"model_version": known.id, "name": known.name}
    in_line = ModelVersion.dataset_id == row.dataset_id
    number = session.scalar(select(func.count()).select_from(ModelVersion).where(in_line)) or 0
    row.name = f"v{number + 1}"
    session.add(row)
    session.flush()
    record_event(
        session, "model.trained", dataset_id=row.dataset_id, subject_id=row.id, snapshot_id=row.snapshot_id
    )
    return {"model_version": row.id, "name": row.name}
