"""Which dates of a cube a store lacks, has, or has from other scenes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cubekit.cube.plan import Plan
from cubekit.cube.recipe import periods, reach
from cubekit.errors import StoreError
from cubekit.store.provenance import UNKNOWN, Provenance, to_date

_SLACK = 2
"""Pixels by which a newer version of a scene may be smaller."""


class ToDo(NamedTuple):
    """The dates of a store after its change."""

    order: tuple[tuple[bool, int], ...]
    """For each date, in the order of time: whether it is the cube's, and its number there or in the store."""

    before: int
    """Dates of the store before."""

    appended: tuple[int, ...]
    """Numbers of the cube's dates that come after all of the store's."""

    inserted: tuple[int, ...]
    """Numbers of those that come between or before them."""

    replaced: tuple[int, ...]
    """Numbers of those that take the place of one of the store's."""


def compare_dates(old: Provenance, new: Provenance, on_change: str, where: str) -> ToDo:
    """Decide for each date whether it is taken from the store or from the cube.

    Parameters
    ----------
    old, new : Provenance
        Of store and cube.
    on_change : {"update", "replace", "keep", "raise"}
        What to do with dates that both have, made from different scenes.
    where : str
        Path of the store, for messages.

    Returns
    -------
    ToDo
        Sorted by time.

    Raises
    ------
    StoreError
        If times repeat, a period overlaps another one, or a changed date may not be replaced.
    """
    stored = {date.time: number for number, date in enumerate(old.dates)}
    coming = {date.time: number for number, date in enumerate(new.dates)}
    if len(coming) < len(new.dates):
        raise StoreError("The times of the cube repeat: use .drop_duplicates('time').")
    changed = [
        number
        for time, number in coming.items()
        if time in stored and old.dates[stored[time]].mark != new.dates[number].mark
    ]
    if on_change == "keep":
        changed = []
    for number in changed:
        _check_change(old, new, number, stored[new.dates[number].time], on_change=on_change, where=where)
    extra = [number for time, number in coming.items() if time not in stored]
    last = max(stored, default=np.iinfo(np.int64).min)
    _check_overlap(old, new, extra, where)
    picked = {time: (False, number) for time, number in stored.items()}
    picked |= {new.dates[number].time: (True, number) for number in (*changed, *extra)}
    return ToDo(
        order=tuple(picked[time] for time in sorted(picked)),
        before=len(stored),
        appended=tuple(number for number in extra if new.dates[number].time > last),
        inserted=tuple(number for number in extra if new.dates[number].time < last),
        replaced=tuple(changed),
    )


def _check_change(
    old: Provenance, new: Provenance, number: int, place: int, *, on_change: str, where: str
) -> None:
    """Refuse a replacement that is not wanted, or would lose a scene unnoticed."""
    made, coming = old.dates[place], new.dates[number]
    day = str(to_date(made.time))[:19]
    if on_change == "raise":
        raise StoreError(
            f"{where}: {day} is there already, made from other scenes or numbers. on_change='update' "
            "replaces it, 'keep' leaves it."
        )
    if on_change == "replace":
        return
    if made.origin == UNKNOWN:
        raise StoreError(
            f"{where}: {day} is there already, and the store does not say from which scenes (an older "
            "version wrote it). on_change='replace' replaces it, 'keep' leaves it."
        )
    before = old.origins[made.origin].scenes(to_date(made.time))
    after = new.origins[coming.origin].scenes(to_date(coming.time))
    if lost := _lost(before, after):
        raise StoreError(
            f"{where}: {day} was made from {', '.join(lost)} too, which the cube lacks. Open all scenes of "
            "the date, or pass on_change='replace' to give them up, 'keep' to leave the date."
        )


def _lost(before: Sequence[tuple[Plan, list[int]]], after: Sequence[tuple[Plan, list[int]]]) -> list[str]:
    """Return the scenes that are neither there again nor covered by a newer version, one for one."""
    names = {plan.scenes[scene] for plan, scenes in before for scene in scenes}
    spare = [
        plan.bounds[scene] for plan, scenes in after for scene in scenes if plan.scenes[scene] not in names
    ]
    again = {plan.scenes[scene] for plan, scenes in after for scene in scenes}
    lost = []
    for plan, scenes in before:
        for scene in scenes:
            if plan.scenes[scene] in again:
                continue
            newer = next((n for n, bounds in enumerate(spare) if _covers(bounds, plan.bounds[scene])), None)
            if newer is None:
                lost.append(plan.scenes[scene])
            else:
                spare.pop(newer)
    return lost


def _covers(bounds: Sequence[int], other: Sequence[int]) -> bool:
    top, left, bottom, right = (int(a) - int(b) for a, b in zip(bounds, other, strict=True))
    return max(top, left) <= _SLACK and min(bottom, right) >= -_SLACK


def _check_overlap(old: Provenance, new: Provenance, extra: Sequence[int], where: str) -> None:
    """Refuse periods that overlap those of the store, as with composites that begin on another day."""
    recipe = new.origins[0].recipe if new.origins else ()
    every = next((options["every"] for name, options in recipe if name == "composite"), None)
    if every is None or not extra or reach(recipe, np.array([], "datetime64[ns]")) is None:
        return
    fresh = {to_date(new.dates[number].time) for number in extra}
    times = sorted(fresh | {to_date(date.time) for date in old.dates})
    for (start, end), following in zip(periods(every, np.array(times))[:-1], times[1:], strict=True):
        if end > following:
            raise StoreError(
                f"{where}: the period of {every} from {str(start)[:10]} overlaps the one from "
                f"{str(following)[:10]}. Give composite(start=…) the first day of a period of the store."
            )
