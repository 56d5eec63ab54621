"""Takes the pictures of report pages for the docs: run it after `make demo`, with Chromium and ImageMagick or Pillow.

.venv/bin/python docs/make_images.py SOURCE_MODEL
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver

ROOT = Path(__file__).parent.parent
IMAGES = Path(__file__).parent / "images"
WIDE, PHONE = (1118, 1200), (376, 800)
WIDTH = 935
"""Wide pages are shown smaller: this wide, in pixels."""
TEXTS = ("english", "code", "german")


def browser() -> webdriver.Chrome:
    """Return a headless Chromium."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    return webdriver.Chrome(options=options)


def picture(page: Path, size: tuple[int, int], *, dark: bool, heading: str, crop: tuple[int, int]) -> Image.Image:
    """Return a page from a heading on, cropped to a width and height; heading "" for its top."""
    with browser() as driver:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        driver.get(page.resolve().as_uri())
        top: Any = driver.execute_script(
            "const found = [...document.querySelectorAll('h2')].find(h => h.textContent.trim() === arguments[0]);"
            "return found ? found.getBoundingClientRect().top + window.scrollY - 12 : 0;",
            heading,
        )
        driver.execute_script("window.scrollTo(0, arguments[0])", top)
        shot = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    return shot.crop((0, 0, min(crop[0], shot.width), min(crop[1], shot.height)))


def save(image: Image.Image, name: str) -> None:
    """Write a picture with few colours, which keeps it small."""
    if image.width > WIDTH and "phone" not in name:
        image = image.resize((WIDTH, image.height * WIDTH // image.width), Image.Resampling.LANCZOS)
    image.quantize(128).save(IMAGES / name, optimize=True)


def main() -> None:
    """Render the pages of the demo and take the three pictures."""
    tokswap = Path(sys.executable).with_name("tokswap")
    result = ROOT / "demo" / "gemma-smollm2-auto"
    source = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else sys.exit("name the folder of the source model")
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "gemma-3-270m"), Path(folder, result.name)  # the page shows names as typed
        before.symlink_to(source, target_is_directory=True)
        after.symlink_to(result, target_is_directory=True)
        transplant, evaluation = Path(folder, "transplant.html"), Path(folder, "eval.html")
        subprocess.run([tokswap, "report", result, "--out", transplant], check=True)
        texts = [part for name in TEXTS for part in ("--text", ROOT / "tests" / "texts" / f"{name}.txt")]
        command = [tokswap, "eval", after.name, "--against", before.name, *texts, "--report", evaluation]
        subprocess.run(command, cwd=folder, check=True)
        rows, new = "Where the rows come from", "What the new rows look like"
        save(picture(transplant, WIDE, dark=True, heading=rows, crop=(1100, 960)), "report-transplant.png")
        save(picture(evaluation, WIDE, dark=False, heading="", crop=(1100, 1010)), "report-eval.png")
        parts = [
            picture(transplant, PHONE, dark=True, heading=rows, crop=(360, 780)),
            picture(transplant, PHONE, dark=False, heading=new, crop=(360, 780)),
            picture(evaluation, PHONE, dark=True, heading="Bits per byte", crop=(360, 780)),
        ]
        phone = Image.new("RGB", (1120, 780), "#808890")
        for n, part in enumerate(parts):
            phone.paste(part, (380 * n, 0))
        save(phone, "report-phone.png")


if __name__ == "__main__":
    main()
