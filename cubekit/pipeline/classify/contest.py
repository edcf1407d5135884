"""Networks compared on the split of a pipeline file for class maps."""

from cubekit.errors import PipelineError
from cubekit.pipeline import scenes
from cubekit.pipeline.classify import steps
from cubekit.pipeline.classify.spec import ClassifyPipeline
from cubekit.pipeline.compare import compare
from cubekit.pipeline.comparison import Comparison
from cubekit.pipeline.result import Workplace

_OWN = {"network", "arguments", "seed"}  # of the one network that a run trains


def compare_classify(spec: ClassifyPipeline, place: Workplace) -> Comparison:
    """Train the networks named under ``compare`` on one split, map the cube with each, and score them.

    Parameters
    ----------
    spec : ClassifyPipeline
        The job.
    place : Workplace
        Where it is done; a cube that a run has left there is used.

    Returns
    -------
    Comparison
        Also written into the folder ``comparison``.

    Raises
    ------
    PipelineError
        If the file names no networks, or networks that see patches and a table of series.
    CubekitError
        From any step.
    """
    if spec.compare is None:
        raise PipelineError(
            "The file names no networks: give it a key 'compare' with 'networks: [conv1d, ltae]'."
        )
    steps.check_inputs(spec)
    cube = place.step(
        "cube", lambda: scenes.build_cube(spec, place.folder / "cube.zarr", overwrite=place.overwrite)
    )
    labels = steps.labels_for(spec, cube)
    samples = place.step("samples", lambda: steps.samples_for(spec, cube, labels))
    split, parts = steps.split_samples(spec, samples, place.folder / "split.parquet")
    named = spec.compare
    return place.step(
        "compare",
        lambda: compare(
            named.networks,
            *parts,
            seeds=named.seeds,
            settings=spec.train.model_dump(exclude_none=True, exclude=_OWN),
            arguments={
                name: named.arguments.get(name, spec.train.arguments if name == spec.train.network else {})
                for name in named.networks
            },
            cube=None if labels is None else cube,
            patches=(named.patches or spec.patches).model_dump(exclude_none=True),
            reference=None if labels is None else steps.reference_for(spec, cube),
            split=split,
            out=place.folder / "comparison",
        ),
    )
