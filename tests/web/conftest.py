"""Fixtures of the tests in a browser: one lab for a file of tests, one tab for a test, and nothing in its console."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from polywan.lab import sandbox
from support.browsing import DESK, House, Visit, chromium, go_online, running_house

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.web)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.is_relative_to(HERE) and (reason := sandbox.not_private()):
        pytest.skip(f"{reason}: run scripts/test web")


@pytest.fixture(scope="session")
def network() -> None:
    go_online()


@pytest.fixture(scope="session")
def browser(network: None) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = chromium(playwright)
        yield started
        started.close()


@pytest.fixture(scope="module")
def house(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with running_house(tmp_path_factory.mktemp("house")) as built:
        yield built


@pytest.fixture
def visit(browser: Browser, house: House) -> Iterator[Callable[..., Visit]]:
    """Opens the page in a tab of a new profile: `visit(size, **options)`; the test fails if its console complains."""
    contexts, visits = [], []

    def opened(size: tuple[int, int] = DESK, *, path: str = "/", go: bool = True, **options: object) -> Visit:
        # pyright and mypy know each option by name; a test names few of them.
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, locale="en-GB", **options)  # type: ignore[arg-type]
        context.set_default_timeout(10_000)
        contexts.append(context)
        found = Visit(context.new_page())
        found.watch(house.url)
        visits.append(found)
        if go:
            found.page.goto(house.url + path)
            found.page.wait_for_selector(".topology .node")
        return found

    yield opened
    for context in contexts:
        context.close()
    assert [line for one in visits for line in one.complaints] == []
