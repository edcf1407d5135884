"""The README's example runs as it stands there."""

import re
from pathlib import Path

import pytest

from cubekit.testing.archive import SampleArchive

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]
README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(
    sample_archive: SampleArchive,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chain, own_network = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "demo").symlink_to(sample_archive.folder.parent)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for example in (chain, own_network):
        exec(compile(example, "README.md", "exec"), names)  # noqa: S102  (our own text)
    assert "| mean-linear | " in capsys.readouterr().out
    assert (tmp_path / "cube.zarr").is_dir()
    assert (tmp_path / "landcover.tif").stat().st_size > 0


def test_every_link_to_a_file_of_the_repository_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())
    missing = [link for link in links if not (README.parent / link).exists()]
    assert links
    assert not missing
