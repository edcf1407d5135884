"""The order of operations, on random scenes that overlap: harmonise, mask, lay over each other, composite."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_dilation, binary_erosion

from cubekit.cube.composite import composite
from cubekit.cube.contract import MAIN
from cubekit.cube.load import open_cube

Array = npt.NDArray[Any]
SIDE = 36
GRID = GeoBox.from_bbox(
    (400_000, 4_400_000, 400_000 + 10 * SIDE, 4_400_000 + 10 * SIDE), "EPSG:32630", resolution=10
)
SCENE = 24
CLOUDS = (0, 1, 8, 9, 10)
NAMES = itertools.count()
DAYS = ("2023-05-03", "2023-05-03", "2023-05-03", "2023-05-20", "2023-05-20", "2023-05-29", "2023-06-02")

scenes = st.lists(
    st.tuples(
        st.sampled_from(DAYS),
        st.integers(0, 23),  # hour
        st.sampled_from(["02.14", "03.01", "04.00", "05.10"]),
        st.integers(0, (SIDE - SCENE) // 2),
        st.integers(0, (SIDE - SCENE) // 2),
        st.integers(0, 10_000),
    ),
    min_size=2,
    max_size=6,
    unique_by=lambda scene: scene[:2],
)


def pixels(seed: int) -> tuple[Array, Array, Array]:
    """Return red, near infrared and scene classes, with gaps and clumps of clouds."""
    rng = np.random.default_rng(seed)
    red, nir = rng.integers(1, 9000, (2, SCENE, SCENE)).astype("uint16")
    red[rng.random(red.shape) < 0.1] = 0
    nir[rng.random(nir.shape) < 0.1] = 0
    scl = np.full((SCENE // 2, SCENE // 2), 4, "uint8")
    for _ in range(3):
        top, left, size = rng.integers((0, 0, 1), (11, 11, 6)).tolist()
        scl[top : top + size, left : left + size] = rng.choice([8, 9, 3, 10])
    return red, nir, scl


def hidden_by_hand(scl: Array, opening: int, dilate: int) -> Array:
    cloudy = np.isin(np.repeat(np.repeat(scl, 2, 0), 2, 1), CLOUDS)
    if opening:
        square = np.ones((2 * opening + 1,) * 2, bool)
        far = np.pad(cloudy, 8 * opening, constant_values=True)
        opened = binary_dilation(binary_erosion(far, square, border_value=1), square)
        cloudy = opened[8 * opening : -8 * opening, 8 * opening : -8 * opening]
    if dilate:
        cloudy = binary_dilation(cloudy, np.ones((2 * dilate + 1,) * 2, bool))
    return np.asarray(cloudy)


def by_hand(drawn: list[Any], opening: int, dilate: int) -> dict[str, Array]:
    """Lay the scenes of each day over each other, in whole numbers of the coding since baseline 04.00."""
    days: dict[str, Array] = {}
    for day, _, baseline, top, left, seed in sorted(drawn):
        red, nir, scl = pixels(seed)
        hidden = hidden_by_hand(scl, opening, dilate)
        canvas = days.setdefault(day, np.zeros((2, SIDE, SIDE), int))
        for band, values in enumerate((red, nir)):
            shift = 0 if baseline >= "04.00" else 1000
            harmonised = np.where(values > 0, values.astype(int) + shift, 0)
            here = canvas[band, 2 * top : 2 * top + SCENE, 2 * left : 2 * left + SCENE]
            here[...] = np.where((here == 0) & ~hidden, harmonised, here)
    return days


@given(scenes, st.sampled_from([(0, 0), (0, 3), (1, 0), (2, 2)]))
@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_pixel_is_what_the_rule_gives(
    make_item: Any, as_items: Any, drawn: list[Any], shape: tuple[int, int]
) -> None:
    opening, dilate = shape
    items = []
    for day, hour, baseline, top, left, seed in drawn:
        box = GRID[2 * top : 2 * top + SCENE, 2 * left : 2 * left + SCENE]
        red, nir, scl = pixels(seed)
        bands = {"B04": (red, box), "B08": (nir, box), "SCL": (scl, box.zoom_out(2))}
        properties = {"s2:processing_baseline": baseline}
        item = make_item(f"s{next(NAMES)}", f"{day}T{hour:02}:00", bands, properties=properties)
        item.assets["SCL"].extra_fields["raster:bands"][0].pop("nodata")
        items.append(item)
    days = by_hand(drawn, opening, dilate)
    cube = open_cube(
        as_items(items, "sentinel-2-l2a"), GRID, bands=["B04", "B08"], mask="clouds", group_by="solar_day",
        dilate=dilate, opening=f"{10 * opening} m", chunks={"time": 1, "y": 17, "x": 11},
    )  # fmt: skip
    assert [str(time.date()) for time in cube.indexes["time"]] == sorted(days)
    np.testing.assert_array_equal(cube[MAIN].to_numpy(), np.stack([days[day] for day in sorted(days)]))
    found = composite(cube, every="1MS")
    for step, month in enumerate(found.indexes["time"]):
        stack = np.stack(
            [days[day] for day in sorted(days) if day.startswith(f"{month:%Y-%m}")] or [days[min(days)] * 0]
        )
        expected = np.ma.filled(np.ma.median(np.ma.masked_equal(stack, 0), axis=0), 0)  # type: ignore[no-untyped-call]
        np.testing.assert_array_equal(found[MAIN].to_numpy()[step], np.rint(expected))
        np.testing.assert_array_equal(
            found["observations"].to_numpy()[step], (stack > 0).any(axis=1).sum(axis=0)
        )


def test_dates_carry_the_cloud_cover_that_their_items_state(make_item: Any, as_items: Any) -> None:
    covers = {
        "2023-05-03T10:00": 80.0,
        "2023-05-03T11:00": 20.0,
        "2023-05-20T10:00": 10.0,
        "2023-05-29T10:00": None,
    }
    items = []
    for number, (when, cover) in enumerate(covers.items()):
        band = {"red": (np.full(GRID.shape.yx, 10 + number, "uint16"), GRID)}
        items.append(make_item(f"c{number}", when, band, properties={"eo:cloud_cover": cover}))
    cube = open_cube(as_items(items))
    np.testing.assert_array_equal(cube["cloud_cover"], [50, 10, np.nan])
    found = composite(cube, how="least_cloudy")
    assert (found[MAIN] == 12).all()
    assert "cloud_cover" not in found.coords
    for item in items:
        del item.properties["eo:cloud_cover"]
    assert "cloud_cover" not in open_cube(as_items(items)).coords
