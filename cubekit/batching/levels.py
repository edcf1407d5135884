"""The published levels of land-cover fractions: classes, bands and constants, as `models/` states them."""

from dataclasses import dataclass
from typing import Any

from cubekit import specs
from cubekit.batching.normalise import Normalisation
from cubekit.errors import OptionError, did_you_mean
from cubekit.labels import ClassTable
from cubekit.security import load_yaml

LEVELS = {"N1": "land_cover_fractions_n1", "N2": "land_cover_fractions_n2"}
"""Level to the model specification that describes it."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One level of detail."""

    name: str
    """``N1`` or ``N2``."""

    classes: ClassTable
    """Names and SIPNA codes, in the order of the outputs. The levels do not nest: code 31 belongs nowhere."""

    bands: tuple[str, ...]
    """Band names, in the order of the published files."""

    scale: float
    """What the numbers of the files are multiplied with to give reflectance."""

    reflectance: Normalisation
    """Published scaling of reflectance (0 to 1)."""

    ancillary: Normalisation
    """Published scaling of all nine ancillary variables."""

    def scaling(self, names: tuple[str, ...]) -> Normalisation:
        """Return the scaling of some ancillary variables.

        Parameters
        ----------
        names : tuple of str
            In the order wanted.

        Returns
        -------
        Normalisation
            Of those.

        Raises
        ------
        OptionError
            If nothing was published for one.
        """
        known = self.ancillary.bands
        for name in names:
            if name not in known:
                raise OptionError(f"Nothing was published of {name!r}. {did_you_mean(name, known)}")
        chosen = [known.index(name) for name in names]
        mean, std = (
            tuple(values[index] for index in chosen) for values in (self.ancillary.mean, self.ancillary.std)
        )
        return Normalisation(method="standard", bands=names, mean=mean, std=std)


def read_level(name: str) -> Level:
    """Read a level from its model specification.

    Parameters
    ----------
    name : {"N1", "N2"}
        Four or ten classes.

    Returns
    -------
    Level
        Classes, bands and constants.

    Raises
    ------
    OptionError
        If there is no such level.
    """
    if name not in LEVELS:
        raise OptionError(f"There is no level {name!r}. {did_you_mean(name, LEVELS)}")
    spec: dict[str, Any] = load_yaml(specs.find("models", LEVELS[name]) / "model.yaml")
    published, bands = spec["published"], tuple(spec["bands"])
    scale = float(published["scale"])
    numbers = {
        key: tuple(value * scale for value in published["reflectance"][key]) for key in ("mean", "std")
    }
    pairs = published["ancillary"]
    return Level(
        name=name,
        classes=ClassTable.of(
            list(spec["classes"].values()), colours=spec["colours"], codes=list(spec["classes"])
        ),
        bands=bands,
        scale=scale,
        reflectance=Normalisation(method="standard", bands=bands, mean=numbers["mean"], std=numbers["std"]),
        ancillary=Normalisation(
            method="standard",
            bands=tuple(pairs),
            mean=tuple(float(mean) for mean, _ in pairs.values()),
            std=tuple(float(std) for _, std in pairs.values()),
        ),
    )
