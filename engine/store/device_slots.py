"""Who may use which GPU of this machine: locks on files, which the kernel lets go when a process dies.

The rule. Training takes its devices alone. Everything else that runs a model (embed, evaluate, propose, ...)
shares a device with its like, never with a training. Where every device is a training's, such a job runs on
the CPU instead of waiting for minutes: an annotator's image is slower then, never stuck. A training waits for
the jobs that share its device to end, and from then on no new one is let in. On a machine whose
`worker.devices` names only "cpu" nothing is locked and no file is made.
"""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.config import Settings
from engine.errors import BadInput

log = logging.getLogger(__name__)

EXCLUSIVE = frozenset({"train"})
LOOK_AGAIN_S = 0.25


@dataclass(frozen=True)
class DeviceSlot:
    """The torch devices a job may use while it holds them, and the open locks.

    A child process that is handed `lock_fds` (Popen's pass_fds) keeps the devices locked until it ends too.
    """

    devices: tuple[str, ...]
    lock_fds: tuple[int, ...] = ()

    @property
    def device(self) -> str:
        """The only device, or the first."""
        return self.devices[0]


@contextmanager
def device_slot(
    settings: Settings, kind: str, look_away: Callable[[], None] = lambda: None
) -> Iterator[DeviceSlot]:
    """Devices for one job of that kind, by the rule above: `train.processes` for a training, else one.

    `look_away` is called while a training waits and may raise to end the wait, as `Work.stop_if_cancelled`
    does. Raises BadInput when a training is to have more processes than there are devices.
    """
    devices = [name for name in settings.worker.devices if name != "cpu"]
    n_wanted = settings.train.processes if kind in EXCLUSIVE else 1
    if not devices:
        yield DeviceSlot(("cpu",) * n_wanted)
        return
    if n_wanted > len(devices):
        raise BadInput(
            f"train.processes is {n_wanted}, but worker.devices names {len(devices)}: "
            "lower the one or lengthen the other in config.toml"
        )
    locks = _Locks(settings.home / "locks" / machine_name())
    if kind in EXCLUSIVE:
        with locks.alone(devices, n_wanted, look_away) as slot:
            yield slot
    else:
        with locks.shared(devices, kind) as slot:
            yield slot


def machine_name() -> str:
    """What processes that see the same GPUs have in common: the kernel's boot, which containers share and
    machines that mount one home do not; the host's name where the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


class _Locks:
    """One lock file per device, one beside it that keeps newcomers off, and one turn for the trainings."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    @contextmanager
    def shared(self, devices: Sequence[str], kind: str) -> Iterator[DeviceSlot]:
        with ExitStack() as held:
            # Each process begins at another device and stays with it, so that models are loaded once.
            for number in range(len(devices)):
                device = devices[(os.getpid() + number) % len(devices)]
                lock = self._shared_lock(device)
                if lock is not None:
                    held.callback(os.close, lock)
                    yield DeviceSlot((device,), (lock,))
                    return
            log.warning("%s runs on the CPU: every device of this machine is held by training", kind)
            yield DeviceSlot(("cpu",))

    def _shared_lock(self, device: str) -> int | None:
        door = self._lock(f"{device}.door", fcntl.LOCK_SH)
        if door is None:
            return None
        try:
            return self._lock(device, fcntl.LOCK_SH)
        finally:
            os.close(door)

    @contextmanager
    def alone(
        self, devices: Sequence[str], n_wanted: int, look_away: Callable[[], None]
    ) -> Iterator[DeviceSlot]:
        with ExitStack() as held:
            taken: dict[str, int] = {}
            # Two trainings that each held a part of what both need would wait for ever, so they take turns.
            with ExitStack() as choosing:
                self._wait_for_turn(choosing, look_away)
                while len(taken) < n_wanted:
                    self._take(devices, n_wanted, taken, held)
                    if len(taken) < n_wanted:
                        self._close_doors(devices, n_wanted - len(taken), taken, choosing)
                        look_away()
                        time.sleep(LOOK_AGAIN_S)
            yield DeviceSlot(tuple(sorted(taken, key=devices.index)), tuple(taken.values()))

    def _wait_for_turn(self, choosing: ExitStack, look_away: Callable[[], None]) -> None:
        while (turn := self._lock("training.turn", fcntl.LOCK_EX)) is None:
            look_away()
            time.sleep(LOOK_AGAIN_S)
        choosing.callback(os.close, turn)

    def _take(self, devices: Sequence[str], n_wanted: int, taken: dict[str, int], held: ExitStack) -> None:
        for device in devices:
            if device in taken or len(taken) == n_wanted:
                continue
            lock = self._lock(device, fcntl.LOCK_EX)
            if lock is not None:
                held.callback(os.close, lock)
                taken[device] = lock

    def _close_doors(
        self, devices: Sequence[str], n_missing: int, taken: dict[str, int], choosing: ExitStack
    ) -> None:
        """Keeps newcomers off as many devices as are missing; not off one that a training holds, since
        nobody else can come in there."""
        for device in devices:
            probe = None if device in taken or n_missing == 0 else self._lock(device, fcntl.LOCK_SH)
            if probe is None:
                continue
            os.close(probe)
            n_missing -= 1
            door = self._lock(f"{device}.door", fcntl.LOCK_EX)
            if door is not None:
                choosing.callback(os.close, door)

    def _lock(self, name: str, how: int) -> int | None:
        """An open, locked file, or None where another process holds it otherwise."""
        path = self._folder / f"{name.replace(':', '-')}.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        return lock
