"""Backends: run work that splits into parts in this process, or on a Ray cluster of one or more machines.

A backend does one thing: it applies a function to parts, and yields the results in the order of the parts. All parts
share one value. The function is the same everywhere, so the results are too. Only Ray decides how work reaches the
machines.
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
"""A progress callback: receives how much more is done, in any unit."""
Work = Callable[[S, P, Done], R]
"""A module-level function: takes the shared value, a part, and a progress callback."""

_AHEAD = 2
"""Parts in flight for each processor of a cluster, so that no processor waits for its next part."""
_SHARES = 4
"""Parts for each processor of a cluster, so that all processors finish at about the same time."""
_SMALLEST = 256
"""Items in the smallest part worth sending to a cluster."""
_CONNECT_SECONDS = 10
_SAME_RELEASES = "install the same release of tokswap, with the same Python and Ray, on all machines"


class Backend(Protocol):
    """Where work runs: `Local` or `Ray`.

    Attributes:
        name: The name of the backend on the command line.
    """

    name: ClassVar[str]

    @property
    def used(self) -> bool:
        """Whether work ran outside this process."""
        ...

    def part(self, total: int, most: int) -> int:
        """Choose the size of a part.

        Args:
            total: The number of items.
            most: The largest size of a part.

        Returns:
            The number of items in a part.
        """
        ...

    def map(self, work: Work[S, P, R], parts: Iterable[P], shared: S, done: Done = lambda amount: None) -> Iterator[R]:
        """Apply a function to each part, and yield the results in order.

        Args:
            work: The function. It must not change the part or the shared value.
            parts: The parts. They are taken as they are needed.
            shared: The value that all parts share.
            done: Receives the progress of the work.

        Raises:
            InputError: missing-extra.
            ClusterError: no-cluster, worker-lost, worker-differs.
            Exception: What the function raises.
        """
        ...


class Local:
    """Run the work in this process, part by part."""

    name: ClassVar[str] = "local"
    used: ClassVar[bool] = False

    def part(self, total: int, most: int) -> int:
        """Return the largest size: this process takes one part at a time."""
        return most

    def map(self, work: Work[S, P, R], parts: Iterable[P], shared: S, done: Done = lambda amount: None) -> Iterator[R]:
        """See `Backend.map`."""
        for part in parts:
            yield work(shared, part, done)


@dataclass
class Ray:
    """Run the work on a Ray cluster, one part per processor.

    Ray finds the cluster in this order: the cluster that this process is connected to, the address in RAY_ADDRESS, a
    cluster that runs on this machine. Otherwise Ray starts one here, which ends with this process.
    """

    name: ClassVar[str] = "ray"
    used: bool = False

    def part(self, total: int, most: int) -> int:
        """Return a size that gives every processor of the cluster several parts."""
        shares = _SHARES * _processors(self._connected())
        return max(1, min(most, max(_SMALLEST, -(-total // shares))))

    def map(self, work: Work[S, P, R], parts: Iterable[P], shared: S, done: Done = lambda amount: None) -> Iterator[R]:
        """See `Backend.map`. The shared value travels once to each machine; its arrays are read-only there."""
        ray = self._connected()
        task, limit, key = ray.remote(_run_part), _AHEAD * _processors(ray), uuid4().hex
        running: deque[Any] = deque()

        def first() -> R:
            result, amount = ray.get(running[0])
            running.popleft()
            done(amount)
            return result  # type: ignore[no-any-return]

        try:
            box = [ray.put(shared)]  # in a list Ray passes the reference, so that a worker loads the value only once
            for part in parts:
                running.append(task.remote(_version(), work, key, box, part))
                if len(running) >= limit:
                    yield first()
            while running:
                yield first()
        except ray.exceptions.RayError as error:
            # Parts in flight are few and end by themselves: cancelling them can crash the process (Ray 2.60).
            raise _cause(error, ray) from error

    def _connected(self) -> Any:
        self.used = True
        return _connect()


LOCAL = Local()


def find_backend(name: str) -> Backend:
    """Return a backend by its name. Nothing connects to a cluster yet.

    Args:
        name: "local" or "ray".

    Raises:
        UsageError: unknown-engine.
        InputError: missing-extra.
    """
    if name == "local":
        return LOCAL
    if name != "ray":
        raise UsageError("unknown-engine", f"there is no backend {name!r}", "choose local or ray")
    if find_spec("ray") is None:
        raise InputError("missing-extra", "--backend ray needs Ray", "pip install 'tokswap[distributed]'")
    return Ray()


def check_backend(backend: Backend, device: str) -> None:
    """Check that a backend can compute on a device.

    Raises:
        UsageError: bad-device.
    """
    if backend.name == "ray" and device != "cpu":
        message = f"--backend ray computes on CPUs only, not on `{device}`"
        raise UsageError("bad-device", message, "leave out --device, or --backend ray")


def idle_notes(backend: Backend) -> list[str]:
    """Return a note if the user asked for a cluster and no work ran on it."""
    if backend.name == "local" or backend.used:
        return []
    return ["--backend ray had nothing to do: only corpus counting and the `omp` method use a cluster"]


_shared: dict[str, Any] = {}
"""In a worker: the shared value of the last map, with everything that the work has cached in it."""


def _run_part(caller: str, work: Callable[..., Any], key: str, box: list[Any], part: Any) -> tuple[Any, int]:
    """Run one part in a worker. Returns the result, and how much is done."""
    if caller != _version():
        message = f"a worker has tokswap {_version()}, and this is {caller}"
        raise ClusterError("worker-differs", message, _SAME_RELEASES, machine=socket.gethostname())
    if key not in _shared:
        import ray

        # Ray limits the threads of numpy and torch to the processors of a task. The tokenizers library reads this.
        os.environ.setdefault("RAYON_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
        _shared.clear()
        _shared[key] = ray.get(box[0])
    amounts: list[int] = []
    result = work(_shared[key], part, amounts.append)
    return result, sum(amounts)


def _version() -> str:
    try:
        return version("tokswap")
    except PackageNotFoundError:  # not installed: run from a source tree
        return "unknown"


def _connect() -> Any:
    """Return the ray module, connected to a cluster. Raises ClusterError no-cluster."""
    level = logging.getLogger("ray").level or logging.ERROR  # read before the import of ray sets it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return ray
    address = os.environ.get("RAY_ADDRESS", "")
    _check_address(address)
    own = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, logging_level=level, log_to_driver=level <= logging.INFO)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise _no_cluster(str(error), address) from error
    finally:
        if own:
            signal.signal(signal.SIGTERM, handler)  # the handler of ray.init ends the process without cleaning up
    return ray


def _check_address(address: str) -> None:
    """Raise ClusterError no-cluster if nothing answers at an address. Ray itself tries for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(str(error), address) from error


def _no_cluster(reason: str, address: str) -> ClusterError:
    hint = "run `ray start --head`, and set RAY_ADDRESS to the address that it prints; or leave out --backend"
    where = {"RAY_ADDRESS": address} if address else {}
    return ClusterError("no-cluster", f"cannot connect to a Ray cluster: {reason}", hint, **where)


def _processors(ray: Any) -> int:
    count = int(ray.cluster_resources().get("CPU", 0))
    if count < 1:
        raise _no_cluster("it has no processors", os.environ.get("RAY_ADDRESS", ""))
    return count


def _cause(error: Any, ray: Any) -> BaseException:
    """Return what a worker raised, or a ClusterError that says why there is no result."""
    failures = ray.exceptions
    if not isinstance(error, failures.RayTaskError):
        hint = "if memory was short, start workers with fewer processors (`--num-cpus`), or use --backend local"
        message = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ClusterError("worker-lost", f"the cluster lost a worker: {message}", hint)
    cause: BaseException = error.cause
    if isinstance(cause, failures.RaySystemError) or "failed to import on the worker" in str(cause):
        message = f"a worker cannot load the function to run: {str(cause).strip().splitlines()[-1]}"
        return ClusterError("worker-differs", message, _SAME_RELEASES)
    return cause
