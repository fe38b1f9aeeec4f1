"""The page, the terminal, metrics and the kernel tell the same of a box whose lines are busy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final
from urllib.request import urlopen

from playwright.sync_api import Page, expect
from prometheus_client.parser import text_string_to_metric_families

from support.browsing import House, Visit

VOLUME: Final = re.compile(r"↓ ([\d.]+) (\w+), ↑ ([\d.]+) (\w+) in total")
UNITS: Final = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9}
ROUNDED: Final = 0.01
"""Part by which the page's three digits may differ."""


def counted(house: House, interface: str) -> tuple[int, int]:
    (found,) = json.loads(house.lab.router.run(["ip", "-s", "-j", "link", "show", "dev", interface]).stdout)
    return found["stats64"]["rx"]["bytes"], found["stats64"]["tx"]["bytes"]


def on_the_page(page: Page, name: str) -> tuple[float, float]:
    text = page.locator("article.uplink", has_text=name).inner_text()
    found = VOLUME.search(text)
    assert found is not None, text
    return float(found[1]) * UNITS[found[2]], float(found[3]) * UNITS[found[4]]


def in_metrics(house: House) -> dict[tuple[str, str], float]:
    with urlopen(f"{house.url}/metrics") as answer:
        text = answer.read().decode()
    return {
        (sample.name, sample.labels["uplink"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "uplink" in sample.labels and sample.labels.get("family", "ipv4") == "ipv4"
    }


def test_page_terminal_metrics_and_kernel_say_the_same(house: House, visit: Callable[..., Visit]) -> None:
    page = visit().page
    expect(page.locator("article.uplink")).to_have_count(3)
    names = [(uplink.name, uplink.interface) for uplink in house.daemon.status().uplinks]
    before = {name: counted(house, interface) for name, interface in names}
    # A sample comes every second; the one after this is not older than what the kernel has just said.
    page.wait_for_timeout(1500)
    shown = {name: on_the_page(page, name) for name, _ in names}
    status = {uplink.name: uplink for uplink in house.daemon.status().uplinks}
    values = in_metrics(house)
    after = {name: counted(house, interface) for name, interface in names}
    for name, _ in names:
        received = values["polywan_uplink_receive_bytes_total", name]
        sent = values["polywan_uplink_transmit_bytes_total", name]
        for place, exact in enumerate(((status[name].rx_bytes, received), (status[name].tx_bytes, sent))):
            low, high = before[name][place], after[name][place]
            assert all(low <= value <= high for value in exact)
            assert low * (1 - ROUNDED) <= shown[name][place] <= high * (1 + ROUNDED)
        assert values["polywan_uplink_share_ratio", name] == status[name].shares["ipv4"]
        card = page.locator("article.uplink", has_text=name)
        expect(card).to_contain_text(f"{round(100 * status[name].share)} % of new connections")
        expect(card.locator(".title")).to_contain_text(status[name].state)
