"""The commands one after the other, as a user would type them."""

from pathlib import Path

import pytest

from cubekit.cli import main
from cubekit.testing.archive import SampleArchive
from cubekit.testing.servers import file_server, stac_server

pytest.importorskip("torch")
pytest.importorskip("rustac")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


def test_search_build_verify_train_predict_export(
    sample_archive: SampleArchive,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "CUBEKIT_ALLOW_HOSTS", "127.0.0.1"
    )  # saved items no longer know which API they came from

    def run(*words: object) -> str:
        code = main(["--quiet", *map(str, words)])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    items, cube, model = tmp_path / "items.json", tmp_path / "cube.zarr", tmp_path / "model"
    area = ",".join(map(str, sample_archive.bbox))
    with file_server(sample_archive.folder) as files:
        with stac_server(sample_archive.item_collection(files.url)) as api:
            search = ("search", "sentinel-2-l2a", "--url", api, "--bbox", area, "--datetime", "2023")
            assert "24 of sentinel-2-l2a" in run(*search, "--out", items)
        options = (
            "--bands",
            "red,nir,swir16",
            "--mask",
            "clouds+shadows",
            "--every",
            "2MS",
            "--fill",
            "linear",
        )
        run("build", items, "--out", cube, "--crs", sample_archive.crs, "--resolution", 10, *options)
    assert "sound" in run("verify", cube)
    assert "swir16" in run("info", cube)
    labels = ("--labels", sample_archive.labels, "--inward", 10, "--by", "groups")
    assert "overall accuracy" in run("train", cube, *labels, "--epochs", 2, "--batch", 64, "--out", model)
    assert "tempcnn" in run("info", model)
    run("predict", model, cube, "--out", tmp_path / "map.zarr")
    run("export", tmp_path / "map.zarr", tmp_path / "map.tif")
    run("export", tmp_path / "map.zarr", tmp_path / "map.png")
    assert (tmp_path / "map.tif").is_file()
    assert (tmp_path / "map.png").is_file()


def test_a_damaged_store_is_exit_code_1(
    sample_archive: SampleArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "cube.zarr"
    assert main(["-q", "build", str(sample_archive.items), "--out", str(store), "--bands", "red"]) == 0
    chunk = max(
        (path for path in store.rglob("c/**/*") if path.is_file()), key=lambda path: path.stat().st_size
    )
    chunk.write_bytes(chunk.read_bytes()[:-40])
    capsys.readouterr()
    assert main(["verify", str(store)]) == 1
    assert chunk.relative_to(store).as_posix() in capsys.readouterr().out
