"""The README's example runs as it stands there; links and names of the pages hold."""

import re
from pathlib import Path

import pytest
import yaml

from cubekit import specs
from cubekit.demo.samples import SAMPLES
from cubekit.testing.archive import SampleArchive

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]
README = Path(__file__).parents[1] / "README.md"
SYSTEMS = sorted((README.parent / "docs" / "systems").glob("*.md"))


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


@pytest.mark.parametrize("page", SYSTEMS, ids=[page.stem for page in SYSTEMS])
def test_every_system_names_its_pipeline_its_card_and_its_study(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
    assert any(re.fullmatch(r"\.\./\.\./pipelines/\w+\.yaml", link) for link in links)
    assert any(re.fullmatch(r"\.\./\.\./models/\w+/README\.md", link) for link in links)
    studies = re.findall(r"python -m (benchmarks\.studies\.\w+)", text)
    assert studies
    assert all((README.parent / f"{study.replace('.', '/')}.py").is_file() for study in studies)
    assert f"docs/systems/{page.name}" in README.read_text()


def test_the_pipelines_that_the_readme_runs_ship_with_sample_data() -> None:
    names = re.findall(r"`cubekit run (\w+) --demo`", README.read_text())
    assert len(names) == len(SYSTEMS)
    for name in names:
        assert (yaml.safe_load(specs.find("pipelines", name).read_text()))["demo"] in SAMPLES
