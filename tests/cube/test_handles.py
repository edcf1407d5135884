"""Open files are lent to one thread at a time, few are kept, and a file that has changed is opened again."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from cubekit.cube.handles import Handles
from cubekit.cube.load import open_cube

BOX = GeoBox.from_bbox((400_000, 4_400_000, 400_640, 4_400_640), "EPSG:32630", resolution=10)


def opener(path: Path) -> Any:
    return lambda: rasterio.open(path)


def test_an_idle_file_is_lent_again_and_two_borrowers_get_two(write_raster: Any) -> None:
    path, pool = write_raster("a.tif", np.ones(BOX.shape, "uint8"), BOX), Handles()
    borrow = [pool.borrow(("a",), str(path), opener(path)) for _ in range(2)]
    with borrow[0] as first, borrow[1] as second:
        assert second.file is not first.file
    with pool.borrow(("a",), str(path), opener(path)) as again:
        assert again.file in {first.file, second.file}
    pool.clear()
    assert first.file.closed
    assert second.file.closed


def test_few_files_stay_open_and_none_after_a_failure(write_raster: Any) -> None:
    path, pool, files = write_raster("a.tif", np.ones(BOX.shape, "uint8"), BOX), Handles(limit=3), []
    for number in range(6):
        with pool.borrow((str(number),), str(path), opener(path)) as lent:
            files.append(lent.file)
    assert [file.closed for file in files] == [True] * 3 + [False] * 3
    with pytest.raises(OSError, match="broke"), pool.borrow(("5",), str(path), opener(path)) as lent:
        raise OSError("broke")
    assert lent.file.closed
    pool.clear()


def test_a_file_that_was_written_again_or_removed_is_not_read_from_memory(make_item: Any) -> None:
    item = make_item("a", "2023-05-01", {"red": (np.full(BOX.shape, 1, "uint16"), BOX)})
    path = Path(item.assets["red"].href)
    cube = open_cube([item])["data"]
    assert (cube.values == 1).all()
    with rasterio.open(path, "r+") as file:
        file.write(np.full(BOX.shape, 2, "uint16"), 1)
    os.utime(path, ns=(1, 1))
    assert (cube.values == 2).all()
    path.unlink()
    with pytest.raises(OSError, match="item 'a', asset 'red'"):
        cube.compute()
