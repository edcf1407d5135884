"""Fusion, one step after the other: one network for a run, several for a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cubekit.batching.pair_splits import PairSplit
from cubekit.batching.pairs import Pairs
from cubekit.exports.figures import save_figure
from cubekit.exports.fusion import fusion_figure
from cubekit.pipeline.fuse import steps
from cubekit.pipeline.fuse.contest import Contest, thinned
from cubekit.pipeline.fuse.scores import MethodScores, ranked, table_of, verdict, write_tables
from cubekit.pipeline.fuse.spec import FusePipeline
from cubekit.pipeline.result import RunResult, Workplace

_NATURAL = (("red", "green", "blue"), ("B04", "B03", "B02"))


@dataclass(frozen=True)
class FusionComparison(RunResult):
    """Networks and baselines on the same test pairs, the best first."""

    def table(self) -> str:
        """Write scores, weights and seconds of all methods, and which of them beat what learns nothing.

        Returns
        -------
        str
            A Markdown table, then a line a network.
        """
        return f"{table_of(self.scores)}\n\n{self.verdict}"

    def summary(self) -> str:
        """Say how the methods compare and where the results lie.

        Returns
        -------
        str
            One table, then the files.
        """
        files = [f"  {name:<11}{path}" for name, path in self.files.items()]
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.seconds.items())
        return "\n\n".join([self.table(), "\n".join(["Results:", *files]), f"Time: {spent}."])


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


def compare_fusion(spec: FusePipeline, place: Workplace) -> FusionComparison:
    """Train several networks on the same pairs, and score them beside the baselines.

    Parameters
    ----------
    spec : FusePipeline
        The job; ``train.network`` and ``train.networks`` are trained, one after the other.
    place : Workplace
        Where it is done. Networks that lie there finished are not trained again.

    Returns
    -------
    FusionComparison
        With ``table`` (eleven scores, weights, seconds; the best first), ``metrics`` (CSV, a line a method
        and test pair) and ``picture`` (true image, predictions, error maps).

    Raises
    ------
    CubekitError
        From any step; what is finished stays.
    """
    return _run(spec, place, steps.contestants(spec))


def _run(spec: FusePipeline, place: Workplace, networks: Sequence[str]) -> FusionComparison:
    steps.check_inputs(spec)
    split = place.step("pairs", lambda: steps.open_parts(spec, place.folder, overwrite=place.overwrite))
    return compare_on(split, spec, place, networks)


def compare_on(
    split: PairSplit, spec: FusePipeline, place: Workplace, networks: Sequence[str]
) -> FusionComparison:
    """Compare networks on pairs of one's own.

    Parameters
    ----------
    split : PairSplit
        Pairs to train, validate and test, scaled to reflectance.
    spec : FusePipeline
        How to train and predict; its ``data`` and ``protocol`` are not looked at, but for name and ratio.
    place : Workplace
        Where it is done.
    networks : sequence of str
        Which to train; none scores the baselines alone.

    Returns
    -------
    FusionComparison
        As for :func:`compare_fusion`.

    Raises
    ------
    CubekitError
        From any step; what is finished stays.
    """
    contest = Contest(spec, split)
    logs = place.folder / "log" / spec.data.name
    for name in networks:
        place.step(name, partial(contest.enter, name, logs / name))
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
    done = place.finish(spec.title, files, scores, verdict=verdict(scores))
    return FusionComparison(done.folder, done.files, done.scores, done.seconds, done.verdict)


def _picture(
    spec: FusePipeline, pairs: Pairs, contest: Contest, scores: Mapping[str, MethodScores], path: Path
) -> Path:
    """Draw the last test date: true image, predictions, best first, and their errors."""
    pair, bands = pairs[-1], list(pairs.bands)
    chosen = spec.rgb or next((t for t in _NATURAL if set(t) <= set(bands)), None)
    places = [bands.index(name) for name in chosen] if chosen else [2, 1, 0]
    figure = fusion_figure(
        thinned(pair.fine_t2),
        {name: contest.pictures[name] for name in scores},
        known=thinned(pair.fine_t1),
        rgb=(places[0], places[1], places[2]),
        notes={name: f"RMSE {score.pairs[-1]['RMSE']:.4f}" for name, score in scores.items()},
        title=f"{pair.t1} to {pair.t2}",
    )
    return save_figure(figure, path)
