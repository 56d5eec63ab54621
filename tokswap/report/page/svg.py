"""Drawings as inline SVG: text stays text, colours follow the page, and screen readers get a description."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THEME = {
    "--ink": "#010101",
    "--muted": "#020202",
    "--line": "#030303",
    "--c0": "#a00001",
    "--c1": "#a10001",
    "--c2": "#a20001",
    "--c3": "#a30001",
    "--c4": "#a40001",
}
"""The page's CSS variables for colours -> the colour that stands for each in a drawing until it is part of the page."""

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def printable(text: str) -> str:
    """Replace the characters that neither HTML nor XML may contain."""
    return _UNSEEN.sub("\ufffd", text)


def inline(figure: Figure, name: str, *, title: str, description: str) -> str:
    """Turn a figure into an <svg> element for an HTML page.

    Args:
        figure: A drawing in the colours of `THEME`.
        name: Unique on the page; all ids in the drawing begin with it.
        title: Title for screen readers.
        description: Description for screen readers.

    Returns:
        The element as text.
    """
    root = _drawn(figure, name)
    box = root.attrib["viewBox"]
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        element.attrib = {key.rpartition("}")[2]: _themed(value, name) for key, value in element.attrib.items()}
        if "id" in element.attrib:
            element.attrib["id"] = f"{name}-{element.attrib['id']}"
    root.attrib = {"viewBox": box, "role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    for tag, text in (("desc", description), ("title", title)):
        element = ET.Element(tag, {"id": f"{name}-{tag}"})
        element.text = printable(text)
        root.insert(0, element)
    return ET.tostring(root, encoding="unicode")


def _drawn(figure: Figure, name: str) -> ET.Element:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the browser has the glyphs that matplotlib's font lacks
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return ET.fromstring(buffer.getvalue())


def _themed(value: str, name: str) -> str:
    for variable, colour in THEME.items():
        value = value.replace(colour, f"var({variable})")
    # Older releases of matplotlib write `font: 12px 'DejaVu Sans'`, newer ones both apart. The page has its own font.
    value = re.sub(r"font: (?:\w+ )?([\d.]+px) [^;]*", r"font-size: \1", value)
    value = re.sub(r"font-family: [^;]*;? ?", "", value)
    return re.sub(r"(url\(|^)#", rf"\g<1>#{name}-", value)
