"""Models that go elsewhere and come from elsewhere."""

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cubekit.batching.samples import Samples  # noqa: E402
from cubekit.cli import main  # noqa: E402
from cubekit.errors import BundleError, OptionError  # noqa: E402
from cubekit.nn import create  # noqa: E402
from cubekit.training.bundle import Model, load_model  # noqa: E402
from cubekit.training.exchange import import_weights  # noqa: E402
from cubekit.training.fit import fit  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Samples]


def test_torch_export_answers_the_same_for_any_number(model: Model, tmp_path: Path) -> None:
    made = model.export(tmp_path / "model.pt2")
    assert made.difference < 1e-5
    program = torch.export.load(made.path).module()
    x = np.random.default_rng(3).uniform(0.1, 0.5, (7, 12, 2)).astype("float32")
    found = program(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, model.probabilities(x), atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]


def test_onnx_answers_the_same(model: Model, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = model.export(tmp_path / "model.onnx")
    assert made.difference < 1e-5
    session = runtime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(3).uniform(0.1, 0.5, (5, 12, 2)).astype("float32")
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, model.probabilities(x), atol=1e-5)
    with pytest.raises(OptionError, match=r"should end in \.onnx or \.pt2"):
        model.export(tmp_path / "model.tflite")


def test_foreign_weights_are_matched_by_name_then_by_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = create("edcstfn", bands=2)
    wrapped = {f"module.{name}": value for name, value in source.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "named.pt")
    found = import_weights(tmp_path / "named.pt", "edcstfn", arguments={"bands": 2})
    assert all(
        torch.equal(a, b)
        for a, b in zip(found.network.state_dict().values(), source.state_dict().values(), strict=True)
    )
    renamed = {f"layer{i}": value for i, value in enumerate(source.state_dict().values())}
    torch.save(renamed, tmp_path / "ordered.pth")
    target = tmp_path / "weights.safetensors"
    words = ["import-weights", str(tmp_path / "ordered.pth"), "--network", "edcstfn", "--set", "bands=2"]
    assert main([*words, "--out", str(target)]) == 0
    assert "layer0  " in capsys.readouterr().out
    assert target.is_file()


def test_weights_of_another_network_are_listed(tmp_path: Path) -> None:
    torch.save(create("edcstfn", bands=3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(BundleError, match=r"other shape: encoder\.0.* expected .*Give the arguments"):
        _flat(lambda: import_weights(tmp_path / "w.pt", "edcstfn", arguments={"bands": 2}))
    with pytest.raises(BundleError, match="no file at"):
        import_weights(tmp_path / "none.pt", "edcstfn", arguments={"bands": 2})


def _flat(call: Callable[[], object]) -> None:
    """Raise on one line, so that a pattern can cross lines."""
    try:
        call()
    except BundleError as error:
        raise BundleError(str(error).replace("\n", " ")) from error


class Evil:
    """Would make a file if it were unpickled."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (Path("ran"),)


def test_code_in_a_weight_file_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"w": Evil()}))
    for name in ("evil.pt", "plain.pkl"):
        with pytest.raises(BundleError, match="holds code, which is never run"):
            import_weights(tmp_path / name, "edcstfn", arguments={"bands": 2})
    assert not (tmp_path / "ran").exists()


def test_a_training_starts_from_weights(model: Model, make_samples: Make, tmp_path: Path) -> None:
    model.save(tmp_path)
    start = tmp_path / "weights.safetensors"
    again = fit(
        "tempcnn", make_samples(64), batch=32, epochs=1, learning_rate=1e-9, weights=start, progress=False
    )
    for name, value in again.network.named_parameters():
        torch.testing.assert_close(value, dict(model.network.named_parameters())[name], atol=1e-6, rtol=0)
    with pytest.raises(BundleError, match="does not hold weights of this network"):
        fit("lstm", make_samples(64), batch=32, epochs=1, weights=start, progress=False)


@contextmanager
def serving(answers: dict[str, tuple[int, bytes | str]]) -> Iterator[str]:
    """Serve bytes, or redirect where text stands, on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = answers.get(self.path, (404, b""))
            self.send_response(status)
            if isinstance(content, str):
                self.send_header("Location", content)
                content = b""
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_model_is_fetched_and_checked(model: Model, make_samples: Make, tmp_path: Path) -> None:
    folder = model.save(tmp_path)
    record, weights = ((folder / name).read_bytes() for name in ("model.json", "weights.safetensors"))
    digest = json.loads(record)["assets"]["weights"]["file:checksum"][4:]
    answers: dict[str, tuple[int, bytes | str]] = {
        "/m/model.json": (200, record),
        "/m/weights.safetensors": (302, "/elsewhere"),
        "/elsewhere": (200, weights),
        "/long/model.json": (200, record),
        "/long/weights.safetensors": (200, weights + b"x"),
        "/bad/model.json": (200, record),
        "/bad/weights.safetensors": (200, weights[:-1] + b"?"),
        "/file/model.json": (302, "file:///etc/passwd"),
        "/plain/model.json": (302, "http://example.org/model.json"),
        "/loop/model.json": (302, "/loop/model.json"),
        "/not/model.json": (200, b"{}"),
    }
    x = make_samples(10, seed=3).physical()
    with serving(answers) as base:
        for address in (f"{base}/m", f"{base}/m/model.json"):
            np.testing.assert_array_equal(
                load_model(address, sha256=digest).probabilities(x), model.probabilities(x)
            )
        for path, match in {
            "long": "holds more than the",
            "bad": "is not the file of its record",
            "file": "not https",
            "plain": "not https",
            "loop": "redirects more than 5 times",
            "not": "no record of a model",
            "none": "gave no model",
        }.items():
            with pytest.raises(BundleError, match=match):
                load_model(f"{base}/{path}")
        with pytest.raises(BundleError, match="you expect 00"):
            load_model(f"{base}/m", sha256="00" * 32)
    with pytest.raises(BundleError, match="not https"):
        load_model("http://example.org/model?token=secret")
    with pytest.raises(BundleError, match="do not have the SHA-256"):
        load_model(folder, sha256="00" * 32)


def test_a_shipped_name_without_weights_says_what_to_do() -> None:
    for name in ("tempcnn", "models/tempcnn"):
        with pytest.raises(BundleError, match="no weights: train with"):
            load_model(name)
