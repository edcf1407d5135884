from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cubekit.errors import ArchiveError, SecurityError, UnknownNameError
from cubekit.sources.fusion_sets import FUSION_SETS, FusionSet, fusion_set

# (set, fine file, coarse file, date): names as published
NAMES = [
    (
        "CIA",
        "L71093084_08420020401_HRF_modtran_surf_ref_agd66.tif",
        "MOD09GA_A2002091.sur_refl.tif",
        (2002, 4, 1),
    ),
    ("LGC", "20040416_TM.tif", "MOD09GA_A2004107.sur_refl.tif", (2004, 4, 16)),
    ("AHB", "L_2013-5-6.tif", "M_2013-5-6.tif", (2013, 5, 6)),
    ("DX", "L_2014-12-25.tif", "M_2014-12-25.tif", (2014, 12, 25)),
    ("TJ", "L_2015-10-1.tif", "M_2015-10-1.tif", (2015, 10, 1)),
    ("WH", "G_20160310.tif", "L_20160310.tif", (2016, 3, 10)),
    ("IC", "S2_20190312.tif", "S3_20190312_real.tif", (2019, 3, 12)),
    ("BC", "S2_20200830.tif", "S3_20200830_real.tif", (2020, 8, 30)),
]


def lay(root: Path, layout: FusionSet, *names: tuple[str, str]) -> Path:
    for fine, coarse in names:
        for folder, name in ((layout.fine_folder, fine), (layout.coarse_folder, coarse)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / name).touch()
    return root


def test_all_eight_sets_are_known() -> None:
    assert set(FUSION_SETS) == {row[0] for row in NAMES}
    assert {name: (len(each.bands), each.scale, each.train) for name, each in FUSION_SETS.items()} == {
        "CIA": (6, 10_000, 11), "LGC": (6, 10_000, 9), "AHB": (6, 255, 20), "DX": (6, 255, 20),
        "TJ": (6, 255, 20), "WH": (4, 10_000, 5), "IC": (4, 1, 3), "BC": (4, 1, 3),
    }  # fmt: skip
    with pytest.raises(UnknownNameError, match="'CIA'"):
        fusion_set("CIE")


@pytest.mark.parametrize(("name", "fine", "coarse", "date"), NAMES)
def test_published_names_say_their_date(
    tmp_path: Path, name: str, fine: str, coarse: str, date: tuple[int, int, int]
) -> None:
    layout = fusion_set(name)
    root = lay(tmp_path / layout.folder, layout, (fine, coarse))
    (root / layout.fine_folder / "readme.txt").touch()
    (root / layout.fine_folder / "browse.tif").touch()
    for given in (root, tmp_path):  # the set's own folder, or the one above
        found = layout.files(given)
        when = datetime(*date, tzinfo=UTC)
        assert dict(found.fine) == {when: root / layout.fine_folder / fine}
        assert dict(found.coarse) == {when: root / layout.coarse_folder / coarse}
        assert [file.name for file in found.unmatched] == ["browse.tif"]


def test_dates_sort_as_dates_not_as_names(tmp_path: Path) -> None:
    layout = fusion_set("AHB")
    lay(tmp_path, layout, *((f"L_2013-{m}-3.tif", f"M_2013-{m}-3.tif") for m in (12, 2, 10)))
    assert [date.month for date in layout.files(tmp_path).fine] == [2, 10, 12]


def test_a_folder_that_does_not_fit_is_answered_with_the_tree(tmp_path: Path) -> None:
    layout = fusion_set("CIA")
    with pytest.raises(ArchiveError) as error:
        layout.files(tmp_path / "nowhere")
    assert "no such folder" in str(error.value)
    lay(tmp_path, layout, ("L_2013-5-6.tif", "MOD09GA_A2002091.sur_refl.tif"))
    with pytest.raises(ArchiveError) as error:
        layout.files(tmp_path)
    message = str(error.value)
    for part in (
        "├── Landsat/",
        "└── MODIS/",
        "such as L71093084_08420020401_HRF_modtran_surf_ref_agd66.tif",
        "MOD09GA_A{date:%Y%j}.sur_refl.tif",
        "Landsat/: L_2013-5-6.tif",
    ):
        assert part in message
    (tmp_path / "MODIS" / "MOD09GA_A2002400.sur_refl.tif").touch()
    with pytest.raises(ArchiveError, match=r"2002400.*no date"):
        layout.files(tmp_path)


def test_a_date_that_comes_twice_and_a_link_out_of_the_set_are_refused(tmp_path: Path) -> None:
    layout = replace(fusion_set("WH"), fine="G_{date:%Y%m%d}*.tif")
    lay(tmp_path / "set", layout, ("G_20160310.tif", "L_20160310.tif"), ("G_20160310b.tif", "L_20160311.tif"))
    with pytest.raises(ArchiveError, match="of one date, 2016-03-10"):
        layout.files(tmp_path / "set")
    (tmp_path / "outside.tif").touch()
    (tmp_path / "set" / "MODIS" / "L_20160312.tif").symlink_to(tmp_path / "outside.tif")
    with pytest.raises(SecurityError):
        fusion_set("WH").files(tmp_path / "set")


def test_both_kinds_may_lie_in_one_folder(tmp_path: Path) -> None:
    mine = FusionSet(
        name="mine",
        fine="L_{date:%Y_%j}.tif",
        coarse="M_{date:%Y_%j}-bilinear.tif",
        fine_folder="",
        coarse_folder="",
        bands=("red",),
    )
    for name in ("L_2016_220.tif", "M_2016_220-bilinear.tif", "M_2016_220-nearestneighbor.tif"):
        (tmp_path / name).touch()
    found = mine.files(tmp_path)
    assert [len(found.fine), len(found.coarse)] == [1, 1]
    assert [file.name for file in found.unmatched] == ["M_2016_220-nearestneighbor.tif"]
