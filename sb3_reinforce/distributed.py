"""The few collectives that data-parallel training takes. They know numbers, no model; a process alone gets back its own.

A group of processes is one that the script has initialised, or the one that the variables of ``torchrun`` tell of.
"""

import atexit
import builtins
import io
import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch as th
from torch import distributed as dist

T = TypeVar("T")

#: Seconds after which a process that does not answer is given up; to be longer than the longest evaluation.
TIMEOUT_VARIABLE = "SB3_REINFORCE_TIMEOUT"
_DEFAULT_TIMEOUT = 1800.0
#: What ``torchrun`` sets for each process.
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Between the seeds of two processes, so that the next run's seed does not reuse this one's streams.
_SEED_STRIDE = 10_000
#: Attribute of an error that all processes know of.
_KNOWN = "_known_to_all_processes"


class _Launch:
    """The group that was joined here, as ``torchrun`` tells of it; a group of the script's is not ours to leave."""

    store: Any = None
    n_joined = 0
    joined = False


def _in_group() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Number of this process, from 0 on, also before it has joined the others."""
    if _in_group():
        return dist.get_rank()
    return int(os.environ["RANK"]) if all(name in os.environ for name in _LAUNCHED) else 0


def n_processes() -> int:
    """Number of processes that train together: 1 until they have joined."""
    return dist.get_world_size() if _in_group() else 1


def join() -> None:
    """Join the others, if ``torchrun`` has launched several processes and no group is initialised.

    :raises ValueError: if the timeout is not a number of seconds above 0
    """
    if _in_group() or not dist.is_available() or not all(name in os.environ for name in _LAUNCHED):
        return
    if int(os.environ["WORLD_SIZE"]) < 2:
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    timeout = _timeout()
    if _Launch.store is None:
        _Launch.store, _, _ = next(rendezvous("env://", timeout=timeout))
        # A gloo group that is left to the interpreter's end now and then aborts a process that has finished.
        atexit.register(leave)
    # Under a name of its own each time, since the store remembers where processes of an earlier group were to be found, those
    # of before a restart included.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"sb3_reinforce/{attempt}/{_Launch.n_joined}", _Launch.store)
    size, number = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    dist.init_process_group("gloo", store=store, rank=number, world_size=size, timeout=timeout)
    _Launch.n_joined += 1
    _Launch.joined = True


def _timeout() -> timedelta:
    text = os.environ.get(TIMEOUT_VARIABLE, str(_DEFAULT_TIMEOUT))
    try:
        timeout = timedelta(seconds=float(text))
    except (ValueError, OverflowError):  # OverflowError: more than a timedelta holds
        timeout = timedelta()
    if not timeout > timedelta():
        raise ValueError(f"`{TIMEOUT_VARIABLE}` must be a number of seconds above 0, but it is {text!r}.")
    return timeout


def leave() -> None:
    """Leave the group that ``join`` has joined. Processes that wait for this one are told so at once."""
    if _Launch.joined:
        _Launch.joined = False
        if _in_group():
            dist.destroy_process_group()


def share(n: int) -> int:
    """This process's part of n things, at least 0. No two parts differ by more than one, and all sum to n."""
    n = int(n)  # a numpy integer may be too small for sums
    return n // n_processes() + (rank() < n % n_processes())


def seed_here(seed: int | None) -> int | None:
    """The seed of this process's random numbers, another one for each process; that of process 0 is the run's."""
    return seed if seed is None or rank() == 0 else (seed + _SEED_STRIDE * rank()) % 2**32


def alone(find: Callable[[], T]) -> list[T]:
    """As ``all_gather``, of this process only."""
    return [find()]


def all_gather(find: Callable[[], T]) -> list[T]:
    """Gather what a function returns in each process, in order of rank. What it raises in one is raised in all.

    Calls may be nested: where one process fails, the others learn of it in whichever call they wait.

    :param find: the same function in all processes; what it returns can be pickled
    :raises RuntimeError: if it is not the same, as where a callback that asks all processes is in one of them only
    """
    if n_processes() == 1:
        return alone(find)
    found: T | None = None
    error: Exception | None = None
    try:
        found = find()
    except Exception as raised:
        if hasattr(raised, _KNOWN):
            raise
        error = raised
    told: list[Any] = [None] * n_processes()
    failure = None if error is None else (type(error).__name__, str(error))
    where = getattr(find, "__qualname__", type(find).__name__)
    try:
        _talk(dist.all_gather_object, told, (failure, where, found))
    finally:
        if error is not None:  # also where the others do not listen any more
            raise _known(error)
    for number, (failure, _, _) in enumerate(told):
        if failure is not None:
            raise _known(_of_kind(failure[0], f"Process {number}: {failure[1]}"))
    for number, (_, elsewhere, _) in enumerate(told):
        if elsewhere != told[0][1]:
            raise _known(
                RuntimeError(
                    f"Process 0 is in {told[0][1]}, and process {number} in {elsewhere}. Callbacks that ask all processes, as "
                    "`GradientStatsCallback` does, have to be in all of them."
                )
            )
    return [each for _, _, each in told]


def _of_kind(name: str, text: str) -> Exception:
    """What another process has raised, as an error of the same class where a text is all that this takes."""
    try:
        error: Exception = getattr(builtins, name, RuntimeError)(text)
    except TypeError:  # as a UnicodeDecodeError, which takes more
        error = RuntimeError(f"{text} ({name})")
    return error


def together(act: Callable[[], T]) -> T:
    """What a function returns here, once it has returned in all processes. What it raises in one is raised in all.

    :param act: the same function in all processes
    """
    results: list[T] = []
    all_gather(lambda: results.append(act()))
    return results[0]


def broadcast(state: T) -> T:
    """Send what process 0 has to all: numbers, and tensors, which are on the CPU then."""
    if n_processes() == 1:
        return state

    def first() -> bytes:
        stream = io.BytesIO()
        if rank() == 0:
            th.save(state, stream)
        return stream.getvalue()

    return th.load(io.BytesIO(all_gather(first)[0]), map_location="cpu", weights_only=False)


def sum_gradients(parameters: Iterable[th.nn.Parameter]) -> None:
    """Make ``grad`` of each parameter the sum of all processes', in one message. It stays None where it is None in all."""
    if n_processes() == 1:
        return
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    if not trainable:
        return
    grads = [th.zeros_like(each) if each.grad is None else each.grad for each in trainable]
    has_grad = th.tensor([each.grad is not None for each in trainable]).to(grads[0])
    sums = th.cat([has_grad, *(grad.flatten() for grad in grads)])
    device, sums = sums.device, sums.cpu() if _carries("cpu") else sums
    _talk(dist.all_reduce, sums)
    n_with_grad, *parts = sums.to(device).split([len(trainable), *(grad.numel() for grad in grads)])
    for parameter, part, n in zip(trainable, parts, n_with_grad.tolist(), strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype) if n > 0 else None


def check_backend(device: th.device) -> None:
    """Refuse a group that can carry no tensor of the policy's.

    :raises ValueError: naming the backend
    """
    if n_processes() > 1 and not (_carries("cpu") or _carries(device.type)):
        raise ValueError(
            f"The backend of the process group must carry tensors of the CPU or of the policy's device, {device.type}, but it "
            f"is {dist.get_backend_config()!r}. Initialise the group with 'gloo'."
        )


def _carries(device_type: str) -> bool:
    return f"{device_type}:" in str(dist.get_backend_config())


def _talk(collective: Callable[..., Any], *arguments: Any) -> None:
    """Call one of torch.distributed's functions, and say what it means if it fails."""
    try:
        collective(*arguments)
    except RuntimeError as error:
        message = (
            f"Process {rank()} of {n_processes()} has lost the others: one has ended, or did not answer within the timeout "
            f"(`{TIMEOUT_VARIABLE}`, in seconds). What it has written before tells why."
        )
        raise _known(RuntimeError(message)) from error


def _known(error: Exception) -> Exception:
    """An error that all processes know of, so that none tells the others again."""
    setattr(error, _KNOWN, True)
    return error
