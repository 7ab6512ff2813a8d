"""The page of the server in a real browser: one types, hears, sees the figures, and stops it.

What is handed to Web Audio is recorded, and compared with the samples of the API.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from served import LONG, MODEL, Served, serving, within
from support import Build

from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve.options import ServeOptions

webdriver = pytest.importorskip("selenium.webdriver")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="no chromium, or no chromedriver"),
]

KEY = "0123456789abcdef0123456789abcdef"
TEXT = "The train to the sea is late."
RECORDER = """
window.played = [];
window.contexts = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when) {
  const samples = Array.from(this.buffer.getChannelData(0), (one) => Math.round(one * 32768));
  window.played.push({ when, samples });
  window.contexts.push(this.context);
  return start.call(this, when);
};
"""


class Page:
    """The page of a server in a window of the browser."""

    def __init__(self, driver: Any, served: Served) -> None:
        self.driver = driver
        driver.get(f"http://127.0.0.1:{served.port}/")

    def at(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def text(self, name: str) -> str:
        return str(self.at(name).text)

    def wait(self, name: str, wanted: str) -> None:
        within(60, lambda: re.search(wanted, self.text(name)) is not None)

    def ask(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def press(self, *keys: str, held: str = "") -> None:
        chain = webdriver.ActionChains(self.driver)
        chain = (
            chain.key_down(held).send_keys(*keys).key_up(held) if held else chain.send_keys(*keys)
        )
        chain.perform()


Open = Callable[[Served], Page]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--autoplay-policy=document-user-activation-required",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    started.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": RECORDER})
    yield started
    started.quit()


@pytest.fixture
def opened(driver: Any) -> Iterator[Open]:
    """Opens the page of a server; the browser may not have had anything to complain about."""
    driver.get_log("browser")
    yield lambda served: Page(driver, served)
    driver.execute_script("sessionStorage.clear()")
    said = [line["message"] for line in driver.get_log("browser")]
    assert [line for line in said if "401 (Unauthorized)" not in line] == []


@pytest.fixture(scope="module")
def synthesizer(bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), "ort", 2)


@pytest.fixture(scope="module")
def served(synthesizer: Synthesizer) -> Iterator[Served]:
    with serving(synthesizer, ServeOptions()) as found:
        yield found


def write(page: Page, text: str) -> None:
    page.at("text").clear()
    page.at("text").send_keys(text)


def test_what_is_typed_is_heard_and_measured(opened: Open, served: Served) -> None:
    page = opened(served)
    page.wait("voice", "espeak_male")
    write(page, TEXT)
    page.at("voice").send_keys("espeak_male")
    page.at("speak").click()
    page.wait("state", "^Done$")
    played = page.ask("played")
    heard = np.concatenate([piece["samples"] for piece in played]).astype("<i2")
    wanted = served.speak(TEXT, voice="espeak_male", response_format="wav")
    assert heard.tobytes() == wanted.body[44:]
    assert len(played) > 1
    ends = [piece["when"] + len(piece["samples"]) / 24_000 for piece in played]
    begins = [piece["when"] for piece in played]
    assert all(b > e - 1e-6 for b, e in zip(begins[1:], ends[:-1], strict=True))
    assert 0 < float(page.text("first").removesuffix(" s")) < 30
    assert 0 < float(page.text("factor")) < 30
    assert page.text("audio") == f"{len(heard) / 24_000:.1f} s"
    stages = page.at("stages").find_elements("css selector", "tbody tr")
    assert {"speech lm", "hift", "waiting for a turn"} <= {row.text.split("\n")[0] for row in (
        row.find_element("tag name", "th") for row in stages)}  # fmt: skip
    page.at("speak").click()
    page.wait("kept", "nothing was computed")
    page.wait("state", "^Done$")
    assert not page.at("stages").is_displayed()


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_ends_the_sound_and_the_synthesis(
    opened: Open, synthesizer: Synthesizer, how: str
) -> None:
    with serving(synthesizer, ServeOptions(cache_bytes=0)) as found:
        page = opened(found)
        page.wait("voice", "espeak")
        write(page, LONG)
        page.press(webdriver.Keys.ENTER, held=webdriver.Keys.CONTROL)
        page.wait("state", "^Speaking$")
        assert found.metric("edgepack_requests_in_flight") == 1
        if how == "key":
            page.press(webdriver.Keys.ESCAPE)
        else:
            page.at("stop").click()
        within(5, lambda: found.metric("edgepack_requests_in_flight") == 0)
        within(5, lambda: found.metric("edgepack_cancelled_total") == 1)
        assert page.text("state") == "Stopped"
        assert page.ask("contexts.map((one) => one.state)[0]") == "closed"
        assert not page.at("stop").is_enabled()


def test_a_key_is_asked_for_and_kept_for_the_tab(opened: Open, synthesizer: Synthesizer) -> None:
    with serving(synthesizer, ServeOptions(keys=(KEY.encode(),))) as found:
        page = opened(found)
        within(30, page.at("key").is_displayed)
        assert not page.at("problem").is_displayed()
        page.press("wrong", webdriver.Keys.ENTER)  # the field has the focus
        page.wait("problem", "does not know this key")
        page.press(KEY, webdriver.Keys.ENTER)
        page.wait("voice", "espeak")
        assert not page.at("key").is_displayed()
        page.driver.refresh()
        page.wait("voice", "espeak")
        page.at("speak").click()
        page.wait("state", "^Done$")
        assert page.ask("localStorage.length") == 0


def test_an_error_is_said(opened: Open, served: Served) -> None:
    page = opened(served)
    page.wait("voice", "espeak")
    write(page, "...")
    page.at("speak").click()
    page.wait("problem", "\\w+")
    assert not page.at("stop").is_enabled()
    page.driver.get_log("browser")  # the browser notes the status


@pytest.mark.parametrize("width", [400, 1100])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_its_window_and_names_its_controls(
    opened: Open, served: Served, width: int, scheme: str
) -> None:
    page = opened(served)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.wait("voice", "espeak")
    write(page, TEXT)
    page.at("speak").click()
    page.wait("state", "^Done$")
    assert page.ask("document.documentElement.scrollWidth") <= width
    paper = page.ask("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 22, 20)" if scheme == "dark" else "rgb(244, 244, 242)")
    names = {name: page.at(name).accessible_name for name in ("text", "model", "voice", "stop")}
    assert names == {"text": "Text", "model": "Bundle", "voice": "Voice", "stop": "Stop"}
    assert page.at("model").get_attribute("value") == MODEL
