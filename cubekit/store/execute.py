"""Run the regions of a writer on threads, processes or a cluster: few at a time, retried, failures named."""

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing import get_context
from typing import Any, TypeVar

import cloudpickle  # type: ignore[import-untyped]  # ships our own graphs to our own workers, as Dask does
from dask.array import from_array
from dask.system import CPU_COUNT

from cubekit.errors import CubekitError, OptionError, StoreError, did_you_mean
from cubekit.store.objects import Digest
from cubekit.store.regions import Region, Task, fill

RETRIES = 2
"""How often a region is tried again after a failed read or a dead worker."""

_LARGE = 1 << 20

_E = TypeVar("_E", bound=Executor)


@dataclass(frozen=True)
class Crew:
    """Workers that fill regions."""

    submit: Callable[[Task, int], "Future[dict[str, Digest]]"]
    """Takes a task and the number of its lane."""
    window: int
    """Regions in flight."""
    lanes: int = 1
    """Workers that share no memory: each is given regions next to each other, as they need the same tiles of
    the sources, which it has decoded then."""


@dataclass(frozen=True)
class _Attempt:
    """A region on its way through the workers."""

    region: Region
    lane: int = 0
    failures: int = 0
    alone: bool = False
    """Try it with nothing else in flight: a worker died while several regions were."""


@contextmanager
def crew(scheduler: Any, workers: int | None, fitting: int) -> Iterator[Crew]:
    """Hire workers while the block runs.

    Parameters
    ----------
    scheduler : None, "threads", "processes", address or distributed.Client
        None takes the active Dask cluster if there is one, else threads.
    workers : int or None
        Threads or processes; None takes one for each core. A cluster brings its own.
    fitting : int
        Regions that the memory budget allows at once on this machine.

    Yields
    ------
    Crew
        Ready to work; what is still running when the block ends is waited for, the rest cancelled.

    Raises
    ------
    OptionError
        For an unknown scheduler or a worker count below one.
    """
    if workers is not None and workers < 1:
        raise OptionError(f"workers={workers!r} is not accepted: at least one is needed.")
    count = workers or CPU_COUNT
    client = None if isinstance(scheduler, str) and "://" not in scheduler else _client(scheduler)
    with ExitStack() as stack:
        if client is not None:
            if isinstance(scheduler, str):
                stack.callback(client.close)
            yield _cluster_crew(client, stack)
        elif scheduler in {None, "threads"}:
            yield _thread_crew(count, fitting, stack)
        elif scheduler == "processes":
            yield _process_crew(max(1, min(count, fitting)), stack)
        else:
            hint = did_you_mean(scheduler, ("threads", "processes"))
            raise OptionError(
                f"scheduler={scheduler!r} is not accepted. {hint} Or give a Dask address or Client."
            )


def run(
    regions: Iterable[Region], task_of: Callable[[Region], Task], workers: Crew
) -> Iterator[tuple[Region, dict[str, Digest]]]:
    """Fill regions, a bounded number at a time.

    Parameters
    ----------
    regions : iterable
        In an order in which neighbours follow each other.
    task_of : callable
        Makes the task of a region, when a worker is free: graphs of waiting regions take no memory.
    workers : Crew
        From `crew`.

    Yields
    ------
    tuple
        Region and digests of its objects, in the order in which they finish.

    Raises
    ------
    StoreError
        After the regions in flight have finished, naming the first that failed. Errors of cubekit's own keep
        their type and get a note.
    """
    coming, again = _Strips(regions, workers.lanes), deque[_Attempt]()
    waiting: dict[Future[dict[str, Digest]], _Attempt] = {}
    failure: BaseException | None = None
    while True:
        while failure is None:
            alone = any(attempt.alone for attempt in (*again, *waiting.values()))
            if len(waiting) >= (1 if alone else workers.window):
                break
            attempt = again.popleft() if again else coming.next(_idle(waiting.values(), workers.lanes))
            if attempt is None:
                break
            waiting[workers.submit(task_of(attempt.region), attempt.lane)] = attempt
        if not waiting:
            break
        crowd = len(waiting) > 1
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            attempt = waiting.pop(future)
            error = future.exception()
            if error is None:
                yield attempt.region, future.result()
            elif (after := _again(attempt, error, crowd=crowd)) is not None:
                again.append(after)
            else:
                failure = failure or _named(error, attempt.region)
    if failure is not None:
        raise failure


class _Strips:
    """Regions that wait, in a strip for each lane."""

    def __init__(self, regions: Iterable[Region], lanes: int) -> None:
        waiting = list(regions)
        ends = [number * len(waiting) // lanes for number in range(lanes + 1)]
        self._strips = [deque(waiting[start:stop]) for start, stop in pairwise(ends)]

    def next(self, lane: int) -> _Attempt | None:
        """Return the next region of a lane, or the last of another when it has none; None after the last."""
        strip = self._strips[lane]
        if strip:
            return _Attempt(strip.popleft(), lane)
        longest = max(self._strips, key=len)
        return _Attempt(longest.pop(), lane) if longest else None


def _idle(waiting: Iterable[_Attempt], lanes: int) -> int:
    """Return the lane with the fewest regions in flight."""
    busy = Counter(attempt.lane for attempt in waiting)
    return min(range(lanes), key=lambda lane: busy[lane])


def _again(attempt: _Attempt, error: BaseException, *, crowd: bool) -> _Attempt | None:
    """Return the next attempt at a region, or None where trying again is no use."""
    if isinstance(error, BrokenProcessPool) and crowd:  # whose worker died is not known: nobody is blamed
        return replace(attempt, alone=True)
    passing = isinstance(error, BrokenProcessPool | OSError) and not isinstance(error, StoreError)
    if passing and attempt.failures < RETRIES:
        return replace(attempt, failures=attempt.failures + 1)
    return None


def _named(error: BaseException, region: Region) -> BaseException:
    """Say which region failed and what to do."""
    text = f"Region {region} failed. Finished regions are kept: run write again to go on."
    if isinstance(error, CubekitError) or not isinstance(error, Exception):
        error.add_note(text)
        return error
    named = StoreError(f"{text} Cause: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named


def _thread_crew(count: int, fitting: int, stack: ExitStack) -> Crew:
    """Compute blocks on shared threads; a few more threads encode and write."""
    blocks = stack.enter_context(ThreadPoolExecutor(count, "cubekit-block"))
    window = max(1, min(count + 1, fitting))
    regions = stack.enter_context(_leaving(ThreadPoolExecutor(window, "cubekit-region")))
    return Crew(lambda task, _: regions.submit(fill, task, scheduler="threads", pool=blocks), window)


def _process_crew(count: int, stack: ExitStack) -> Crew:
    """Give each region to a process; a pool whose worker died is replaced."""

    def hired() -> ProcessPoolExecutor:
        return stack.enter_context(_leaving(ProcessPoolExecutor(count, get_context("spawn"))))

    pool = hired()

    def submit(task: Task, _: int) -> "Future[dict[str, Digest]]":
        nonlocal pool
        payload = cloudpickle.dumps(task)
        try:
            return pool.submit(_fill_pickled, payload)
        except BrokenProcessPool:
            pool = hired()
            return pool.submit(_fill_pickled, payload)

    return Crew(submit, count)


def _cluster_crew(client: Any, stack: ExitStack) -> Crew:
    """Give each region to a cluster as one task; the scheduler replaces workers that die.

    Each worker is preferred for a strip of the regions, as long as the workers are those of the beginning;
    where they come and go the scheduler chooses.
    """
    threads = client.nthreads()
    anywhere, *executors = [
        client.get_executor(pure=False),
        *(client.get_executor(pure=False, workers=[each], allow_other_workers=True) for each in threads),
    ]
    for executor in (anywhere, *executors):
        stack.callback(executor.shutdown)

    def submit(task: Task, lane: int) -> "Future[dict[str, Digest]]":
        payload = cloudpickle.dumps(_fetched(task, client))
        if len(payload) > _LARGE:  # numbers in memory: through the data channel, not the scheduler
            payload = client.scatter(payload, hash=False)
        steady = len(threads) > 1 and client.nthreads().keys() == threads.keys()
        return (executors[lane] if steady else anywhere).submit(_fill_pickled, payload)  # type: ignore[no-any-return]

    return Crew(submit, max(2, 2 * sum(threads.values())), max(1, len(threads)))


def _fetched(task: Task, client: Any) -> Task:
    """Fetch blocks that lie on the cluster already, as after persist: a task could not resolve them."""
    from distributed import futures_of

    arrays = [block for _, block in task.blocks]
    if not futures_of(arrays):  # type: ignore[no-untyped-call]
        return task
    values = client.compute(arrays, sync=True)
    lazy = [from_array(value) for value in values]  # type: ignore[no-untyped-call]
    return replace(task, blocks=tuple(zip([array for array, _ in task.blocks], lazy, strict=True)))


def _fill_pickled(payload: bytes) -> dict[str, Digest]:
    """Fill a region on a worker in another process, which computes it alone."""
    return fill(cloudpickle.loads(payload), scheduler="synchronous")


@contextmanager
def _leaving(executor: _E) -> Iterator[_E]:
    """Cancel what has not begun when the block ends, and wait for the rest."""
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _client(scheduler: Any) -> Any:
    """Return the Dask client that is meant, or None."""
    if scheduler is None:
        if "distributed" not in sys.modules:
            return None
        from distributed import default_client

        try:
            return default_client()  # type: ignore[no-untyped-call]
        except ValueError:
            return None
    from distributed import Client

    if isinstance(scheduler, Client):
        return scheduler
    if isinstance(scheduler, str):
        try:
            return Client(scheduler, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise StoreError(f"No Dask scheduler answers at {scheduler}: {error}. Is it running?") from error
    return None
