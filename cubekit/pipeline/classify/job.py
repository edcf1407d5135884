"""The steps of a class map, one after the other."""

from cubekit.pipeline import scenes
from cubekit.pipeline.classify import steps
from cubekit.pipeline.classify.report import export_all
from cubekit.pipeline.classify.spec import ClassifyPipeline
from cubekit.pipeline.classify.tables import run_tables, write_predicted
from cubekit.pipeline.classify.verdict import verdict
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
        With ``cube``, ``split``, ``model``, ``prediction``, ``map``, ``picture`` and ``report``; from tables
        alone as :func:`cubekit.pipeline.classify.tables.run_tables` says.

    Raises
    ------
    CubekitError
        From any step.
    """
    steps.check_inputs(spec)
    if spec.source is None:
        return run_tables(spec, place)
    folder = place.folder
    cube = place.step(
        "cube", lambda: scenes.build_cube(spec, folder / "cube.zarr", overwrite=place.overwrite)
    )
    labels = steps.labels_for(spec, cube)
    samples = place.step("samples", lambda: steps.samples_for(spec, cube, labels))
    split, parts = steps.split_samples(spec, samples, folder / "split.parquet")
    model = place.step("train", lambda: steps.train(spec, parts, folder / "model", split=split, cube=cube))
    prediction = place.step(
        "predict", lambda: steps.predict_map(spec, model, cube, folder / "prediction.zarr")
    )
    drawn = prediction["class"]
    scores = place.step("evaluate", lambda: steps.evaluate(spec, model, parts, drawn=drawn))
    if spec.predict.sieve:
        raw = prediction
        prediction = place.step(
            "sieve", lambda: steps.without_specks(raw, folder / "sieved.zarr", least=spec.predict.sieve)
        )
    reference = steps.compare_with_reference(spec, prediction, labels)
    if spec.also_random_split:
        again = folder / "model_random_split"
        reference |= place.step("random split", lambda: steps.evaluate_random_split(spec, samples, again))
    made = steps.Made(spec, cube, labels, parts, model, scores, prediction, reference, place.seconds)
    files = place.step("export", lambda: export_all(made, folder))
    if spec.unlabelled is not None:
        files |= place.step("predict table", lambda: write_predicted(spec, model, folder))
    told = made.all_scores()
    return place.finish(spec.title, files, told, verdict=verdict(told))
