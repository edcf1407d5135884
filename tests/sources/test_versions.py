"""One of each scene, by identifiers as the archives write them."""

import datetime as dt
import random

import pystac
import pytest

from cubekit.sources.versions import newest_versions


def scene(name: str, **properties: str) -> pystac.Item:
    time = dt.datetime(2022, 1, 17, tzinfo=dt.UTC)
    return pystac.Item(name, None, None, time, dict(properties), collection="c")


# Older first; only the last of each list stays.
VERSIONS = {
    "Landsat, real time then tier 1": [
        "LC08_L1TP_028030_20200114_20200114_02_RT",
        "LC08_L1TP_028030_20200114_20200824_02_T2",
        "LC08_L1TP_028030_20200114_20200824_02_T1",
    ],
    "Landsat, reprocessed": [
        "LC08_L2SP_028030_20200114_20200824_02_T1_SR",
        "LC08_L2SP_028030_20200114_20210824_02_T1_SR",
    ],
    "Landsat, as the Planetary Computer names it": [
        "LC09_L2SR_088084_20240417_02_T1",
        "LC09_L2SP_088084_20240417_02_T1",
    ],
    "MODIS, made again": [
        "MOD13Q1.A2022017.h12v11.061.2022035042400",
        "MOD13Q1.A2022017.h12v11.061.2023035042400",
    ],
    "MODIS, next version": [
        "MOD09A1.A2022017.h12v11.006.2023035042400",
        "MOD09A1.A2022017.h12v11.061.2022035042400",
    ],
    "HLS, next version": ["HLS.S30.T33UVP.2021002T100411.v1.5", "HLS.S30.T33UVP.2021002T100411.v2.0"],
}

APART = [
    ("LC08_L2SP_028030_20200114_20200824_02_T1", "LC08_L2SP_028031_20200114_20200824_02_T1"),
    ("LC08_L2SP_028030_20200114_20200824_02_T1", "LC09_L2SP_028030_20200114_20200824_02_T1"),
    ("LC08_L1TP_028030_20200114_20200824_02_T1", "LC08_L2SP_028030_20200114_20200824_02_T1"),
    ("LC08_L2SP_028030_20200114_20200824_02_T1_SR", "LC08_L2SP_028030_20200114_20200824_02_T1_ST"),
    ("MOD13Q1.A2022017.h12v11.061.2022035042400", "MYD13Q1.A2022017.h12v11.061.2022035042400"),
    ("MOD13Q1.A2022017.h12v11.061.2022035042400", "MOD13Q1.A2022033.h12v11.061.2022035042400"),
    ("MOD13Q1.A2022017.h12v11.061.2022035042400", "MOD13Q1.A2022017.h12v10.061.2022035042400"),
    ("HLS.S30.T33UVP.2021002T100411.v2.0", "HLS.L30.T33UVP.2021002T100411.v2.0"),
    ("HLS.S30.T33UVP.2021002T100411.v2.0", "HLS.S30.T33UVP.2021002T100415.v2.0"),
    ("Landsat_mosaic_1", "Landsat_mosaic_2"),
]


@pytest.mark.parametrize("names", VERSIONS.values(), ids=VERSIONS)
def test_the_newest_stays_in_any_order(names: list[str]) -> None:
    for seed in range(6):
        shuffled = names[:]
        random.Random(seed).shuffle(shuffled)
        kept, dropped = newest_versions([scene(name) for name in shuffled])
        assert [item.id for item in kept] == names[-1:]
        assert sorted(item.id for item in dropped) == sorted(names[:-1])


@pytest.mark.parametrize(("one", "other"), APART)
def test_scenes_that_are_not_the_same_both_stay(one: str, other: str) -> None:
    kept, dropped = newest_versions([scene(one), scene(other)])
    assert [item.id for item in kept] == [one, other]
    assert dropped == ()


def test_two_versions_without_a_date_of_making_go_by_their_update() -> None:
    old = scene("MOD13Q1.A2022017.h12v11.061", updated="2022-02-01T00:00:00Z")
    new = scene("MOD13Q1.A2022017.h12v11.061", updated="2023-02-01T00:00:00Z")
    assert newest_versions([new, old]) == ((new,), (old,))
