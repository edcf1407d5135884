"""Public data sets of coarse and fine images, by their published folders and file names."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cubekit.errors import ArchiveError, UnknownNameError, did_you_mean
from cubekit.security import check_href
from cubekit.sources.patterns import FilePattern
from cubekit.typing import StrPath

_SHOWN: Final = 4  # files named in an error
_SUFFIXES: Final = (".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class FusionSet:
    """How a data set of coarse and fine images is laid out: two folders, one multi-band TIFF per date.

    To add another set, make one of these; see ``docs/systems/fusion.md``.
    """

    name: str
    """Short name, for messages and logs."""

    fine: str
    """Pattern of the fine images' names, as for :func:`cubekit.open_archive`: ``"L_{date:%Y_%j}.tif"``."""

    coarse: str
    """Pattern of the coarse images' names."""

    bands: tuple[str, ...]
    """Names of the bands, in the order of the files."""

    fine_folder: str = "Landsat"
    """Folder of the fine images, below the set's own."""

    coarse_folder: str = "MODIS"
    """Folder of the coarse images."""

    folder: str = ""
    """Published folder of the set; found also below the folder that a user gives."""

    scale: float = 10_000.0
    """Number that stands for a reflectance of 1 in the fine images."""

    offset: float = 0.0
    """Added to the fine images after that: -0.1 for Landsat 8 at Level 1, with a scale of 50000."""

    coarse_scale: float | None = None
    """The same for coarse images, where it differs."""

    nodata: float | None = None
    """Stored number that means "no data", where files do not say."""

    train: int | None = None
    """Number of dates, from the first on, that train in the published comparison."""

    size: tuple[int, int] | None = None
    """Nominal rows and columns; informative only, files say what they are."""

    rgb: tuple[int, int, int] = (2, 1, 0)
    """Positions of the bands that make a picture."""

    example: tuple[str, str] = ("", "")
    """A fine and a coarse file name."""

    def files(self, root: StrPath) -> "SetFiles":
        """Find the images of the set.

        Parameters
        ----------
        root : path
            Folder with the fine and coarse folders in it, or the one above, which holds `folder`.

        Returns
        -------
        SetFiles
            Files by date; nothing is opened.

        Raises
        ------
        ArchiveError
            If folders are missing or hold no such files; the message draws what is expected and what is
            there. Also if a date comes twice.
        """
        base = self._base(Path(root))
        found, strange = [], []
        for folder, pattern in ((self.fine_folder, self.fine), (self.coarse_folder, self.coarse)):
            dated, rest = _dated(base, folder, FilePattern(pattern))
            found.append(dated)
            strange += rest
        if not all(found):
            raise ArchiveError(
                f"No data set {self.name} in {base}.\n{self._tree(base)}\n{_listing(base, self)}"
            )
        # Where both kinds lie in one folder, each is strange to the other's pattern.
        known = {file for files in found for file in files.values()}
        return SetFiles(
            fine=found[0], coarse=found[1], unmatched=tuple(sorted(set(strange) - known)), folder=base
        )

    def _base(self, root: Path) -> Path:
        """Return the folder that holds the fine and coarse ones."""
        candidates = [root, *([root / self.folder, root / Path(self.folder).name] if self.folder else [])]
        for each in candidates:
            if (each / self.fine_folder).is_dir() or (each / self.coarse_folder).is_dir():
                return each.resolve()
        return root.resolve()

    def _tree(self, base: Path) -> str:
        lines = [f"Expected:\n{base}/"]
        kinds = ((self.fine_folder, "fine", self.fine), (self.coarse_folder, "coarse", self.coarse))
        for (folder, kind, pattern), example in zip(kinds, self.example, strict=True):
            such = f", such as {example}" if example else ""
            last = kind == "coarse"
            lines.append(f"{'└' if last else '├'}── {folder or '.'}/")
            lines.append(f"{' ' if last else '│'}   └── {pattern}   ({kind} image of each date{such})")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class SetFiles:
    """Images of a data set, by date."""

    fine: Mapping[datetime, Path]
    """Fine images, sorted by date (UTC)."""

    coarse: Mapping[datetime, Path]
    """Coarse images, sorted by date."""

    unmatched: tuple[Path, ...]
    """TIFFs in the folders whose names follow neither pattern."""

    folder: Path
    """Where the set was found."""


_SIX: Final = ("blue", "green", "red", "nir", "swir16", "swir22")
_FOUR: Final = ("blue", "green", "red", "nir")
_MODIS: Final = "MOD09GA_A{date:%Y%j}.sur_refl.tif"
_MODIS_EXAMPLE: Final = "MOD09GA_A2002091.sur_refl.tif"


def _daily(name: str, folder: str, size: tuple[int, int]) -> FusionSet:
    """One of three sets with the same names: months and days without their zero, stored in one byte."""
    return FusionSet(
        name=name,
        folder=folder,
        fine="L_{date:%Y-%-m-%-d}.tif",
        coarse="M_{date:%Y-%-m-%-d}.tif",
        bands=_SIX,
        scale=255.0,
        train=20,
        size=size,
        rgb=(3, 2, 1),
        example=("L_2013-5-6.tif", "M_2013-5-6.tif"),
    )


def _sentinels(name: str) -> FusionSet:
    """One of two sets of Sentinel-2 and Sentinel-3, stored as reflectance."""
    return FusionSet(
        name=name,
        folder=name,
        fine="S2_{date:%Y%m%d}.tif",
        coarse="S3_{date:%Y%m%d}_real.tif",
        bands=_FOUR,
        scale=1.0,
        train=3,
        size=(1500, 1500),
        example=("S2_20190312.tif", "S3_20190312_real.tif"),
    )


FUSION_SETS: Final[Mapping[str, FusionSet]] = MappingProxyType(
    {
        "CIA": FusionSet(
            name="CIA",
            folder="CIA",
            fine="L*_*{date:%Y%m%d}_*.tif",
            coarse=_MODIS,
            bands=_SIX,
            train=11,
            size=(1792, 1280),
            rgb=(3, 2, 1),
            example=("L71093084_08420020401_HRF_modtran_surf_ref_agd66.tif", _MODIS_EXAMPLE),
        ),
        "LGC": FusionSet(
            name="LGC",
            folder="LGC",
            fine="{date:%Y%m%d}_TM.tif",
            coarse=_MODIS,
            bands=_SIX,
            train=9,
            size=(2560, 3072),
            rgb=(3, 2, 1),
            example=("20040416_TM.tif", "MOD09GA_A2004107.sur_refl.tif"),
        ),
        "AHB": _daily("AHB", "Datasets/AHB", (2480, 2800)),
        "DX": _daily("DX", "Datasets/Daxing", (1640, 1640)),
        "TJ": _daily("TJ", "Datasets/Tianjin", (2100, 1970)),
        "WH": FusionSet(
            name="WH",
            folder="Wuhan",
            fine="G_{date:%Y%m%d}.tif",
            coarse="L_{date:%Y%m%d}.tif",
            bands=_FOUR,
            train=5,
            size=(1000, 1000),
            example=("G_20160310.tif", "L_20160310.tif"),
        ),
        "IC": _sentinels("IC"),
        "BC": _sentinels("BC"),
    }
)
"""The eight sets of the published comparison. Images are not included: each set has its own terms."""


def fusion_set(name: str) -> FusionSet:
    """Return how a public data set is laid out.

    Parameters
    ----------
    name : str
        Key of :data:`FUSION_SETS`.

    Returns
    -------
    FusionSet
        Its convention.

    Raises
    ------
    UnknownNameError
        With the nearest name.
    """
    if name not in FUSION_SETS:
        raise UnknownNameError(f"No data set {name!r} is known. {did_you_mean(name, FUSION_SETS)}")
    return FUSION_SETS[name]


def _dated(base: Path, folder: str, pattern: FilePattern) -> tuple[dict[datetime, Path], list[Path]]:
    """Return the files of a folder by the date that their names say, and those that say none."""
    dated: dict[datetime, Path] = {}
    strange: list[Path] = []
    here = base / folder
    for file in sorted(here.rglob("*")) if here.is_dir() else ():
        if file.suffix.lower() not in _SUFFIXES or not file.is_file():
            continue
        check_href(file.relative_to(base).as_posix(), root=base)  # no link may lead out of the set
        try:
            fields = pattern.match(file.relative_to(here).as_posix())
        except ValueError as error:
            raise ArchiveError(f"{file}: {error}.") from None
        if fields is None or fields.date is None:
            strange.append(file)
        elif fields.date in dated:
            raise ArchiveError(
                f"{file.name} and {dated[fields.date].name} in {here} are of one date, "
                f"{fields.date:%Y-%m-%d}: leave one of them out."
            )
        else:
            dated[fields.date] = file
    return dict(sorted(dated.items())), strange


def _listing(base: Path, layout: FusionSet) -> str:
    """Tell what lies where the images should be."""
    if not base.is_dir():
        return "Found: no such folder."
    lines = ["Found:"]
    for folder in dict.fromkeys((layout.fine_folder, layout.coarse_folder)):
        here = base / folder
        names = sorted(file.name for file in here.iterdir()) if here.is_dir() else []
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        what = f"{', '.join(names[:_SHOWN])}{more}" if names else "empty" if here.is_dir() else "not there"
        lines.append(f"    {folder or '.'}/: {what}")
    others = sorted(path.name for path in base.iterdir())
    if others and not any((base / folder).is_dir() for folder in (layout.fine_folder, layout.coarse_folder)):
        more = ", …" if len(others) > _SHOWN else ""
        lines.append(f"    {base}: {', '.join(others[:_SHOWN])}{more}")
    return "\n".join(lines)
