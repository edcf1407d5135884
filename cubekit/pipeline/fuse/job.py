"""Fusion, one step after the other: one network for a run, several for a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cubekit.batching.pairs import Pairs
from cubekit.exports.figures import save_figure
from cubekit.exports.fusion import fusion_figure
from cubekit.pipeline.fuse import steps
from cubekit.pipeline.fuse.contest import Contest, thinned
from cubekit.pipeline.fuse.scores import FusionScores, ranked, verdict, write_tables
from cubekit.pipeline.fuse.spec import FusePipeline
from cubekit.pipeline.result import RunResult, Workplace

_NATURAL = (("red", "green", "blue"), ("B04", "B03", "B02"))


def run_fuse(spec: FusePipeline, place: Workplace) -> RunResult:
    """Train one network, predict the test dates, and score it beside the baselines.

    Parameters
    ----------
    spec : FusePipeline
        The job; its ``train.network`` is trained.
    place : Workplace
        Where it is done.

    Returns
    -------
    RunResult
        With ``model``, ``table``, ``metrics``, ``picture`` and, where images have a grid, ``prediction``.

    Raises
    ------
    CubekitError
        From any step.
    """
    return _run(spec, place, (spec.train.network,))


def compare_fusion(spec: FusePipeline, place: Workplace) -> RunResult:
    """Train several networks on the same pairs, and score them beside the baselines.

    Parameters
    ----------
    spec : FusePipeline
        The job; ``train.network`` and ``train.networks`` are trained, one after the other.
    place : Workplace
        Where it is done. Networks that lie there finished are not trained again.

    Returns
    -------
    RunResult
        With ``table`` (eleven scores, weights, seconds; the best first), ``metrics`` (CSV, a line a method and
        test pair) and ``picture`` (true image, predictions, error maps).

    Raises
    ------
    CubekitError
        From any step; what is finished stays.
    """
    return _run(spec, place, steps.contestants(spec))


def _run(spec: FusePipeline, place: Workplace, networks: Sequence[str]) -> RunResult:
    steps.check_inputs(spec)
    split = place.step("pairs", lambda: steps.open_parts(spec, place.folder, overwrite=place.overwrite))
    contest = Contest(spec, split)
    logs = place.folder / "log" / spec.data.name
    for name in networks:
        place.step(name, lambda name=name: contest.enter(name, logs / name))
    place.step("baselines", contest.enter_baselines)
    scores = ranked(contest.scores)
    own = {name: scores[name] for name in networks[:1]} if len(networks) == 1 else {}
    scores = own | scores
    files = write_tables(scores, place.folder)
    files["picture"] = place.step(
        "picture", lambda: _picture(spec, split.test, contest, scores, place.folder / "comparison.png")
    )
    if len(networks) == 1:
        files = {"model": logs / networks[0], **files}
        if (store := logs / networks[0] / "test.zarr").exists():
            files["prediction"] = store
    return place.finish(spec.title, files, scores, verdict=verdict(scores))


def _picture(
    spec: FusePipeline, pairs: Pairs, contest: Contest, scores: Mapping[str, FusionScores], path: Path
) -> Path:
    """Draw the last test date: true image, predictions, best first, and their errors."""
    pair, bands = pairs[-1], list(pairs.bands)
    chosen = spec.rgb or next((t for t in _NATURAL if set(t) <= set(bands)), None)
    rgb = tuple(bands.index(name) for name in chosen) if chosen else (2, 1, 0)
    figure = fusion_figure(
        thinned(pair.fine_t2),
        {name: contest.pictures[name] for name in scores},
        known=thinned(pair.fine_t1),
        rgb=rgb,
        notes={name: f"RMSE {score.pairs[-1]['RMSE']:.4f}" for name, score in scores.items()},
        title=f"{pair.t1} to {pair.t2}",
    )
    return save_figure(figure, path)
