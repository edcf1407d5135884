"""Jobs of fractions: published pixels from files to scores, and the words of the pipeline file."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml

import cubekit as ck
from cubekit import specs
from cubekit.batching.levels import read_level
from cubekit.errors import PipelineError
from cubekit.pipeline.result import RunResult
from cubekit.testing.archive import SampleArchive

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.torch

N1 = read_level("N1")
PARTS = {"train": range(90), "valid": range(90, 120), "test": range(120, 150)}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pixels that mix four pure series, in the form of the published files."""
    root = tmp_path_factory.mktemp("published")
    (root / "pixels").mkdir()
    rng = np.random.default_rng(0)
    pure = np.repeat(rng.uniform(300, 9000, (4, 1, 7)), 12, axis=1)
    shares = rng.dirichlet(np.ones(4), 150)
    for number, share in enumerate(shares):
        mask = rng.random((12, 7)) > 0.2
        values = np.einsum("k,ktc->tc", share, pure) + rng.normal(0, 500, (12, 7))
        known = dict(zip(N1.ancillary.bands, rng.normal(N1.ancillary.mean, N1.ancillary.std), strict=True))
        content = {
            "metadata": {"square_id": number},
            "ts_data": {"values": values.tolist(), "masks": mask.astype(int).tolist()},
            "ancillary_data": {name: float(np.clip(v, None, 9e3)) for name, v in known.items()},
        }
        (root / "pixels" / f"{number:07d}.json").write_text(json.dumps(content))
    for part, numbers in PARTS.items():
        table = pd.DataFrame(shares[list(numbers)], columns=["1", "2", "4", "5"])
        table.insert(0, "square_id", list(numbers))
        table["Class_max"] = "1"
        table.to_csv(root / f"{part}.csv", index=False)
    words = {
        "title": "Published pixels",
        "task": "fractions",
        "published": {
            "folder": str(root / "pixels"),
            **{part: str(root / f"{part}.csv") for part in PARTS},
            "variables": ["longitude", "latitude", "altitude", "slope", "evapotranspiration"],
        },
        "train": {
            "model": "land_cover_fractions_n1",
            "epochs": 20,
            "batch": 15,
            "scaling": "published",
            "arguments": {"hidden": 16, "embedding": 4},
        },
    }
    (root / "job.yaml").write_text(yaml.safe_dump(words))
    return root


@pytest.fixture(scope="module")
def result(published: Path) -> RunResult:
    return ck.run(published / "job.yaml", out=published / "run")


def test_published_pixels_are_learned_and_scored_beside_baselines(result: RunResult) -> None:
    assert list(result.scores) == ["brits", "random forest", "linear unmixing", "mean shares"]
    overall = {name: score.overall for name, score in result.scores.items()}
    assert overall["brits"] < overall["mean shares"]
    assert "lower than mean shares" in result.summary()
    table = pd.read_csv(result.files["comparison"])
    assert len(table) == 30
    np.testing.assert_allclose(table[[f"{code}_pred" for code in (1, 2, 4, 5)]].sum(axis=1), 1, atol=1e-5)
    report = result.files["report"].read_text()
    for word in ("Wetlands", "Imputation", "overestimated"):
        assert word in report
    stored = json.loads(result.files["result"].read_text())["scores"]["brits"]
    assert stored["overall"] == pytest.approx(overall["brits"])


def test_the_recipe_is_the_published_one(result: RunResult) -> None:
    card = ck.load_model(result.files["model"]).card
    assert card.ancillary is not None
    assert card.normalisation == N1.reflectance
    assert card.ancillary.bands == ("longitude", "latitude", "altitude", "slope", "evapotranspiration")
    assert card.ancillary.std[0] == 1.42003659
    wanted = {"schedule": "cosine", "gradient_norm": 0.95, "learning_rate": 0.003, "weight_decay": 0.0}
    assert {name: card.settings[name] for name in wanted} == wanted


def test_unmix_writes_the_specified_tables(
    result: RunResult, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cubekit.cli import main

    words = ["unmix", str(result.files["model"]), str(published / "pixels"), "--output-dir", str(tmp_path)]
    assert main([*words, "--level", "N1", "--labels", str(published / "test.csv")]) == 0
    assert "greatest share" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert list(table) == ["id", "1", "2", "4", "5", "cls_max", "cls_max_prob"]
    assert table["id"].tolist() == list(PARTS["test"])
    own = pd.read_csv(result.files["comparison"])
    compared = pd.read_csv(tmp_path / "evaluation.csv")
    np.testing.assert_allclose(compared["5_pred"].to_numpy(), own["5_pred"].to_numpy(), atol=1e-5)
    assert main([*words, "--level", "N2"]) == 1
    assert "level N2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"published": None}, "either source"),
        ({"cube": {"fill": "linear"}}, "Gaps stay"),
        ({"predict": {"outputs": ["class"]}}, "holds the layer fractions"),
        ({"hiden": 0.2}, "hidden"),
    ],
)
def test_wrong_words_are_explained(
    published: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    words = yaml.safe_load((published / "job.yaml").read_text()) | change
    words = {key: value for key, value in words.items() if value is not None}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(words))
    with pytest.raises(PipelineError, match=message):
        ck.run(tmp_path / "job.yaml", out=tmp_path / "run")


@pytest.mark.parametrize("where", [("published", "valid"), ("train", "weights")])
def test_files_that_are_not_there_are_named_first(
    published: Path, tmp_path: Path, where: tuple[str, str]
) -> None:
    words = yaml.safe_load((published / "job.yaml").read_text())
    words[where[0]][where[1]] = "nowhere.csv"
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(words))
    with pytest.raises(PipelineError, match=r"nowhere\.csv"):
        ck.run(tmp_path / "job.yaml", out=tmp_path / "run")


@pytest.fixture(scope="module")
def mapped(sample_archive: SampleArchive, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """Run the job that ships on a small sample archive, from files."""
    folder = tmp_path_factory.mktemp("map")
    words = yaml.safe_load((specs.find("pipelines", "land_cover_fractions")).read_text())
    words["source"] = {"items": str(sample_archive.items)}
    words["baselines"] = ["mean_shares"]
    words["cube"]["bands"] = ["red", "nir", "swir16"]
    del words["ancillary"]["elevation"], words["parameters"]["api"], words["parameters"]["elevation"]
    words["train"]["arguments"] = {"hidden": 12}
    (folder / "job.yaml").write_text(yaml.safe_dump(words))
    settings = {
        "bbox": list(sample_archive.bbox),
        "truth": str(sample_archive.truth),
        "classes": dict(zip(sample_archive.codes, sample_archive.classes, strict=True)),
        "colours": dict(zip(sample_archive.classes, sample_archive.colours, strict=True)),
        "epochs": 2,
        "block": 300,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean shares differ")  # of so little land
        return ck.run(folder / "job.yaml", out=folder / "run", settings=settings)


def test_scenes_become_maps_of_shares_and_gaps_stay(mapped: RunResult, sample_archive: SampleArchive) -> None:
    cube, prediction = ck.open(mapped.files["cube"]), ck.open(mapped.files["prediction"])
    stored = cube["data"]
    assert (stored == stored.attrs["_FillValue"]).any()  # clouds; nothing was filled
    assert prediction["fractions"].dims == ("category", "y", "x")
    shares = prediction["fractions"].to_numpy().astype(float)
    known = shares[0] != 255
    np.testing.assert_allclose(shares[:, known].sum(axis=0) / 250, 1, atol=6 * 0.5 / 250 + 1e-6)
    with rasterio.open(mapped.files["map"]) as file:
        assert file.count == len(sample_archive.classes)
    with rasterio.open(mapped.files["classes"]) as file:
        best = file.read(1)
    chosen = np.take_along_axis(shares, np.where(known, best, 0)[None].astype(int), axis=0)[0]
    assert (chosen[known] >= shares.max(axis=0)[known] - 1).all()  # the greatest, but for rounding to steps
    assert {"picture", "report", "comparison", "model"} <= set(mapped.files)
    split = ck.load_split(mapped.files["split"])
    card = ck.load_model(mapped.files["model"]).card
    assert card.data.split == split.digest()
    assert card.data.train == (split.part == 0).sum()
    assert ck.load_model(mapped.files["model"]).ancillary == ("longitude", "latitude")
