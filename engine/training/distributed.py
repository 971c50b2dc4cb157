"""Training in several processes that torchrun started: each has a copy of the model and draws its own batch.

Gradients are averaged before every update and the statistics of BatchNorm after it, so all ranks hold the
same weights at every step. Each rank normalises by its own batch while training (this is not "sync" norm).
Decisions that read a clock or a file (the plan of a time-boxed run, when to stop, whether a run is finished)
are rank 0's, and only rank 0 writes. Of one process nothing here moves a bit.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed
from torch import Tensor, nn

# A rank whose neighbours are gone gives up after this; a step of the slowest recipe takes seconds.
PATIENCE = timedelta(minutes=10)
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ranks:
    """This process among the `count` that train together, and the torch device it works on."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def seed_of(self, seed: int, step: int) -> tuple[int, ...]:
        """What this rank's batch of one step is drawn from; rank 0 draws what a single process would."""
        return (seed, step) if self.is_first else (seed, step, self.rank)

    def decided(self, number: int) -> int:
        """Rank 0's number, in every rank; the others' are not looked at."""
        if self.count == 1:
            return number
        shared = torch.tensor([number], dtype=torch.long, device=self.device)
        torch.distributed.broadcast(shared, src=0)
        return int(shared)

    def average_gradients(self, parameters: Iterator[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the ranks. A rank whose batch had no use for a parameter
        counts as zero; one that no rank used stays without a gradient, as in a single process."""
        if self.count == 1:
            return
        members = list(parameters)
        used = torch.tensor([float(member.grad is not None) for member in members], device=self.device)
        torch.distributed.all_reduce(used)
        members = [member for member, n in zip(members, used.tolist(), strict=True) if n]
        gradients = [torch.zeros_like(m) if m.grad is None else m.grad for m in members]
        for member, mean in zip(members, self._means(gradients), strict=True):
            member.grad = mean

    @torch.no_grad()
    def average_statistics(self, model: nn.Module) -> None:
        """Replaces the running statistics of every normalisation by their means over the ranks."""
        if self.count == 1:
            return
        floating = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        for buffer, mean in zip(floating, self._means(floating), strict=True):
            buffer.copy_(mean)

    def average(self, numbers: tuple[float, ...]) -> tuple[float, ...]:
        """Means over the ranks of figures to be shown."""
        if self.count == 1:
            return numbers
        shared = torch.tensor(numbers, device=self.device)
        torch.distributed.all_reduce(shared)
        return tuple((shared / self.count).tolist())

    def _means(self, tensors: list[Tensor]) -> list[Tensor]:
        """One transfer for all of them: many small ones would each wait for the slowest rank."""
        if not tensors:
            return []
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = (flat / self.count).split_with_sizes([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


ALONE = Ranks()


@contextmanager
def joined(device: str = "cpu") -> Iterator[Ranks]:
    """The ranks that torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK) name; alone where there are none.

    `device` "cuda" gives every rank the visible device of its local number.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if count == 1:
        yield Ranks(device=device)
        return
    backend = "nccl" if device.startswith("cuda") else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Ranks(torch.distributed.get_rank(), count, device)
    finally:
        torch.distributed.destroy_process_group()


def launch(n_processes: int, program: Sequence[str]) -> int:
    """torchrun in this process: starts the program (`-m MODULE ...`) so many times, and ends all when one
    fails or when it is told to end. The ranks meet at the loopback address. Returns the exit code."""
    from torch.distributed import run  # a second of imports that a single process does without
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    # Where ranks meet; no other machine is asked.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    try:
        run.main(["--standalone", "--local-addr=127.0.0.1", f"--nproc-per-node={n_processes}", *program])
    except SignalException as told:
        return 128 + int(told.sigval)
    except ChildFailedError:
        # The rank has said why.
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """Ends the process with everything said. One of several ranks ends at once: threads of gloo that outlive
    their group can abort an interpreter that takes itself down, and a finished run would count as failed."""
    sys.stdout.flush()
    sys.stderr.flush()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        os._exit(code)
    sys.exit(code)


def die_with_parent() -> None:
    """Asks the kernel to end this process once the one that started it is gone: a worker killed in the middle
    must leave no trainer behind that holds a GPU and writes to the folder of the next attempt."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
