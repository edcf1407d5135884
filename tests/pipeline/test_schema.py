from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from cubekit import specs
from cubekit.cli import options
from cubekit.cube.composite import How
from cubekit.cube.fill import Fill
from cubekit.errors import PipelineError, UnknownNameError
from cubekit.pipeline import schema
from cubekit.pipeline.classify.spec import ClassifyPipeline

MINIMAL: dict[str, Any] = {
    "title": "t",
    "parameters": {"epochs": 3, "where": None},
    "source": {"items": "${where}/items.json"},
    "labels": {"source": "${where}/labels.gpkg"},
    "train": {"network": "tempcnn", "epochs": "${epochs}"},
}


def read_pipeline(path: Path, settings: dict[str, Any] | None = None) -> ClassifyPipeline:
    spec = schema.read_pipeline(path, settings)
    assert isinstance(spec, ClassifyPipeline)
    return spec


def write(folder: Path, change: dict[str, Any] | None = None) -> Path:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **(change or {})}))
    return path


def test_parameters_fill_references_and_keep_their_type(tmp_path: Path) -> None:
    spec = read_pipeline(write(tmp_path), {"where": "here", "epochs": 7})
    assert spec.source is not None
    assert spec.source.items == "here/items.json"
    assert spec.train.epochs == 7


def test_sections_with_nothing_to_read_are_left_out() -> None:
    path = specs.find("pipelines", "tree_species")
    table = read_pipeline(path, {"table": "t.csv"})
    assert (table.source, table.labels, table.unlabelled) == (None, None, None)
    assert table.series is not None
    assert table.series.months == ("2022-01", "2022-12")
    scenes = read_pipeline(path, {"items": "i.json", "labels": "l.gpkg", "unlabelled": "u.csv"})
    assert scenes.series is None
    assert scenes.unlabelled is not None
    for wrong in ({}, {"table": "t.csv", "labels": "l.gpkg"}, {"labels": "l.gpkg"}):
        with pytest.raises(PipelineError, match=r"either labels|labels and reference|Labels and reference"):
            read_pipeline(path, wrong)


@pytest.mark.parametrize(
    "series", [{"form": "plain", "scale": 0.1}, {"form": "earth-engine", "missing": [-999]}]
)
def test_options_of_the_other_kind_of_table_are_refused(tmp_path: Path, series: dict[str, Any]) -> None:
    path = write(tmp_path, {"labels": None, "series": {"source": "t.csv", **series}})
    with pytest.raises(PipelineError, match="does not apply to tables of form"):
        read_pipeline(path, {"where": "x"})


def test_a_parameter_without_value_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="--set where="):
        read_pipeline(write(tmp_path))


def test_an_unknown_parameter_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="Did you mean 'epochs'"):
        read_pipeline(write(tmp_path), {"epoch": 3, "where": "x"})


def test_an_unknown_reference_gets_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path, {"labels": {"source": "${wher}/x"}})
    with pytest.raises(PipelineError, match="Did you mean 'where'"):
        read_pipeline(path, {"where": "x"})


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"sorce": {}}, "Did you mean 'source'"),
        ({"cube": {"compositee": {}}}, "Did you mean 'composite'"),
        ({"train": {"network": "tempcnn", "epoch": 3}}, "Did you mean 'epochs'"),
    ],
)
def test_an_unknown_key_gets_the_nearest_one_of_its_section(
    tmp_path: Path, change: dict[str, Any], hint: str
) -> None:
    with pytest.raises(PipelineError, match=hint):
        read_pipeline(write(tmp_path, change), {"where": "x"})


def test_files_and_the_command_line_know_every_way_that_the_functions_know(tmp_path: Path) -> None:
    composite = {"every": "dekad", "how": "medoid", "pool_years": True, "layers": ["source"]}
    cube = {"composite": composite, "fill": "whittaker", "fill_limit": 60, "dilate": "60 m", "opening": 1}
    spec = read_pipeline(write(tmp_path, {"cube": cube}), {"where": "x"})
    assert spec.cube.composite is not None
    assert (spec.cube.composite.how, spec.cube.fill_limit, spec.cube.dilate) == ("medoid", 60, "60 m")
    assert get_args(type(spec.cube.composite).model_fields["how"].annotation) == get_args(How)
    assert [how.value for how in options.How] == list(get_args(How))
    assert [fill.value for fill in options.Fill] == list(get_args(Fill))
    assert get_args(get_args(type(spec.cube).model_fields["fill"].annotation)[0]) == get_args(Fill)


def test_a_source_is_exactly_one_of_three(tmp_path: Path) -> None:
    path = write(tmp_path, {"source": {"items": "a", "search": {"collection": "c"}}})
    with pytest.raises(PipelineError, match="exactly one of search, archive, items"):
        read_pipeline(path, {"where": "x"})


def test_labels_or_series_but_not_both(tmp_path: Path) -> None:
    path = write(tmp_path, {"series": {"source": "table.parquet"}})
    with pytest.raises(PipelineError, match="either labels"):
        read_pipeline(path, {"where": "x"})


def test_a_wrong_type_is_named_with_its_value(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"train.epochs.*many"):
        read_pipeline(write(tmp_path), {"where": "x", "epochs": "many"})


def test_a_ready_model_gives_settings_and_keys_beside_it_win(tmp_path: Path) -> None:
    path = write(tmp_path, {"train": {"model": "tempcnn", "epochs": 2}})
    spec = read_pipeline(path, {"where": "x"})
    assert spec.train.network == "tempcnn"
    assert spec.train.arguments == {"dropout": 0.5}
    assert spec.train.epochs == 2


@pytest.mark.parametrize("path", sorted(specs.folder("pipelines").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_pipeline_that_ships_is_right(path: Path) -> None:
    needed: dict[str, Any] = {"api": "http://127.0.0.1:1", "bbox": [0, 0, 1, 1], "labels": "l", "truth": "t"}
    needed |= {"items": "items.json", "classes": {1: "a"}, "colours": {"a": "#000000"}}
    named = yaml.safe_load(path.read_text()).get("parameters", {})
    spec = read_pipeline(path, {name: value for name, value in needed.items() if name in named})
    assert spec.title


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"title: \xe9", "not text in UTF-8"),
        (b"title: a\ntitle: b", "repeats"),
        (b'title: !!python/object/apply:os.system ["true"]', "not acceptable YAML"),
        (b"title: [", "not acceptable YAML"),
        (b"- a", "holds list"),
        (b"", "holds NoneType"),
        (b"title: t\nparameters: [a]", "name: value"),
    ],
)
def test_what_is_no_pipeline_is_said_so(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=said):
        read_pipeline(path)


def test_a_missing_part_is_named_without_echoing_the_file(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="either labels") as caught:
        read_pipeline(write(tmp_path, {"labels": None}), {"where": "x"})
    assert "items.json" not in str(caught.value)


def test_a_model_is_a_name_and_no_path(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.yaml").write_text("train: {network: tempcnn}")
    for name in (str(tmp_path / "mine"), "../models/tempcnn"):
        with pytest.raises(UnknownNameError, match="No model named"):
            read_pipeline(write(tmp_path, {"train": {"model": name}}), {"where": "x"})


def test_an_unknown_task_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="Did you mean 'classify'"):
        read_pipeline(write(tmp_path, {"task": "clasify"}), {"where": "x"})
