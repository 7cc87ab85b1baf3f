#
# This file is part of the Mamba-2 LiteX accelerator.
#
# SPDX-License-Identifier: BSD-2-Clause

"""The page in Chromium, on a fake device. Skipped where Playwright or Debian's Chromium is not there."""

import shutil

import pytest

from served import Served

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM   = shutil.which("chromium")

# Fixtures -----------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        there = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield there
        there.close()


@pytest.fixture
def open_page(browser):
    """open_page(server, ...): its page; nothing of it may complain in the console, or ask another server."""
    faults, pages = [], []

    def opened(server, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") and "status of 4" not in message.text else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(server.url) else faults.append(request.url))
        page.goto(server.url)
        pages.append(page)
        return page
    yield opened
    for page in pages:
        page.close()
    assert not faults


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("served"), job_tokens=4) as server:
        yield server

# Tests --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_text_and_numbers(served, open_page, tmp_path, width, scheme):
    """By the keyboard alone: the text is the exact model's, and the machine's figures move."""
    page = open_page(served, width, scheme)
    playwright.expect(page.locator("#device")).to_contain_text("random, on 16 lanes")
    page.locator("#prompt").fill("ab")
    page.locator("#tokens").fill("24")
    page.locator("#temperature").fill("0")
    page.locator("#prompt").press("Control+Enter")
    playwright.expect(page.locator("#start")).to_be_disabled()
    playwright.expect(page.locator("#start")).to_be_enabled(timeout=30_000)
    assert page.locator("#text").text_content() == "ab" + served.alone("ab", 24)
    playwright.expect(page.locator("#share")).to_contain_text("%")
    assert page.locator("#cycles").text_content() != "-" and page.locator("#texts").text_content().startswith("0 of 32 places")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=tmp_path/"page.png", full_page=True)


def test_stop(served, open_page):
    page = open_page(served)
    page.locator("#tokens").fill("100000")
    page.locator("#start").click()
    playwright.expect(page.locator("#sessions")).to_contain_text("of 100000 tokens", timeout=10_000)
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#start")).to_be_enabled()
    playwright.expect(page.locator("#sessions")).not_to_contain_text("100000", timeout=10_000)


def test_errors(tmp_path, open_page):
    """What the server refuses is said; a key is asked for where one is needed; and a server that goes away is missed."""
    with Served(tmp_path, api_key="secret") as server:
        page = open_page(server)
        page.locator("#tokens").fill("5")
        page.locator("#start").click()
        playwright.expect(page.locator("#error")).to_contain_text("The API key must be the server's")
        page.locator("#key").fill("secret")
        page.locator("#temperature").fill("1e9")
        page.locator("#start").click()
        playwright.expect(page.locator("#error")).to_contain_text("temperature must be from")
        page.locator("#temperature").fill("0")
        page.locator("#start").click()
        playwright.expect(page.locator("#start")).to_be_enabled(timeout=30_000)
        assert page.locator("#error").text_content() == "" and len(page.locator("#text").text_content()) == len("In the beginning") + 5
        page.close()
