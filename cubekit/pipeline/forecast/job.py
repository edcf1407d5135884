"""The steps of a forecast, one after the other."""

from cubekit.pipeline.forecast import steps
from cubekit.pipeline.forecast.report import export_all, verdict
from cubekit.pipeline.forecast.spec import ForecastPipeline
from cubekit.pipeline.result import RunResult, Workplace


def run_forecast(spec: ForecastPipeline, place: Workplace) -> RunResult:
    """Forecast the maps of the coming years.

    Parameters
    ----------
    spec : ForecastPipeline
        The job.
    place : Workplace
        Where it is done.

    Returns
    -------
    RunResult
        With ``cube``, ``model``, ``prediction``, ``map``, figures, ``history``, ``metrics`` and ``report``.

    Raises
    ------
    CubekitError
        From any step.
    """
    steps.check_inputs(spec)
    folder = place.folder
    cube = place.step("cube", lambda: steps.build_maps(spec, folder, overwrite=place.overwrite))
    split = place.step("samples", lambda: steps.plan_samples(spec, cube))
    parts = steps.streams(spec, cube, split)
    model = place.step("train", lambda: steps.train(spec, parts, folder / "model"))
    tested = place.step("evaluate", lambda: steps.evaluate(spec, model, cube, split, folder))
    ahead = place.step("predict", lambda: steps.predict_maps(spec, model, cube, folder))
    files = place.step(
        "export",
        lambda: export_all(spec, folder, cube=cube, split=split, model=model, tested=tested, ahead=ahead),
    )
    scores = {spec.train.network: tested.scores}
    return place.finish(spec.title, files, scores, verdict=verdict(tested.scores))
