"""The pages on deployment name what exists."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.support.deployed import COMPOSE, KUBERNETES, ROOT, health

PAGES = [ROOT / "docs" / "deployment.md", COMPOSE / "README.md", KUBERNETES / "README.md"]
SETTINGS = set(
    re.findall(r"^\| `([a-z_.]+)`", (ROOT / "docs" / "configuration.md").read_text(), re.M)
)


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """To files and headings that are there."""
    links = re.findall(r"\]\(([^)]+)\)", page.read_text())
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve()
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_and_paths_are_real(page: Path) -> None:
    """Each setting is in the reference; each path is served."""
    text = page.read_text()
    sections = {name.partition(".")[0] for name in SETTINGS if "." in name}
    for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", text):
        if not name.endswith(".yaml"):
            assert name in SETTINGS or name.partition(".")[0] not in sections, name
    with health() as port:
        for path in set(re.findall(r"`(/[a-z]+z|/metrics)\b", text)):
            answer = httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
            assert answer.status_code == 200, path
