"""The pages in a real browser: they live, they obey their own policy, and what strangers wrote stays text."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import peers
from browser.paper_desk import CONTROLS, HOSTILE, LONG, REVERSED, PaperDesk, delivery, message
from fakes import FakeClock
from sesrelay.policy.reputation import AccountStanding
from sesrelay.web.options import WebOptions
from sesrelay.web.server import WebServer

pytestmark = pytest.mark.browser

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ID = "0h2k3j4l5m6n7"
PAUSE = {"transport": "ses-main", "nexthop": None, "domain": None, "reason": "credentials", "since": "2027-01-15T07:00:00Z"}


STANDING = AccountStanding(
    "us-east-1", HOSTILE, None, 14.0, 50_000.0, 49_000.0, True, True, 5_400.0, attempts_24h=10_000, bounces_24h=600, complaints_24h=9,
    rejects_24h=0,
)  # fmt: skip


class Site:
    """A server on a thread of its own, because the browser's driver has the loop of the test."""

    def __init__(self) -> None:
        self.desk = PaperDesk(
            [
                message(ID, HOSTILE, delivery(reply=HOSTILE, attempts=1), sender=HOSTILE),
                *(message(f"{n:013d}", text) for n, text in enumerate((CONTROLS, LONG, REVERSED, ""))),
            ],
            by_state={"queued": 5, "held": 1},
            by_transport={"ses-main": {"queued": 5, "held": 1}},
            paused=[{**PAUSE, "remedy": f"Run `fix` {HOSTILE}"}],
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.server = WebServer(
            desk=self.desk,
            metrics=self._metrics,
            ready=self._ready,
            counters=lambda: {"accepted": 5},
            clock=FakeClock(),
            options=WebOptions(port=0, hostname="mail.example.com", smtp="127.0.0.1:2525"),
            standings=lambda: {"ses-main": STANDING},
        )

    async def _metrics(self) -> bytes:
        return b""

    async def _ready(self) -> list[str]:
        return []

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self._loop).result(10)

    def stop_serving(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(10)

    def stop(self) -> None:
        self.stop_serving()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program = peers.require("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        peers.missing("playwright is not installed")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(program.path), args=ARGS, env=dict(program.env))
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any, site: Site) -> Iterator[Any]:
    """A page that fails the test where the browser complains, but for what is `forgiven`, or a dialog opens.

    It wants `site` so that it is closed first: a page that still refreshes itself complains of a server that is gone.
    """
    context = chromium.new_context()
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.forgiven = "\0"
    yield page
    context.close()
    assert [said for said in complaints if page.forgiven not in said] == []


@pytest.mark.parametrize("path", ["", f"messages/{ID}"])
def test_hostile_texts_are_text(page: Any, site: Site, path: str) -> None:
    page.goto(site.server.url + path)
    assert page.get_by_text(HOSTILE).count() > 0
    assert page.locator("main script, main img").count() == 0
    assert "taken" not in page.title().removeprefix(HOSTILE)


def test_no_style_and_no_script_comes_from_elsewhere(page: Any, site: Site) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site.server.url)
    assert asked
    assert all(url.startswith(site.server.url) for url in asked)
    assert page.evaluate("getComputedStyle(document.querySelector('.figures')).display") == "grid"


def test_the_page_refreshes_itself(page: Any, site: Site) -> None:
    page.goto(site.server.url)
    page.locator(f"a[href='/messages/{ID}']").focus()
    site.desk.messages = [message("0new0new0new0", "fresh from the queue"), *site.desk.messages]
    page.get_by_text("fresh from the queue").wait_for(timeout=10_000)
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"/messages/{ID}"
    assert page.locator("main script, main img").count() == 0


def test_a_relay_that_has_gone_is_said_so(page: Any, site: Site) -> None:
    page.forgiven = "ERR_"
    page.goto(site.server.url)
    assert not page.locator("#stale").is_visible()
    site.stop_serving()
    page.locator("#stale").wait_for(state="visible", timeout=10_000)
    assert page.get_by_text(HOSTILE).count() > 0


def test_a_store_that_comes_back_brings_the_page_back(page: Any, site: Site) -> None:
    page.forgiven = "503"
    page.goto(site.server.url)
    site.desk.broken = True
    page.get_by_text("The queue cannot be read").wait_for(timeout=10_000)
    assert not page.locator("#stale").is_visible()
    site.desk.broken = False
    page.get_by_text("Last messages").wait_for(timeout=10_000)


@pytest.mark.parametrize("path", ["", f"messages/{ID}", "messages/unknown"])
@pytest.mark.parametrize("width", [320, 1280])
def test_nothing_is_wider_than_the_screen(page: Any, site: Site, path: str, width: int) -> None:
    page.forgiven = "404" if "unknown" in path else page.forgiven
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(site.server.url + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("path", ["", f"messages/{ID}"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(page: Any, site: Site, scheme: str, path: str) -> None:
    states = [
        delivery(
            state=state, attempts=1, reason="in_doubt", reply="250 2.0.0 Ok", remote_id="1-a", recipient=f"{state}@example.org"
        )
        for state in ("queued", "in_flight", "held", "delivered", "failed")
    ]
    site.desk.messages[0] = message(ID, "of all states", *states)
    site.desk.messages += [message(f"{n:013d}", "of one", one) for n, one in enumerate(states, 10)]
    page.emulate_media(color_scheme=scheme)
    page.goto(site.server.url + path)
    assert page.evaluate(CONTRAST) == []


def test_a_screen_reader_hears_who_wrote_to_whom(page: Any, site: Site) -> None:
    page.goto(site.server.url)
    assert "blog@example.com to reader@example.org" in page.locator("table.messages").aria_snapshot()
    # What has no role can have no name (WAI-ARIA 1.2 §5.2.8.6): some readers say it nevertheless, and most do not.
    assert page.locator(":is(span, bdi, div, p, code)[aria-label]:not([role])").count() == 0


def test_it_is_whole_without_scripts(chromium: Any, site: Site) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(site.server.url)
    assert page.get_by_role("heading", level=1).inner_text() == "Part of the mail waits"
    assert page.get_by_role("table").count() == 3
    assert page.get_by_role("row").count() == 2 + 2 + 6
    context.close()


# Returns the texts whose contrast to what lies behind them is under 4.5:1 (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).map(Number).map((c) => c / 255).map((c) => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (color !== "rgba(0, 0, 0, 0)" && color !== "transparent") return color;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.textContent.trim());
    if (!own || !node.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) poor.push(node.textContent.trim().slice(0, 40) + " " + ratio.toFixed(2));
  }
  return poor;
}"""
