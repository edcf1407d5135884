"""Whole jobs on the sample archive: made once, gone on with, refused, and checked before they start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

import cubekit as ck
from cubekit.errors import CubekitError, OptionError, PipelineError, StoreError, UnknownNameError
from cubekit.pipeline.classify import steps
from cubekit.testing.archive import SampleArchive

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*different classes"),  # the sample's polygons touch at their borders
]


@pytest.fixture
def job(sample_archive: SampleArchive, tmp_path: Path) -> "Job":
    return Job(sample_archive, tmp_path)


class Job:
    """A small pipeline file that tests change."""

    def __init__(self, archive: SampleArchive, folder: Path) -> None:
        self.file, self.out = folder / "job.yaml", folder / "out"
        self.body: dict[str, Any] = {
            "title": "Job",
            "source": {"items": str(archive.items)},
            "grid": {"crs": archive.crs, "resolution": 20, "bbox": list(archive.bbox)},
            "cube": {"bands": ["red", "nir"], "composite": {"every": "3MS"}, "fill": "linear"},
            "labels": {"source": str(archive.labels), "limit_per_class": 200},
            "split": {"by": "groups"},
            "train": {"network": "tempcnn", "epochs": 1, "batch": 64},
            "baselines": ["majority"],
        }

    def run(self, change: Mapping[str, Mapping[str, Any]] | None = None, **options: Any) -> Any:
        """Run with some keys of some sections changed."""
        body = dict(self.body)
        for section, keys in (change or {}).items():
            body[section] = {**body[section], **keys}
        self.file.write_text(yaml.safe_dump(body))
        return ck.run(self.file, out=self.out, **options)

    @property
    def made(self) -> dict[str, int]:
        """When each file of cube, model and prediction was written."""
        names = ("cube.zarr/zarr.json", "model/model.json", "prediction.zarr/zarr.json")
        return {name: (self.out / name).stat().st_mtime_ns for name in names if (self.out / name).exists()}


def test_a_run_makes_every_file_and_a_second_one_makes_none_again(job: Job) -> None:
    result = job.run()
    assert {path.name for path in job.out.iterdir()} >= {"cube.zarr", "model", "map.tif", "report.html"}
    assert all(path.exists() for path in result.files.values())
    assert set(result.scores) == {"tempcnn", "majority class"}
    assert "points better than majority class" in result.summary()
    made = job.made
    assert len(made) == 3
    assert job.run().scores["tempcnn"].overall == result.scores["tempcnn"].overall
    assert job.made == made


def test_another_cube_is_refused_and_replaced_where_asked(job: Job) -> None:
    job.run()
    made = job.made
    with pytest.raises(StoreError, match=r"\['red', 'nir'\], now \['red'\]"):
        job.run({"cube": {"bands": ["red"]}})
    assert job.made == made
    job.run({"cube": {"bands": ["red"]}}, overwrite=True)
    assert list(ck.open(job.out / "cube.zarr").band.values) == ["red"]
    assert ck.load_model(job.out / "model").card.bands == ("red",)


def test_other_training_settings_leave_the_cube(job: Job) -> None:
    job.run()
    before = job.made
    job.run({"train": {"seed": 3}})
    changed = {name for name, when in job.made.items() if when != before[name]}
    assert changed == {"model/model.json", "prediction.zarr/zarr.json"}


def test_a_run_that_stops_between_two_steps_goes_on(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "predict_map", stop)
        with pytest.raises(KeyboardInterrupt):
            job.run()
    before = job.made
    assert set(before) == {"cube.zarr/zarr.json", "model/model.json"}
    job.run()
    assert {name: job.made[name] for name in before} == before
    assert "prediction.zarr/zarr.json" in job.made


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"train": {"network": "tempcn"}}, UnknownNameError, "Did you mean 'tempcnn'"),
        ({"train": {"network": "edcstfn"}}, OptionError, "not to classify series"),
        ({"train": {"network": "unet"}, "split": {"by": "random"}}, PipelineError, "split by blocks"),
        ({"train": {"arguments": {"drop": 0.1}}}, OptionError, "Did you mean 'dropout'"),
        ({"train": {"patience": 0}}, PipelineError, r"train\.patience"),
        ({"labels": {"source": "nowhere.gpkg"}}, PipelineError, r"'labels\.source': there is no file"),
        ({"labels": {"source": "/vsicurl/http://127.0.0.1:9/a.gpkg"}}, PipelineError, "there is no file"),
        ({"labels": {"inward": -1}}, PipelineError, r"labels\.inward"),
        ({"split": {"fractions": [0.5, 0.5, 0.5]}}, PipelineError, "must add up to 1"),
        ({"cube": {"mask": "cloud+shadow"}}, UnknownNameError, r"Did you mean 'clouds\+shadows'"),
        ({"cube": {"bands": ["redd"]}}, UnknownNameError, "Did you mean 'red'"),
        ({"cube": {"maks": "clouds"}}, PipelineError, "Did you mean 'mask'"),
    ],
)
def test_mistakes_are_found_before_the_cube_is_built(
    job: Job, change: dict[str, Any], kind: type[CubekitError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        job.run(change)
    assert job.made == {}


def test_a_folder_that_cannot_be_made_is_said_so(job: Job) -> None:
    job.out.write_text("a file")
    with pytest.raises(PipelineError, match="Cannot make the folder"):
        job.run()


@pytest.mark.parametrize("name", ["../pyproject", "../tests", "/etc", "sample_landcover", "."])
def test_a_bare_word_names_only_what_ships(name: str) -> None:
    with pytest.raises(UnknownNameError, match="land_cover"):
        ck.run(name)
