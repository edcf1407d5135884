"""The steps of a map of fractions, one after the other."""

from collections.abc import Mapping

from cubekit.evaluation.fractions import FractionScores
from cubekit.pipeline.fractions import steps
from cubekit.pipeline.fractions.report import export_all
from cubekit.pipeline.fractions.spec import FractionsPipeline
from cubekit.pipeline.result import RunResult, Workplace


def run_fractions(spec: FractionsPipeline, place: Workplace) -> RunResult:
    """Make a map of fractions, or score published pixels.

    Parameters
    ----------
    spec : FractionsPipeline
        The job.
    place : Workplace
        Where it is done.

    Returns
    -------
    RunResult
        With ``model``, ``comparison`` (CSV of the test samples) and ``report``; of scenes also ``cube``,
        ``split``, ``prediction``, ``map`` (fractions), ``classes`` and ``picture``.

    Raises
    ------
    CubekitError
        From any step.
    """
    steps.check_inputs(spec)
    folder = place.folder
    cube = split = None
    if spec.published is not None:
        source = spec.published
        parts = place.step("samples", lambda: steps.published_parts(source))
    else:
        scenes = place.step(
            "cube", lambda: steps.build_cube(spec, folder / "cube.zarr", overwrite=place.overwrite)
        )
        samples = place.step("samples", lambda: steps.samples_for(spec, scenes))
        cube, split = scenes, steps.split_samples(spec, samples, folder / "split.parquet")
        parts = split.parts
    record = None if split is None else split.record
    model = place.step("train", lambda: steps.train(spec, parts, folder / "model", split=record))
    predicted, scores, imputation = place.step("evaluate", lambda: steps.evaluate(spec, model, parts))
    prediction = None
    if cube is not None:
        whole = cube
        prediction = place.step(
            "predict", lambda: steps.predict_map(spec, model, whole, folder / "prediction.zarr")
        )
    made = steps.Made(
        spec, cube, parts, split, model, predicted, scores, imputation, prediction, place.seconds
    )
    files = place.step("export", lambda: export_all(made, folder))
    return place.finish(spec.title, files, scores, verdict=_verdict(scores))


def _verdict(scores: Mapping[str, FractionScores]) -> str:
    """Say by how much the model, which stands first, beats the others on the same samples, or does not."""
    (model, own), *others = scores.items()
    lines = [f"Mean RMSE of {model} on the test samples: {own.overall:.4f}."]
    for name, score in others:
        change = own.overall / score.overall - 1
        told = f"{-change:.0%} lower than" if change < 0 else "NOT lower than"
        lines.append(f"  {told} {name} ({score.overall:.4f})")
    return "\n".join(lines)
