import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.testing import sky
from cubekit.testing.fractal import fractal
from cubekit.testing.landscape import BROADLEAF, CEREAL, CLASSES, CONIFER, MAIZE, WATER, build_landscape
from cubekit.testing.phenology import Growth, build_calendars
from cubekit.testing.spectra import BANDS, END_MEMBERS, canopy
from cubekit.testing.sun import Sun, sun_at
from cubekit.testing.year import FINE, build_year
from cubekit.typing import FloatArray

SHAPE = (100, 180)


def test_windows_are_the_double_logistic_of_beck() -> None:
    winter, top, spring, autumn, rise, fall = 0.2, 0.9, 120.0, 280.0, 0.15, 0.08
    day = np.arange(1, 366, 7)
    up, down = 1 / (1 + np.exp(-rise * (day - spring))), 1 / (1 + np.exp(fall * (day - autumn)))
    expected = winter + (top - winter) * (up + down - 1)
    windows = [(winter, -1e4, 1, 1e4, 1), (top - winter, spring, 1 / rise, autumn, 1 / fall)]
    growth = Growth(np.array(windows).T[:, None, :])
    got = np.array([growth.at(float(d))[0] for d in day])
    keep = up + down > 1  # leaf area is not negative; the formula can dip a little below winter
    assert got[keep] == pytest.approx(expected[keep], abs=1e-12)
    assert (got >= winter - 1e-12).all()


@pytest.fixture(scope="module")
def leaves() -> tuple[FloatArray, FloatArray]:
    kind = np.repeat(np.arange(len(CLASSES)), 400)
    calendars = build_calendars(0, kind)
    days = np.arange(1.0, 366, 4)
    green = np.array([calendars.leaf.at(float(d)) + calendars.needle.at(float(d)) for d in days])
    return days, np.array([green[:, kind == k].mean(1) for k in range(len(CLASSES))])


def test_land_covers_peak_when_they_do_in_central_europe(leaves: tuple[FloatArray, FloatArray]) -> None:
    days, green = leaves
    peak = dict(zip(CLASSES, days[green.argmax(1)], strict=True))
    assert 110 <= peak["winter cereal"] <= 175
    assert 195 <= peak["maize"] <= 255
    assert 130 <= peak["broadleaf forest"] <= 260
    assert green[CONIFER].min() > 2.5
    assert green[BROADLEAF][days < 90].max() < 1.8
    assert green[WATER].max() == 0
    may, august = np.abs(days - 140).argmin(), np.abs(days - 225).argmin()
    assert green[CEREAL][may] > 3 * green[MAIZE][may]
    assert green[MAIZE][august] > 3 * green[CEREAL][august]


def test_parcels_differ_in_timing_by_weeks() -> None:
    calendars = build_calendars(1, np.full(500, MAIZE))
    days = np.arange(130, 230)
    green = np.array([calendars.leaf.at(float(d)) for d in days])
    summer = green[-1]
    start = days[(green[::-1] < summer / 2).argmax(0) * -1 - 1]
    assert 8 < start.std() < 18


@given(area=st.floats(0, 8), band=st.integers(0, len(BANDS) - 1))
def test_a_canopy_lies_between_its_ground_and_closed_leaves(area: float, band: int) -> None:
    ground, closed = END_MEMBERS[6, band], END_MEMBERS[0, band]
    seen = canopy(np.array([ground]), np.array([closed]), np.array([area]), band)[0]
    assert min(ground, closed) - 1e-6 <= seen <= max(ground, closed) + 1e-6


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_landscapes_hold_every_class_in_whole_parcels(seed: int) -> None:
    land = build_landscape(seed, SHAPE)
    assert land.parcel.shape == SHAPE
    assert np.array_equal(np.unique(land.parcel), np.arange(land.kind.size))
    shares = np.bincount(land.kind[land.parcel].ravel(), minlength=len(CLASSES)) / land.parcel.size
    assert (shares > 0.015).all(), shares
    assert ((land.track >= 0) & (land.track <= 0.5)).all()


def test_fields_have_the_size_of_fields() -> None:
    land = build_landscape(0, (500, 900))
    hectares = np.bincount(land.parcel.ravel())[(land.kind == CEREAL) | (land.kind == MAIZE)] / 100
    assert (hectares > 0.4).mean() > 0.97
    assert 1 < np.median(hectares) < 4
    assert np.quantile(hectares, 0.99) < 12


def test_fractal_fields_are_standard_and_smoother_with_a_steeper_slope() -> None:
    rough, smooth = (fractal(np.random.default_rng(0), (90, 130), longest=60, slope=s) for s in (0.5, 2.0))
    for field in (rough, smooth):
        assert field.dtype == np.float32
        assert field.mean() == pytest.approx(0, abs=1e-4)
        assert field.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(smooth)).mean() < 0.3 * np.abs(np.diff(rough)).mean()


def test_periodic_fields_join_at_their_edges() -> None:
    field = fractal(np.random.default_rng(0), (128, 128), longest=60, slope=2.0, periodic=True)
    assert np.abs(field[0] - field[-1]).mean() < 2 * np.abs(np.diff(field, axis=0)).mean()


@pytest.mark.parametrize(("day", "zenith"), [(81, 48.2), (172, 48.2 - 23.44), (355, 48.2 + 23.44)])
def test_the_noon_sun_stands_in_the_south_at_the_height_of_the_season(day: int, zenith: float) -> None:
    sun = sun_at(day, latitude=48.2, solar_hour=12)
    assert np.degrees(sun.zenith) == pytest.approx(zenith, abs=1)
    assert np.degrees(sun.azimuth) == pytest.approx(180, abs=0.5)
    assert sun_at(day, latitude=48.2, solar_hour=10).azimuth < np.pi


@pytest.mark.parametrize("azimuth", [30, 140, 200, 320])
def test_shadows_fall_away_from_the_sun(azimuth: float) -> None:
    sun = Sun(np.radians(20), np.radians(azimuth))
    look = sky.build_sky(0, (256, 256)).look(np.random.default_rng(0), 10, sky.Weather(0.3, 0, 0), sun)
    correlation = np.fft.fft2(look.shadow - look.shadow.mean()) * np.conj(
        np.fft.fft2(look.cloud - look.cloud.mean())
    )
    peak = np.unravel_index(np.fft.ifft2(correlation).real.argmax(), (256, 256))
    south, east = ((int(p) + 128) % 256 - 128 for p in peak)
    towards = np.degrees(np.arctan2(east, -south)) % 360
    assert abs((towards - azimuth - 180 + 180) % 360 - 180) < 5


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_a_year_has_two_dates_a_month_and_mostly_one_clear_look(seed: int) -> None:
    passes = build_year(seed, (20, 36), 24).passes
    moments = [flight.moment for flight in passes]
    assert moments == sorted(moments)
    assert Counter(m.month for m in moments) == dict.fromkeys(range(1, 13), 2)
    gaps = np.diff([m.timetuple().tm_yday for m in moments])
    assert len(set(gaps.tolist())) > 1, "real archives are irregular"
    covers = np.array([flight.weather.cover for flight in passes]).reshape(12, 2)
    assert covers.max() <= 0.8
    assert 9 <= (covers.min(1) < 0.1).sum() < 12, "a few dull months leave gaps"
    assert {flight.is_partial for flight in passes} == {True, False}


def test_coarse_bands_are_means_of_the_fine_field() -> None:
    year = build_year(5, SHAPE, 3)
    for flight in year.passes:
        fine, delivered = year.reflectance(flight), year.deliver(flight)
        for band, name in enumerate(BANDS):
            expected = fine[band]
            if name not in FINE:
                rows = np.add.reduceat(fine[band], np.arange(0, SHAPE[0], 2), axis=0)
                expected = np.add.reduceat(rows, np.arange(0, SHAPE[1], 2), axis=1) / 4
            numbers = delivered[name]
            valid = numbers > 1
            error = numbers[valid] - flight.offset - 1e4 * expected[valid]
            assert np.abs(error).max() < 0.51, (name, flight.baseline)


def test_masks_miss_some_thin_cloud_as_real_ones_do() -> None:
    year = build_year(2, (200, 360), 24)
    missed = []
    for flight in year.passes[::3]:
        _, look = year._observed(flight)  # noqa: SLF001 (what the mask should have found is not delivered)
        scl = year.deliver(flight)["SCL"]
        hidden = sky.halve(look.cloud + look.shadow) > 0.05
        missed.append((hidden & np.isin(scl, (4, 5, 6))).mean())
    assert 0.01 < np.mean(missed) < 0.12


def test_importing_the_archive_needs_nothing_heavy() -> None:
    code = (
        "import sys, cubekit.testing.archive; "
        "print([m for m in ('torch', 'rasterio', 'geopandas', 'scipy', 'pystac') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
