"""Addresses from the attacks folder of the reliability note, and hostile YAML."""

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  (xarray's accessor)
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from rasterio.errors import RasterioError

import cubekit.cube.reader  # noqa: F401  (guards the loggers of rasterio)
from cubekit.errors import CatalogError, SecurityError
from cubekit.security import check_href, is_private_host, load_yaml, redact
from cubekit.testing.servers import Fault, file_server

CANARY = "SECRETTOKEN123"


@pytest.mark.parametrize(
    "href",
    [
        "https://example.com/a/B04.tif",
        "http://example.com:8080/x.tif",
        "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/06/V/VN/B04.tif?query=kept",
        "https://[2a00:1450:4001:81b::200e]/x.tif",
        "https://93.184.216.34/x.tif",
        "s3://usgs-landsat/collection02/LC09_SR_B4.TIF",
        "gs://bucket/key.tif",
        "az://container/key.tif",
        "abfs://container@account.dfs.core.windows.net/key.tif",
    ],
)
def test_public_addresses_pass_unchanged(href: str) -> None:
    assert check_href(href) == href


@pytest.mark.parametrize(
    "href",
    [
        # documents and drivers
        "<VRTDataset rasterXSize='1'/>", '  <?xml version="1.0"?>', '{"type": "FeatureCollection"}', "",
        "vrt:///etc/passwd", "vrt://x.tif", "/vsicurl/https://a.com/x.tif", "/vsis3/b/k", "/VSIMEM/x.tif",
        "MEM:::DATAPOINTER=1", 'NETCDF:"/etc/passwd":v', "HDF5:x.h5://v", "GTIFF_DIR:1:x.tif", "zarr:/x",
        "zip+https://example.com/x.zip", "ftp://example.com/x.tif", "data://text", "x.tif\nHost: y",
        # local files from a remote item
        "file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "C:\\x.tif", "\\\\server\\share\\x.tif",
        # machines of the private network, in the spellings that C libraries accept
        "http://localhost/x", "http://LOCALHOST./x", "http://a.localhost/x", "http://intranet/x",
        "http://printer.local/x", "http://metadata.google.internal/v1/",
        "http://169.254.169.254/latest/meta-data", "http://127.0.0.1/x", "http://127.1/x", "http://0x7f.1/x",
        "http://2130706433/x", "http://017700000001/x", "http://0.0.0.0/x", "http://10.1.2.3/x",
        "http://192.168.0.1/x", "http://172.16.5.5/x", "http://100.64.0.1/x", "http://224.0.0.1/x",
        "http://[::1]/x", "http://[::ffff:127.0.0.1]/x", "http://[fe80::1%25eth0]/x", "http://[fd00::1]/x",
        "http://[64:ff9b::7f00:1]/x", "http://[2002:7f00:1::]/x",
        # names before the real host
        "https://a.com@127.0.0.1/x", "https://user:pass@a.com/x", "https://a.com\\@127.0.0.1/x",
        "http:///x", "s3:///key", "http://[bad/x",
    ],
)  # fmt: skip
def test_everything_else_is_refused(href: str) -> None:
    with pytest.raises(SecurityError, match="refused"):
        check_href(href)


def test_the_api_s_own_host_may_be_private() -> None:
    href = "http://127.0.0.1:9000/x.tif"
    assert check_href(href, origin="http://127.0.0.1:8000/search") == href
    with pytest.raises(SecurityError, match="private network"):
        check_href("http://127.0.0.2/x.tif", origin="http://127.0.0.1:8000")


def test_private_hosts_are_allowed_in_code_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    href = "http://archive.lan/x.tif"
    with pytest.raises(SecurityError, match=r"CUBEKIT_ALLOW_HOSTS=archive\.lan"):
        check_href(href)
    assert check_href(href, allow_hosts=["Archive.lan"]) == href
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "other, ARCHIVE.lan")
    assert check_href(href) == href


def test_relative_addresses_of_remote_items_stay_on_the_web() -> None:
    origin = "https://example.com/stac/items/1"
    assert check_href("../B04.tif", origin=origin) == "https://example.com/stac/B04.tif"
    assert check_href("/etc/passwd", origin=origin) == "https://example.com/etc/passwd"
    with pytest.raises(SecurityError):
        check_href("//127.0.0.1/x.tif", origin=origin)
    with pytest.raises(SecurityError):
        check_href("file:///etc/passwd", origin=origin, root="/")


def test_local_paths_stay_under_their_root(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    root.mkdir()
    (root / "a.tif").touch()
    outside = tmp_path / "outside.tif"
    outside.touch()
    (root / "link.tif").symlink_to(outside)
    (root / "inside.tif").symlink_to(root / "a.tif")
    for href in ("a.tif", str(root / "a.tif"), (root / "a.tif").as_uri(), "inside.tif"):
        assert check_href(href, root=root) == str(root / "a.tif")
    for href in ("link.tif", "../outside.tif", str(outside), outside.as_uri(), f"{root}/../outside.tif"):
        with pytest.raises(SecurityError, match="outside the archive folder"):
            check_href(href, root=root)
    with pytest.raises(SecurityError, match="another machine"):
        check_href("file://server/share/a.tif", root=root)


@given(st.text())
@example("file:///etc/passwd")
@example("%2e%2e/%2e%2e/etc/passwd")
def test_no_text_leaves_the_root(text: str) -> None:
    root = "/srv/archive"
    try:
        found = check_href(text, root=root)
    except SecurityError:
        return
    remote = "://" in found
    assert remote or found == root or found.startswith(root + os.sep)


@given(st.ip_addresses(v=4))
def test_private_numbers_are_private_in_every_spelling(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    spellings = {str(address), str(number), hex(number), f"::ffff:{address}"}
    assert len({is_private_host(text) for text in spellings}) == 1


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://a.blob.core.windows.net/c/x.tif?sv=1&sig={CANARY} failed",
        f"'/vsicurl/https://example.com/x.tif?sig={CANARY}' not recognized",
        f"https://user:{CANARY}@example.com/x",
        f"s3://bucket/key?X-Amz-Signature={CANARY}",
        f"Authorization: Bearer {CANARY}",
        f"{{'token': '{CANARY}', 'x': 1}}",
        f"https://example.com/x#access_token={CANARY}",
        f"headers {{'Ocp-Apim-Subscription-Key': '{CANARY}'}}",
        f"X-Amz-Security-Token={CANARY}&a=b",
    ],
)
def test_no_secret_survives_redaction(text: str) -> None:
    assert CANARY not in redact(text)


def test_what_gdal_logs_is_redacted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    noise = np.random.default_rng(0).integers(0, 60000, (600, 600), "uint16")
    data = xr.DataArray(noise, dims=("y", "x"), coords={"y": -np.arange(600.0), "x": np.arange(600.0)})
    data.rio.write_crs(32631).rio.to_raster(tmp_path / "a.tif", tiled=True)
    faults = [Fault(path="/a.tif", times=2), Fault(path="/a.tif", status=403)]
    with (
        file_server(tmp_path, faults=faults) as server,
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        rasterio.open(f"{server.url}/a.tif?sig={CANARY}") as file,
        pytest.raises(RasterioError),
    ):
        file.read(1)
    assert "IReadBlock failed" in caplog.text
    assert CANARY not in caplog.text


def test_redaction_keeps_what_helps() -> None:
    text = "https://example.com:8080/a/b.tif?sig=1: HTTP 403, see https://example.com/help"
    assert redact(text) == "https://example.com:8080/a/b.tif HTTP 403, see https://example.com/help"
    assert redact("plain text, 3 < 4; C:\\x.tif") == "plain text, 3 < 4; C:\\x.tif"


def test_errors_never_show_the_query() -> None:
    with pytest.raises(SecurityError) as raised:
        check_href(f"http://127.0.0.1/x.tif?sig={CANARY}")
    assert CANARY not in str(raised.value)


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "key 'a' repeats"),
        ("a: {b: 1, b: 2}", "key 'b' repeats"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !!python/name:os.system ", "could not determine a constructor"),
        ("a: &x [*x]", "contains itself"),
        ("a: [" * 40 + "]" * 40, "nested deeper|not acceptable"),
        ("{" * 40, "nested deeper"),
        ("a: *nothing", "unknown"),
        ("a: [", "not acceptable"),
    ],
)
def test_hostile_yaml_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CatalogError, match=message) as raised:
        load_yaml(yaml_file(tmp_path, text))
    assert "x.yaml" in str(raised.value)
    assert "line" in str(raised.value)


def test_alias_bombs_are_refused_before_they_grow(tmp_path: Path) -> None:
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(CatalogError, match="aliases are written out"):
        load_yaml(yaml_file(tmp_path, "\n".join(levels)))


def test_big_files_are_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="bytes"):
        load_yaml(yaml_file(tmp_path, "#" * 1_000_001))


def test_modest_yaml_with_aliases_loads(tmp_path: Path) -> None:
    text = "base: &b {scale: 1.0e-4}\none: {<<: *b, nodata: 0}\nlist: [*b, *b]\nnothing:"
    assert load_yaml(yaml_file(tmp_path, text)) == {
        "base": {"scale": 1e-4},
        "one": {"scale": 1e-4, "nodata": 0},
        "list": [{"scale": 1e-4}] * 2,
        "nothing": None,
    }
