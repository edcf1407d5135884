"""All rows of the suite, in the order in which they are run and shown."""

from benchmarks import composite, load, patches, planning, prediction, series, stores, training
from benchmarks.measure import Row

ROWS: dict[str, Row] = {
    **load.ROWS,
    **composite.ROWS,
    **planning.ROWS,
    **stores.ROWS,
    **series.ROWS,
    **patches.ROWS,
    **training.ROWS,
    **prediction.ROWS,
}
