"""The steps of a class map, one after the other."""

from collections.abc import Mapping

from cubekit.pipeline import scenes
from cubekit.pipeline.classify import steps
from cubekit.pipeline.classify.report import export_all
from cubekit.pipeline.classify.spec import ClassifyPipeline
from cubekit.pipeline.result import RunResult, Workplace


def run_classify(spec: ClassifyPipeline, place: Workplace) -> RunResult:
    """Make a class map.

    Parameters
    ----------
    spec : ClassifyPipeline
        The job.
    place : Workplace
        Where it is done.

    Returns
    -------
    RunResult
        With ``cube``, ``model``, ``prediction``, ``map``, ``picture`` and ``report``.

    Raises
    ------
    CubekitError
        From any step.
    """
    steps.check_inputs(spec)
    folder = place.folder
    cube = place.step(
        "cube", lambda: scenes.build_cube(spec, folder / "cube.zarr", overwrite=place.overwrite)
    )
    labels = steps.labels_for(spec, cube)
    samples = place.step("samples", lambda: steps.samples_for(spec, cube, labels))
    parts = steps.split_samples(spec, samples)
    model = place.step("train", lambda: steps.train(spec, parts, folder / "model"))
    scores = place.step("evaluate", lambda: steps.evaluate(spec, model, parts))
    prediction = place.step(
        "predict", lambda: steps.predict_map(spec, model, cube, folder / "prediction.zarr")
    )
    reference = steps.compare_with_reference(spec, prediction, labels)
    made = steps.Made(spec, cube, labels, parts, model, scores, prediction, reference, place.seconds)
    files = place.step("export", lambda: export_all(made, folder))
    told = made.all_scores()
    return place.finish(
        spec.title, files, told, verdict=_verdict({name: score.overall for name, score in told.items()})
    )


def _verdict(overall: Mapping[str, float]) -> str:
    """Say by how much the model, which stands first, beats the others on the same samples, or does not."""
    (model, own), *others = overall.items()
    lines = [f"Overall accuracy of {model} on the test samples: {own:.3f}."]
    for name, accuracy in others:
        if "against the reference" in name:
            lines.append(f"  {name}: {accuracy:.3f}")
        else:
            margin = 100 * (own - accuracy)
            told = (
                f"{margin:.1f} points better than" if margin > 0 else f"NOT better than ({margin:.1f} points)"
            )
            lines.append(f"  {told} {name} ({accuracy:.3f})")
    return "\n".join(lines)
