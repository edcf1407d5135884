"""All figures in one place; each returns a matplotlib figure that pyplot does not know."""

from cubekit.exports.attention import attention_figure
from cubekit.exports.charts import (
    comparison_figure,
    confusion_figure,
    curve_figure,
    reliability_figure,
    series_figure,
)
from cubekit.exports.fraction_figures import fraction_maps_figure, share_reliability_figure
from cubekit.exports.maps import map_figure, rgb_figure, split_figure
from cubekit.exports.panels import panels_figure
from cubekit.exports.style import png_bytes, save_figure

__all__ = [
    "attention_figure",
    "comparison_figure",
    "confusion_figure",
    "curve_figure",
    "fraction_maps_figure",
    "map_figure",
    "panels_figure",
    "png_bytes",
    "reliability_figure",
    "rgb_figure",
    "save_figure",
    "series_figure",
    "share_reliability_figure",
    "split_figure",
]
