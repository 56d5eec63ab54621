"""The report pages in a real browser, where there is one: chromium and chromedriver, driven by selenium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from makers import shipped_text
from pages import make

from tokswap.report.page import COMMANDS

Make = Callable[..., Path]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver on this machine")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


@pytest.fixture(scope="module")
def made(model_of: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    text = folder / "a-text-with-a-rather-long-name-of-its-own-and-more-of-it.txt"
    text.write_text(shipped_text("german"), encoding="utf-8")
    return make(folder, model_of("llama", vocab_size=700), model_of("gpt2", vocab_size=900, rows=910), text)


def show(browser: Any, page: Path, width: int, scheme: str = "light") -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    browser.get(page.as_uri())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_render(command: str, width: int, browser: Any, made: dict[str, Path]) -> None:
    show(browser, made[command], width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect())"
        ".map(b => [b.width, b.height, b.right])"
    )
    assert len(boxes) >= 2
    assert all(wide > 200 and high > 30 and right <= width for wide, high, right in boxes)
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(t => [t.textContent, t.getBoundingClientRect().height])"
    )
    assert len(drawn) >= 4
    assert all(high >= 9 for _, high in drawn), "too small to read"
    requests = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert requests == []


@pytest.mark.parametrize("command", COMMANDS)
def test_labels_stay_inside_of_their_drawing(command: str, browser: Any, made: dict[str, Path]) -> None:
    show(browser, made[command], 360)
    outside = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].filter(t => t.getBoundingClientRect().right > "
        "t.closest('.block').getBoundingClientRect().right).map(t => t.textContent)"
    )
    assert outside == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_dark_page_is_dark_and_readable(command: str, browser: Any, made: dict[str, Path]) -> None:
    light, dark = ({}, {})
    for scheme, found in (("light", light), ("dark", dark)):
        show(browser, made[command], 360, scheme)
        found["paper"] = brightness(browser, "body", "backgroundColor")
        found["ink"] = brightness(browser, "body", "color")
        found["label"] = brightness(browser, "svg text", "fill")
        found["card"] = brightness(browser, ".block", "backgroundColor")
    assert light["paper"] > 200 > 100 > dark["paper"]
    for found in (light, dark):
        assert abs(found["ink"] - found["paper"]) > 120
        assert abs(found["label"] - found["card"]) > 120


def brightness(browser: Any, selector: str, colour: str) -> float:
    """Return how bright a colour of the first such element is, from 0 to 255."""
    found = f"getComputedStyle(document.querySelector('{selector}')).{colour}"
    red, green, blue = browser.execute_script(f"return {found}.match(/[0-9.]+/g).slice(0, 3).map(Number)")
    return float(0.3 * red + 0.6 * green + 0.1 * blue)
