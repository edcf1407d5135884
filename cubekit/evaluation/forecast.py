"""How good a forecast map is: by year and zone, always beside forecasts that need no network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from cubekit.cube.contract import MAIN, to_physical
from cubekit.cube.yearly import zones_of
from cubekit.errors import OptionError
from cubekit.evaluation.map_baselines import climatology, damped_persistence, linear_trend, persistence
from cubekit.typing import Array, BoolArray, FloatArray

BASELINES = ("persistence", "climatology", "linear trend", "damped persistence")
"""What every forecast stands beside: the last map, the mean of all past ones, the line through the window,
and the mean plus a share of the last anomaly."""

TOTAL, ALL = "total", "all"
"""Names of the zone that is all of the map, and of the pixels of all years together."""


@dataclass(frozen=True, kw_only=True)
class ForecastScore:
    """Scores of one forecaster, in one year and zone."""

    forecaster: str
    """Who."""

    year: str
    """Target year, or ``all``: the pixels of all years together."""

    zone: str
    """Part of the map."""

    pixels: int
    """Pixels with truth that every forecaster has a value for."""

    mse: float
    """Mean squared error."""

    mae: float
    """Mean absolute error."""

    rmse: float
    """Root of `mse`."""

    r2: float
    """``1 - SS_res / SS_tot``; NaN where the truth is constant."""

    mean_true: float
    """Mean of the truth."""

    mean_predicted: float
    """Mean of the forecast."""

    std_true: float
    """Standard deviation of the truth over pixels."""

    std_predicted: float
    """That of the forecast."""

    slope: float
    """a of the regression ``predicted = a * true + b`` (least squares)."""

    intercept: float
    """b of it."""

    skill: Mapping[str, float]
    """``1 - mse / mse of the baseline`` for each baseline: above 0 is better than it."""


@dataclass(frozen=True, kw_only=True)
class ForecastScores:
    """Scores of several forecasters over held-out years, all on the same pixels."""

    name: str
    """The forecaster that is looked at; the others are its baselines."""

    rows: tuple[ForecastScore, ...]
    """One for each forecaster, year and zone."""

    lost: int = 0
    """Pixels with truth where a forecaster has no value, over all years; in no score."""

    def of(self, forecaster: str | None = None, *, year: str = ALL, zone: str = TOTAL) -> ForecastScore:
        """Return one row.

        Parameters
        ----------
        forecaster : str, optional
            Default: the one that is looked at.
        year : str, optional
            Target year, or ``all``.
        zone : str, optional
            Part of the map.

        Returns
        -------
        ForecastScore
            Its scores.

        Raises
        ------
        OptionError
            If there is no such row.
        """
        years = {row.year for row in self.rows}
        when = next(iter(years)) if year == ALL and ALL not in years else year
        wanted = forecaster or self.name, when, zone
        for row in self.rows:
            if (row.forecaster, row.year, row.zone) == wanted:
                return row
        known = sorted({(row.forecaster, row.year, row.zone) for row in self.rows})
        raise OptionError(f"There is no score of {wanted}; there are {known}.")

    @property
    def overall(self) -> float:
        """Root mean squared error of the forecaster over all years and the whole map."""
        return self.of().rmse

    @property
    def best(self) -> str:
        """Forecaster with the lowest error over all years and the whole map."""
        names = dict.fromkeys(row.forecaster for row in self.rows)
        return min(names, key=lambda name: self.of(name).mse)

    def table(self) -> str:
        """Write all scores as text.

        Returns
        -------
        str
            One line for each forecaster, year and zone.
        """
        width = max(len(row.forecaster) for row in self.rows)
        zones = max(4, *(len(row.zone) for row in self.rows))
        head = (
            f"{'year':<5} {'zone':<{zones}} {'forecaster':<{width}} {'MSE':>10} {'MAE':>9} {'RMSE':>9} "
            f"{'R²':>7} {'mean t/p':>17} "
            f"{'std t/p':>17}  {'regression':<22} {'skill(pers)':>11} {'skill(clim)':>11}"
        )
        lines = [head]
        for row in self.rows:
            line = f"{_short(row.slope)} true {row.intercept:+.4g}"
            lines.append(
                f"{row.year:<5} {row.zone:<{zones}} {row.forecaster:<{width}} {row.mse:>10.4g} "
                f"{row.mae:>9.4g} {row.rmse:>9.4g} "
                f"{_short(row.r2):>7} {_pair(row.mean_true, row.mean_predicted):>17} "
                f"{_pair(row.std_true, row.std_predicted):>17}  {line:<22} "
                f"{_short(row.skill['persistence']):>11} {_short(row.skill['climatology']):>11}"
            )
        if self.lost:
            lines.append(f"{self.lost} known pixels without a forecast are in no score")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold.

        Returns
        -------
        dict
            ``forecaster``, ``rmse``, ``best``, ``lost`` and ``rows``; None where a score is not defined.
        """
        rows = [{key: _plain(value) for key, value in asdict(row).items()} for row in self.rows]
        return {
            "forecaster": self.name,
            "rmse": _plain(self.overall),
            "best": self.best,
            "lost": self.lost,
            "rows": rows,
        }


def baseline_maps(maps: FloatArray, target: int, *, window: int) -> dict[str, FloatArray]:
    """Forecast one year of a series without a network, from the years before it.

    Parameters
    ----------
    maps : numpy.ndarray
        Yearly maps ``(t, y, x)``, physical, NaN where there is no data.
    target : int
        Position of the year to forecast; only earlier ones are looked at.
    window : int
        Years that the straight line goes through, and that the network sees.

    Returns
    -------
    dict
        Name, as in `BASELINES`, to ``(y, x)``; NaN where a pixel was never observed.
    """
    past = maps[None, :target, None]
    recent = past[:, -window:]
    return {
        "persistence": persistence(recent)[0],
        "climatology": climatology(past)[0],
        "linear trend": linear_trend(recent)[0],
        "damped persistence": damped_persistence(past)[0],
    }


def assess_forecasts(
    truth: FloatArray,
    forecasts: Mapping[str, FloatArray],
    *,
    years: Sequence[int],
    zones: Mapping[str, BoolArray] | None = None,
) -> ForecastScores:
    """Compare forecasts of whole maps with the truth, pixel by pixel.

    Only pixels count that the truth and every forecaster have a value for, so that all stand on the same
    ground.

    Parameters
    ----------
    truth : numpy.ndarray
        Maps of the target years ``(t, y, x)``, physical, NaN where not known.
    forecasts : mapping
        Name to maps of the same shape; the first is the one that is looked at; ``persistence`` and
        ``climatology`` must be among them.
    years : sequence of int
        Target years.
    zones : mapping, optional
        Name to ``(y, x)`` bool; the whole map is scored as well, as ``total``.

    Returns
    -------
    ForecastScores
        For each year and all together, each zone and the whole.

    Raises
    ------
    OptionError
        If shapes differ, a baseline is missing, or nothing can be compared.
    """
    missing = [name for name in ("persistence", "climatology") if name not in forecasts]
    if missing:
        raise OptionError(f"A forecast must stand beside {missing}: see baseline_maps.")
    wrong = {name: maps.shape for name, maps in forecasts.items() if maps.shape != truth.shape}
    if wrong or len(years) != len(truth):
        raise OptionError(f"The truth has shape {truth.shape} for years {list(years)}; others have {wrong}.")
    known = np.isfinite(truth)
    counted = known & np.all([np.isfinite(maps) for maps in forecasts.values()], axis=0)
    parts = {**dict(zones or {}), TOTAL: np.ones(truth.shape[1:], bool)}
    rows: list[ForecastScore] = []
    chosen = [(str(year), slice(i, i + 1)) for i, year in enumerate(years)]
    for year, when in [*chosen, (ALL, slice(None))] if len(years) > 1 else chosen:
        for zone, inside in parts.items():
            use = counted[when] & np.asarray(inside, bool)
            if use.any():
                pairs = {name: (truth[when][use], maps[when][use]) for name, maps in forecasts.items()}
                rows += _rows(pairs, year, zone)
    if not any(row.zone == TOTAL for row in rows):
        raise OptionError("There is nothing to compare: no known pixel has a forecast of everyone.")
    lost = int((known & ~counted).sum())
    return ForecastScores(name=next(iter(forecasts)), rows=tuple(rows), lost=lost)


def score_forecasts(
    cube: xr.Dataset,
    forecasts: Mapping[str, xr.Dataset],
    *,
    window: int,
    zones: Mapping[str, BoolArray] | None = None,
) -> ForecastScores:
    """Score forecasts of years that a cube holds, beside all baselines.

    Parameters
    ----------
    cube : xarray.Dataset
        Yearly maps of one band; read into memory.
    forecasts : mapping
        Name to what :func:`cubekit.prediction.rollout.hindcast` gave, all of the same years.
    window : int
        Years that the forecasts look back on.
    zones : mapping, optional
        Name to ``(y, x)`` bool. Default: the zones beside the maps.

    Returns
    -------
    ForecastScores
        Of all forecasts and of `BASELINES`.

    Raises
    ------
    OptionError
        If a year of the forecasts is not in the cube, or nothing can be compared.
    """
    maps: FloatArray = to_physical(cube[MAIN].isel(band=0)).to_numpy()
    calendar = cube["time"].dt.year.to_numpy().tolist()
    years = [int(year) for year in next(iter(forecasts.values()))["time"].dt.year.to_numpy()]
    absent = [year for year in years if year not in calendar]
    if absent:
        raise OptionError(f"The cube holds {calendar[0]} to {calendar[-1]}: there is no truth for {absent}.")
    places = [calendar.index(year) for year in years]
    plain = [baseline_maps(maps, place, window=window) for place in places]
    found = {name: each[MAIN].isel(band=0).to_numpy() for name, each in forecasts.items()}
    found |= {name: np.stack([each[name] for each in plain]) for name in plain[0]}
    parts = {name: each.to_numpy() for name, each in zones_of(cube).items()} if zones is None else zones
    return assess_forecasts(maps[places], found, years=years, zones=parts)


def _rows(pairs: Mapping[str, tuple[Array, Array]], year: str, zone: str) -> list[ForecastScore]:
    """Score every forecaster on the same pixels."""
    errors = {name: float(np.square(p.astype("f8") - t).mean()) for name, (t, p) in pairs.items()}
    against = [name for name in BASELINES if name in errors]
    rows = []
    for name, (true, predicted) in pairs.items():
        t, p = true.astype("f8"), predicted.astype("f8")
        spread = float(np.square(t - t.mean()).sum())
        slope = float(((t - t.mean()) * (p - p.mean())).sum() / spread) if spread > 0 else np.nan
        rows.append(
            ForecastScore(
                forecaster=name,
                year=year,
                zone=zone,
                pixels=len(t),
                mse=errors[name],
                mae=float(np.abs(p - t).mean()),
                rmse=float(np.sqrt(errors[name])),
                r2=1 - float(np.square(p - t).sum()) / spread if spread > 0 else np.nan,
                mean_true=float(t.mean()),
                mean_predicted=float(p.mean()),
                std_true=float(t.std()),
                std_predicted=float(p.std()),
                slope=slope,
                intercept=float(p.mean() - slope * t.mean()),
                skill={b: 1 - errors[name] / errors[b] if errors[b] > 0 else np.nan for b in against},
            )
        )
    return rows


def _short(value: float) -> str:
    """Three decimals, or a dash where a score is not defined."""
    return "-" if np.isnan(value) else f"{value:.3f}"


def _pair(one: float, other: float) -> str:
    """Two numbers, such as means of truth and forecast."""
    return f"{one:.4g}/{other:.4g}"


def _plain(value: Any) -> Any:
    """Turn NaN into None, as JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
