"""Fusion jobs from a pipeline file: one network, several, their files, and what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import cubekit as ck  # noqa: E402
from cubekit import specs  # noqa: E402
from cubekit.batching.pairs import open_pairs  # noqa: E402
from cubekit.demo.fusion import RATIO, build_series, fusion_pairs  # noqa: E402
from cubekit.errors import PipelineError, UnknownNameError  # noqa: E402
from cubekit.evaluation.fusion_metrics import METRICS, fusion_scores  # noqa: E402
from cubekit.nn import register  # noqa: E402
from cubekit.pipeline.fuse.job import FusionComparison, run_fuse  # noqa: E402
from cubekit.pipeline.fuse.steps import settings_of  # noqa: E402
from cubekit.pipeline.result import Workplace  # noqa: E402
from cubekit.pipeline.schema import read_pipeline  # noqa: E402
from cubekit.security import load_yaml  # noqa: E402
from cubekit.tasks.fusion_recipes import RECIPES  # noqa: E402

pytestmark = pytest.mark.torch


@register("test-own-network", task="fuse", form="image")
class OwnNetwork(nn.Module):
    """All that it takes to add a network: one class in one file."""

    reach = 0

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(bands, 1, 1))

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        return fine_t1 + self.share * (coarse_t2 - coarse_t1)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    with fusion_pairs(tmp_path_factory.mktemp("series"), size=32, dates=4) as found:
        yield dict(found)


def spec_of(stores: dict[str, object], folder: Path, **change: dict[str, Any]) -> Any:
    body: dict[str, Any] = {
        "title": "Test",
        "task": "fuse",
        "data": {"name": "sample", **stores},
        "protocol": {"valid": 0, "test": 1},
        "train": {
            "network": "test-own-network",
            "patch": 16,
            "epochs": 2,
            "batch": 4,
            "log": ["tensorboard"],
        },
        "baselines": ["fine_t1", "change"],
    }
    for section, keys in change.items():
        body[section] = {**body[section], **keys}
    file = folder / "job.yaml"
    file.write_text(yaml.safe_dump(body))
    return read_pipeline(file)


def test_several_networks_and_the_baselines_stand_in_one_table(
    stores: dict[str, object], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    train = {
        "networks": ["edcstfn"],
        "pretrain": 1,
        "epochs_of": {"test-own-network": 8},
        "learning_rate": 0.05,
    }
    spec_of(stores, tmp_path, train=train)
    result: Any = ck.compare_pipeline(tmp_path / "job.yaml", out=tmp_path / "out")
    assert isinstance(result, FusionComparison)
    assert set(result.scores) == {"test-own-network", "edcstfn", "copy of F1", "F1 + (C2 - C1)"}
    errors = [score.overall for score in result.scores.values()]
    assert errors == sorted(errors)
    assert result.scores["edcstfn"].parameters == 281_764
    table = result.table()
    assert all(name in table for name in (*METRICS, *result.scores, "281,764"))
    assert "NOT better" in table  # of an EDCSTFN after two epochs
    logs = tmp_path / "out" / "log" / "sample"
    for name in ("edcstfn", "test-own-network"):
        made = {path.name for path in (logs / name).iterdir()}
        assert {"weights.safetensors", "metrics.csv", "tensorboard", "curves.png", "test.zarr"} <= made
    for name in ("table", "metrics", "picture", "result"):
        assert result.files[name].stat().st_size > 0
    told = json.loads(result.files["result"].read_text())
    assert told["scores"]["copy of F1"]["pairs"][0]["t2"] == "2023-05-15"

    pairs = open_pairs(str(stores["fine"]), str(stores["coarse"]))
    images = pairs[-1].load()
    plain = fusion_scores(images["fine_t1"] + images["coarse_t2"] - images["coarse_t1"], images["fine_t2"])
    assert result.scores["F1 + (C2 - C1)"].values == pytest.approx(plain, rel=1e-5)
    model = ck.load_model(logs / "test-own-network")
    share = model.network.state_dict()["share"].numpy()
    assert np.abs(share).max() > 0.05
    own = fusion_scores(
        images["fine_t1"] + share * (images["coarse_t2"] - images["coarse_t1"]), images["fine_t2"]
    )
    assert result.scores["test-own-network"].values == pytest.approx(own, rel=1e-4)

    before = (logs / "edcstfn" / "weights.safetensors").stat().st_mtime_ns
    again: Any = ck.compare_pipeline(tmp_path / "job.yaml", out=tmp_path / "out")
    assert (logs / "edcstfn" / "weights.safetensors").stat().st_mtime_ns == before
    assert again.scores["edcstfn"].values == result.scores["edcstfn"].values


def test_a_run_trains_the_first_network_only(stores: dict[str, object], tmp_path: Path) -> None:
    spec = spec_of(stores, tmp_path, train={"networks": ["edcstfn"], "log": []})
    result = run_fuse(spec, Workplace(tmp_path / "out"))
    assert next(iter(result.scores)) == "test-own-network"
    assert "edcstfn" not in result.scores
    predicted = ck.open(result.files["prediction"])
    spans = [(str(t1), str(t2)) for t1, t2 in open_pairs(str(stores["fine"]), str(stores["coarse"])).spans]
    assert spans[-1] in list(zip(predicted.attrs["t1"], predicted.attrs["t2"], strict=True))
    assert predicted["data"].dims == ("time", "band", "y", "x")
    assert (result.files["model"] / "model.json").is_file()
    assert "RMSE of F1 + (C2 - C1), which learns nothing" in result.summary()


def test_the_published_protocol_scores_patches_with_the_published_definitions(
    stores: dict[str, object], tmp_path: Path
) -> None:
    spec = spec_of(stores, tmp_path, protocol={"name": "survey", "train": 2, "valid": 0.15, "test": 0.2},
                   train={"log": [], "epochs": 1})  # fmt: skip
    result = run_fuse(spec, Workplace(tmp_path / "out"))
    images = open_pairs(str(stores["fine"]), str(stores["coarse"]))[-1].load()
    plain = fusion_scores(images["fine_t1"], images["fine_t2"], compat=True)
    assert result.scores["copy of F1"].values == pytest.approx(plain, rel=1e-5)


def test_what_cannot_be_run_is_refused_before_anything_is_read(
    stores: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match="either set and root"):
        spec_of({}, tmp_path)
    with pytest.raises(UnknownNameError, match="Did you mean 'edcstfn'"):
        run_fuse(spec_of(stores, tmp_path, train={"network": "edcstfm"}), Workplace(tmp_path / "out"))
    with pytest.raises(PipelineError, match="swinstfm is no network of this job"):
        run_fuse(spec_of(stores, tmp_path, train={"epochs_of": {"swinstfm": 2}}), Workplace(tmp_path / "out"))
    with pytest.raises(PipelineError, match=r"'data\.fine': there is nothing at nowhere\.zarr"):
        run_fuse(spec_of(stores, tmp_path, data={"fine": "nowhere.zarr"}), Workplace(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_sample_series_are_blurred_means_of_the_fine_images() -> None:
    fine, coarse = build_series(seed=1, size=32, dates=2)
    assert coarse.sizes == {"time": 6, "band": 4, "y": 2, "x": 2}
    assert set(fine.indexes["time"]) <= set(coarse.indexes["time"])
    means = fine["data"].coarsen(y=RATIO, x=RATIO).mean().to_numpy()
    np.testing.assert_allclose(coarse["data"][[0, 5]], means * 1.03, atol=0.02)
    assert fine.odc.geobox.extent.boundingbox == coarse.odc.geobox.extent.boundingbox


def test_the_shipped_file_and_the_ready_settings_are_understood(
    stores: dict[str, object], tmp_path: Path
) -> None:
    spec: Any = read_pipeline(specs.find("pipelines", "fusion"), stores)
    assert set(spec.train.networks) == set(RECIPES)
    for name, recipe in RECIPES.items():
        train = {"model": name, "network": name}
        spec = spec_of(stores, tmp_path, train=train)
        told = settings_of(name, spec.train)
        assert told["learning_rate"] == recipe.learning_rate
        assert told["schedule"] == recipe.schedule
        ready = load_yaml(specs.find("models", name) / "model.yaml")["train"]
        assert (ready["patch"], ready["epochs"], ready["batch"]) == (512, 500, recipe.batch)
        assert ready["network"] == name
