"""Pages as a real browser draws them: nothing is missing, nothing is hidden, what became a row stands out, a large tree stays usable."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from agentloop.report.html import render, render_tree
from agentloop.report.marks import marks_of
from agentloop.report.summary import Summary
from agentloop.report.tree_view import TreeView, tree_view
from tests.report import chromium
from tests.report.searched import decode, judged_tree, splice

GREEN = (18, 161, 80)
"""Colour of what was trained on: thick lines of the map, edges of the outline."""


@pytest.fixture(scope="module", autouse=True)
def browser() -> str:
    return chromium.find()


def write(folder: Path, text: str) -> Path:
    page = folder / "page.html"
    page.write_text(text)
    return page


def small() -> TreeView:
    tree = judged_tree()
    return tree_view(tree, marks_of([splice(tree)]), decode)


def colours(picture: Path) -> tuple[Counter[tuple[int, ...]], int]:
    """How many pixels have each colour, and how many there are."""
    with Image.open(picture) as image:
        pixels = image.convert("RGB")
        found = pixels.getcolors(maxcolors=2**24) or []
    return Counter({colour: count for count, colour in found if isinstance(colour, tuple)}), pixels.width * pixels.height


@pytest.mark.parametrize("width", [1200, 500])
def test_every_turn_is_seen_and_what_became_a_row_stands_out(tmp_path: Path, width: int) -> None:
    view = small()
    page = write(tmp_path, render_tree(view))
    seen = chromium.measure(page, width=width)
    assert [node["turn"] for node in seen["nodes"]] == [node.turn for node in view.nodes]
    for node, drawn in zip(view.nodes, seen["nodes"], strict=True):
        assert drawn["shown"] and drawn["box"][3] > 10
        assert (drawn["edge"] == "rgb(18, 161, 80)") == (node.use is not None)
        assert ("trained on" in drawn["text"]) == (node.use == "trained")
        assert node.visits is None or f"{node.visits}×" in drawn["text"]
        assert node.value is None or f"{node.value:.2f}" in drawn["text"]
        assert node.action in drawn["text"] and (node.observation or "") in drawn["text"]
        assert all(f"{verdict.critic}: {verdict.said}" in drawn["text"] for verdict in node.verdicts)
    tops = [drawn["box"][1] for drawn in seen["nodes"]]
    assert all(low >= high + 10 for high, low in pairwise(tops)), "lines lie upon each other"
    assert len(seen["spots"]) == len(view.nodes) and all(spot["box"][2] > 3 for spot in seen["spots"])
    assert seen["wide"] <= seen["window"] <= width, "the page is wider than its window"


def test_the_picture_of_a_tree_shows_its_marked_path(tmp_path: Path) -> None:
    view = small()
    unmarked = tree_view(judged_tree(), {}, decode)
    found = []
    for shown in (view, unmarked):
        page = write(tmp_path, render_tree(shown))
        chromium.screenshot(page, tmp_path / "page.png", width=1200, height=1400)
        pixels, size = colours(tmp_path / "page.png")
        ink = 1 - pixels[255, 255, 255] / size
        assert 0.02 < ink < 0.6 and len(pixels) > 100, f"{ink:.0%} of the picture is drawn on, in {len(pixels)} colours"
        found.append(pixels[GREEN])
    marked, wins_alone = found
    # The key and squares are green in both; the path on the map and the edges of its turns are some thousand pixels.
    assert marked > wins_alone + 1000


@pytest.mark.slow
def test_a_large_tree_is_folded_and_what_the_map_links_to_unfolds(tmp_path: Path) -> None:
    tree = judged_tree(simulations=90, width=4, depth=12)
    view = tree_view(tree, marks_of([splice(tree)]), decode)
    assert len(view.nodes) > 800
    page = write(tmp_path, render_tree(view))
    seen = chromium.measure(page, width=1200)
    shown = {node["turn"] for node in seen["nodes"] if node["shown"]}
    assert len(seen["nodes"]) == len(seen["spots"]) == len(view.nodes)
    assert {node.turn for node in view.nodes if node.use == "trained"} <= shown
    assert len(shown) < len(view.nodes) / 3 and seen["high"] < 12_000

    hidden = max((place for place, node in enumerate(view.nodes) if node.turn not in shown), key=lambda place: view.nodes[place].depth)
    link = seen["spots"][hidden]["link"]
    target = chromium.measure(page, width=1200, place=link.removeprefix("#"))["nodes"][hidden]
    assert target["shown"] and 0 <= target["box"][1] < 900, "the turn that was clicked on is not in the window"


def test_the_report_fits_a_narrow_window(tmp_path: Path) -> None:
    about = {"machine": "m" * 200, "versions": {"a": "1"}}
    summary = Summary("demo" * 30, "model/" * 30, "environment", (), (), (), {"train": 3.0}, {"prompt": 3}, {}, "finished", about)
    page = write(tmp_path, render(summary, [], [("000/trees", [small()])]))
    seen = chromium.measure(page, width=500)
    assert len(seen["nodes"]) == len(small().nodes) and all(node["shown"] for node in seen["nodes"])
    assert seen["wide"] <= seen["window"]
