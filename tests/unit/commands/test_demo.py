"""The web page, in a real browser, shows what Python computes."""

import functools
import json
import shutil
import subprocess
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import soundfile
from safetensors.torch import save_file

import eat
from eat.cli import main
from eat.commands.demo import RUNTIME, RUNTIME_URL
from eat.commands.neighbors import similarities
from eat.errors import AudioError, ExperimentError
from eat.interop import onnx
from eat.interop.loading import Checkpoint

VERSION = RUNTIME_URL.split("@")[1].split("/")[0]
SECONDS = 3  # three windows of the fixtures' models
LABELS = ["dog", "<b>rain</b>", "sea", "crow", "hen", "rooster", "cat"]


def run(*words):
    """Call the command in this process; raise its errors."""
    main.__wrapped__(["demo", *map(str, words)])


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Four recordings, in a folder with an awkward name, and a file that is none."""
    folder = tmp_path_factory.mktemp("sounds # 100%")
    generator = np.random.default_rng(0)
    time = np.arange(SECONDS * 16_000) / 16_000
    for number, pitch in enumerate([110, 440, 1760, 5000]):
        wav = 0.3 * np.sin(2 * np.pi * pitch * time * (1 + 0.1 * time))
        wav += 0.02 * generator.standard_normal(len(wav))
        soundfile.write(folder / f"sweep {number}.wav", wav, 16_000)
    (folder / "broken.wav").write_bytes(b"no sound")
    return folder


# -- the command -----------------------------------------------------------------------


def test_model_without_classes_needs_neighbors(tmp_path, parity_folder):
    with pytest.raises(ExperimentError, match="--neighbors"):
        run(parity_folder / "official_pretrain.pt", tmp_path / "site")
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_refused(tmp_path, parity_folder):
    with pytest.raises(ExperimentError, match="exists"):
        run(parity_folder / "official_finetuned.pt", tmp_path)


def test_runtime_must_be_the_package(tmp_path, parity_folder):
    with pytest.raises(ExperimentError, match=RUNTIME[0]):
        model = parity_folder / "official_finetuned.pt"
        run(model, tmp_path / "site", "--runtime", tmp_path)


def test_neighbors_without_audio_are_refused(tmp_path, parity_folder):
    with pytest.raises(AudioError, match="no audio"):
        model = parity_folder / "official_finetuned.pt"
        run(model, tmp_path / "site", "--neighbors", tmp_path)


def test_by_default_the_runtime_is_a_version_on_the_web(
    tmp_path, parity_folder, monkeypatch
):
    exported = []
    monkeypatch.setattr(onnx, "export_onnx", lambda *call: exported.append(call))
    model, site = parity_folder / "official_finetuned.pt", tmp_path / "site"
    run(model, site, "--int8")
    ((source, _, int8),) = exported
    assert (source, int8) == (str(model), True)
    described = json.loads((site / "model.json").read_text())
    assert described["runtime"] == RUNTIME_URL and VERSION[0].isdigit()
    assert described["labels"] == [*Checkpoint.read(model).labels]
    assert described["frames"] == 8 and described["neighbors"] == []
    assert (site / "index.html").is_file()


# -- the page --------------------------------------------------------------------------


@pytest.fixture(scope="session")
def package(tmp_path_factory):
    """ONNX Runtime for browsers, unpacked."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("npm")
    command = ["npm", "pack", "--silent", f"onnxruntime-web@{VERSION}"]
    packed = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if packed.returncode:
        pytest.skip(f"npm cannot download onnxruntime-web: {packed.stderr[-200:]}")
    shutil.unpack_archive(folder / packed.stdout.strip(), folder)
    return folder / "package"


@pytest.fixture(scope="session")
def classifier(tmp_path_factory, parity_folder):
    """The official fixture as a folder of ours, with names of classes."""
    checkpoint = Checkpoint.read(parity_folder / "official_finetuned.pt")
    folder = tmp_path_factory.mktemp("model")
    config = {**checkpoint.config, "labels": LABELS, "multi_label": True}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(checkpoint.state(), folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    # A microphone that beeps, and that every page may use.
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=fake)
        yield browser
        browser.close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def open_site(browser):
    """Serve a folder and open it; nothing may be written to the console."""
    servers, complaints = [], []

    def open_page(folder):
        handler = functools.partial(QuietHandler, directory=folder)
        server = ThreadingHTTPServer(("localhost", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://localhost:{server.server_port}")
        return page

    yield open_page
    for server in servers:
        server.shutdown()
        server.server_close()
    for context in browser.contexts:
        context.close()
    assert not complaints


@pytest.fixture(scope="session")
def site(tmp_path_factory, classifier, package, sounds):
    site = tmp_path_factory.mktemp("demo") / "site"
    run(classifier, site, "--runtime", package, "--neighbors", sounds)
    return site


def wait(page):
    """Wait for the end of an analysis."""
    page.locator("#result[aria-busy=false]").wait_for(timeout=30_000)


def shown_tags(page):
    rows = page.locator("#tags li")
    labels = rows.locator(".label").all_inner_texts()
    scores = [float(row.get_attribute("data-score")) for row in rows.all()]
    return dict(zip(labels, scores, strict=True))


def shown_neighbors(page):
    return page.locator("#neighbors .title").all_inner_texts()


def similar(model, path, folder):
    """The readable recordings of the folder, the most similar first."""
    paths = sorted(folder.glob("*.wav"))
    encoded = list(model.encode_files(paths, on_error="skip"))
    values = np.stack([features.numpy() for features in encoded])
    similar = similarities(model.encode_file(path).numpy(), values)
    return [encoded[i].path.name for i in (-similar).argsort()]


@pytest.mark.slow
def test_page_shows_the_tags_and_neighbors_of_python(
    open_site, site, classifier, sounds
):
    model = eat.from_pretrained(classifier, device="cpu")
    page = open_site(site)
    for path in (sounds / "sweep 1.wav", sounds / "sweep 3.wav"):
        page.set_input_files("#file", path)
        page.locator("#name", has_text=path.name).wait_for()
        wait(page)
        expected = {tag.label: tag.score for tag in model.tag_file(path, top_k=10)}
        shown = shown_tags(page)
        assert list(shown) == list(expected)
        assert shown == pytest.approx(expected, abs=1e-2)
        assert shown_neighbors(page) == similar(model, path, sounds)
    # A recording of the set plays.
    source = page.locator("#neighbors audio").first.get_attribute("src")
    answer = page.request.get(f"{page.url}{source}")
    assert answer.body() == (sounds / "sweep 3.wav").read_bytes()


@pytest.mark.slow
def test_microphone_and_errors(open_site, site, sounds):
    page = open_site(site)
    alert = page.locator("#error")
    page.set_input_files("#file", sounds / "broken.wav")
    alert.wait_for()
    assert "broken.wav" in alert.inner_text()
    page.locator("#record").click()
    page.locator("#record.recording:enabled").wait_for()
    assert alert.is_hidden()
    page.wait_for_timeout(1000)
    page.locator("#record").click()
    wait(page)
    assert page.locator("#name").inner_text().startswith("Recording")
    assert len(shown_tags(page)) == len(LABELS)
    duration = page.locator("#player").evaluate("player => player.duration")
    assert 0.5 < duration < 20
    denied = "() => Promise.reject(new DOMException('', 'NotAllowedError'))"
    page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = {denied} }}")
    page.locator("#record").click()
    alert.wait_for()
    assert "microphone" in alert.inner_text()


@pytest.mark.slow
def test_page_of_a_pretrained_model(
    open_site, tmp_path, parity_folder, package, sounds
):
    checkpoint = parity_folder / "official_pretrain.pt"
    site = tmp_path / "site"
    run(checkpoint, site, "--runtime", package, "--neighbors", sounds)
    page = open_site(site)
    path = sounds / "sweep 2.wav"
    page.set_input_files("#file", path)
    wait(page)
    assert shown_tags(page) == {}
    assert shown_neighbors(page) == similar(
        eat.from_pretrained(checkpoint), path, sounds
    )
    drawn = page.locator("#spectrogram").evaluate(
        "canvas => new Set(canvas.getContext('2d').getImageData("
        "0, 0, canvas.width, canvas.height).data).size"
    )
    assert drawn > 100  # colors
