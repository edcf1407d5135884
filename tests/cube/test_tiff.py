"""Cut-up TIFFs hold the same pixels and say the same as the whole file, whatever its codec and layout."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.io import MemoryFile

from cubekit.cube.resample import Window
from cubekit.cube.tiff import ShortHeadError, UnusualTiffError, parse

WINDOW = Window(40, 30, 90, 120)
LAYOUTS = [
    (*most, {"tiled": True, "blockxsize": 64, "blockysize": 32} if tiled else {"blockysize": 32})
    for *most, tiled in itertools.product(
        ("YES", "NO"), ("LITTLE", "BIG"), ("pixel", "band"), ("deflate", "zstd", "lerc"), (True, False)
    )
]


def write(path: Path, **options: Any) -> Any:
    values = np.sort(np.random.default_rng(1).integers(0, 200, (3, 150, 211)).astype("uint16"), axis=2)
    profile = {"count": 3, "height": 150, "width": 211, "dtype": "uint16", "crs": "EPSG:32630", "nodata": 0}
    place = {"transform": Affine(10, 0, 4e5, 0, -10, 4e6)}
    with rasterio.open(path, "w", driver="GTiff", **profile, **place, **options) as file:
        file.write(values)
    return values


@pytest.mark.parametrize(("big", "order", "interleave", "codec", "layout"), LAYOUTS)
def test_some_tiles_decode_as_the_whole_file_does(
    tmp_path: Path, big: str, order: str, interleave: str, codec: str, layout: dict[str, Any]
) -> None:
    path = tmp_path / "a.tif"
    values = write(path, BIGTIFF=big, ENDIANNESS=order, interleave=interleave, compress=codec, **layout)
    raw = path.read_bytes()
    head = parse(raw)
    for band in (1, 3):
        numbers = head.tiles(WINDOW, band)
        assert len(numbers) < len(head.offsets)
        tiles = {n: raw[head.offsets[n] : head.offsets[n] + head.counts[n]] for n in numbers}
        with MemoryFile(head.with_tiles(tiles)) as memory, memory.open() as cut, rasterio.open(path) as whole:
            assert cut.profile == whole.profile
            part = cut.read(band, window=((40, 90), (30, 120)))
        np.testing.assert_array_equal(part, values[band - 1, 40:90, 30:120])
        with MemoryFile(head.with_tiles(tiles, lean=True)) as memory, memory.open() as cut:
            assert cut.crs is None
            np.testing.assert_array_equal(cut.read(band, window=((40, 90), (30, 120))), part)


def test_a_head_that_goes_on_says_how_far(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", tiled=True, blockxsize=16, blockysize=16)
    raw = (tmp_path / "a.tif").read_bytes()
    with pytest.raises(ShortHeadError) as short:
        parse(raw[:250])
    assert 250 < short.value.stop < len(raw)
    np.testing.assert_array_equal(parse(raw[: short.value.stop]).offsets, parse(raw).offsets)


@given(st.binary(max_size=300), st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b""]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_tiff_or_refused(content: bytes, start: bytes) -> None:
    try:
        parse(start + content)
    except (UnusualTiffError, ShortHeadError):
        return


@pytest.mark.parametrize("content", [b"<html>please log in</html>", b"\x89PNG\r\n\x1a\n" + bytes(40), b""])
def test_what_is_no_tiff_is_refused(content: bytes) -> None:
    with pytest.raises(UnusualTiffError, match="not recognized"):
        parse(content)
