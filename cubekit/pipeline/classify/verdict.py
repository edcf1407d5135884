"""What the scores of a class map say, in words."""

from collections.abc import Mapping

from cubekit.pipeline.classify.steps import OPTIMISTIC
from cubekit.pipeline.result import Score


def verdict(scores: Mapping[str, Score]) -> str:
    """Say by how much the model beats the others on the same samples, or does not.

    Parameters
    ----------
    scores : mapping
        By method; the model stands first. Scores against a reference map, and on a random split, are told
        apart by their names.

    Returns
    -------
    str
        A line a method.
    """
    (model, first), *others = scores.items()
    own = first.overall
    lines = [f"Overall accuracy of {model} on the test samples: {own:.3f}."]
    for name, score in others:
        margin = 100 * (own - score.overall)
        if "against the reference" in name:
            lines.append(f"  {name}: {score.overall:.3f}")
        elif name.endswith(OPTIMISTIC):
            lines.append(
                f"  {name}: {score.overall:.3f}, {-margin:+.1f} points: neighbours are on both sides"
            )
        elif margin > 0:
            lines.append(f"  {margin:.1f} points better than {name} ({score.overall:.3f})")
        else:
            lines.append(f"  NOT better than ({margin:.1f} points) {name} ({score.overall:.3f})")
    return "\n".join(lines)
