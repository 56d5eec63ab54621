"""Where work that splits into parts is done: in this process, or on a Ray cluster of one or more machines.

A backend does one thing: it applies a function to parts, with something that all of them share, and gives the results
in the order of the parts. The function is the same everywhere, so the results are. How work gets to machines and back is
Ray's business alone.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol, TypeVar
from uuid import uuid4

from tokswap.errors import ClusterError, InputError, UsageError

P = TypeVar("P")
R = TypeVar("R")
S = TypeVar("S")
Done = Callable[[int], object]
"""Told how much more is done, in whatever unit."""
Work = Callable[[S, P, Done], R]
"""A function of a module: takes what is shared, a part, and what wants to know about its progress."""

_AHEAD = 2
"""Parts for each processor of a cluster that are on their way at a time, so that none waits for its next."""
_SHARES, _SMALLEST = 4, 256
"""A cluster gets this many parts for each processor where there is enough to do, so that all end at about one time."""
_CONNECT_SECONDS = 10
_ALIKE = "install the same release of tokswap, with the same Python and Ray, on all machines"


class Backend(Protocol):
    """One of `Local` and `Ray`."""

    name: ClassVar[str]

    @property
    def used(self) -> bool:
        """Whether something was done elsewhere."""
        ...

    def part(self, total: int, most: int) -> int:
        """Return how many of `total` items should make a part, `most` at most."""
        ...

    def map(self, work: Work[S, P, R], parts: Iterable[P], shared: S, done: Done = lambda amount: None) -> Iterator[R]:
        """Yield work(shared, part, done) for each part, in order. Parts are asked for as they are needed.

        A part must not be changed, nor what is shared. What the work raises is raised here. Raises InputError
        missing-extra; ClusterError no-cluster, worker-lost, worker-differs.
        """
        ...


class Local:
    """This process does the work, part by part."""

    name: ClassVar[str] = "local"
    used: ClassVar[bool] = False

    def part(self, total: int, most: int) -> int:
        """Return `most`."""
        return most

    def map(self, work: Work[S, P, R], parts: Iterable[P], shared: S, done: Done = lambda amount: None) -> Iterator[R]:
        """See `Backend.map`."""
        for part in parts:
            yield work(shared, part, done)


@dataclass
class Ray:
    """A Ray cluster does the work, a part a processor.

    It is found as Ray finds one: the Ray that this process uses already, the address in RAY_ADDRESS, one that was started
    on this machine, and else one is started here, which ends with this process.
    """

    name: ClassVar[str] = "ray"
    used: bool = False

    def part(self, total: int, most: int) -> int:
        """Return a share of all that keeps every processor of the cluster at work."""
        shares = _SHARES * _processors(self._connected())
        return max(1, min(most, max(_SMALLEST, -(-total // shares))))

    def map(self, work: Work[S, P, R], parts: Iterable[P], shared: S, done: Done = lambda amount: None) -> Iterator[R]:
        """See `Backend.map`. What is shared travels once to each machine; arrays in it are read in place, and only read."""
        ray = self._connected()
        task, limit, key = ray.remote(_work), _AHEAD * _processors(ray), uuid4().hex
        running: deque[Any] = deque()

        def first() -> R:
            result, said = ray.get(running[0])
            running.popleft()
            done(said)
            return result  # type: ignore[no-any-return]

        try:
            box = [ray.put(shared)]  # in a list, a worker gets the reference, and may know it already
            for part in parts:
                running.append(task.remote(_version(), work, key, box, part))
                if len(running) >= limit:
                    yield first()
            while running:
                yield first()
        except ray.exceptions.RayError as error:
            raise _reason(error, ray) from error
        finally:
            for left in running:
                ray.cancel(left)

    def _connected(self) -> Any:
        self.used = True
        return _connect()


LOCAL = Local()


def find_backend(name: str) -> Backend:
    """Return the backend "local" or "ray", which nothing is asked of yet. Raises UsageError unknown-engine, InputError missing-extra."""
    if name == "local":
        return LOCAL
    if name != "ray":
        raise UsageError("unknown-engine", f"there is no backend {name!r}", "it is local or ray")
    if find_spec("ray") is None:
        raise InputError("missing-extra", "--backend ray needs Ray", "pip install 'tokswap[distributed]'")
    return Ray()


def check_backend(backend: Backend, device: str) -> None:
    """Raise UsageError bad-device where a backend does not compute on a device."""
    if backend.name == "ray" and device != "cpu":
        message = f"--backend ray computes on the processors of its machines, and not on `{device}`"
        raise UsageError("bad-device", message, "leave out --device, or --backend ray")


def idle_notes(backend: Backend) -> list[str]:
    """Return what to tell of a cluster that was asked for and not used."""
    if backend.name == "local" or backend.used:
        return []
    return ["--backend ray had nothing to do: only corpora are counted on a cluster, and only `omp` computes there"]


_held: dict[str, Any] = {}
"""In a worker: what the parts of the last map share, made once and with what the work has cached in it."""


def _work(caller: str, work: Callable[..., Any], key: str, box: list[Any], part: Any) -> tuple[Any, int]:
    """Do a part in a worker; returns the result, and how much was done."""
    if caller != _version():
        message = f"a worker has tokswap {_version()}, and this is {caller}"
        raise ClusterError("worker-differs", message, _ALIKE, machine=socket.gethostname())
    if key not in _held:
        import ray

        # Ray gives numpy and torch a thread for each processor of a task; the tokenizers library asks for it this way.
        os.environ.setdefault("RAYON_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        _held.clear()
        _held[key] = ray.get(box[0])
    said: list[int] = []
    result = work(_held[key], part, said.append)
    return result, sum(said)


def _version() -> str:
    try:
        return version("tokswap")
    except PackageNotFoundError:  # run from its sources
        return "unknown"


def _connect() -> Any:
    """Return the ray module, connected. Raises ClusterError no-cluster."""
    level = logging.getLogger("ray").level or logging.ERROR  # importing ray sets it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS", "")
    _check_reach(address)
    own = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, logging_level=level, log_to_driver=level <= logging.INFO)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise _no_cluster(str(error), address) from error
    finally:
        if own:
            signal.signal(signal.SIGTERM, handler)  # ray.init puts one there that ends the process on the spot
    return ray


def _check_reach(address: str) -> None:
    """Raise ClusterError no-cluster where nothing answers; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(str(error), address) from error


def _no_cluster(reason: str, address: str) -> ClusterError:
    hint = (
        "start one with `ray start --head`, and set RAY_ADDRESS to the address that it prints; or leave out --backend"
    )
    where = {"RAY_ADDRESS": address} if address else {}
    return ClusterError("no-cluster", f"there is no Ray cluster to work on: {reason}", hint, **where)


def _processors(ray: Any) -> int:
    count = int(ray.cluster_resources().get("CPU", 0))
    if count < 1:
        raise _no_cluster("it has no processors", os.environ.get("RAY_ADDRESS", ""))
    return count


def _reason(error: Any, ray: Any) -> BaseException:
    """Return what a worker raised, or why there is no result of it."""
    failures = ray.exceptions
    if not isinstance(error, failures.RayTaskError):
        hint = (
            "--backend local does without; where memory ran short, start workers with fewer processors (`--num-cpus`)"
        )
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ClusterError("worker-lost", f"a worker of the cluster was lost: {message}", hint)
    cause: BaseException = error.cause
    if isinstance(cause, failures.RaySystemError) or "failed to import on the worker" in str(cause):
        message = f"a worker cannot load what it should do: {str(cause).strip().splitlines()[-1]}"
        return ClusterError("worker-differs", message, _ALIKE)
    return cause
