"""The check of each layer above the link, imported when it is first needed; rounds of probes are `prober.py`."""

from __future__ import annotations

from typing import assert_never

from polywan.core.health.layers import Layer
from polywan.probe.check import Method


def method_of(layer: Layer) -> Method:
    """Return what looks at a layer."""
    match layer:
        case Layer.GATEWAY:
            from polywan.probe.neighbour import check_gateway

            return check_gateway
        case Layer.DNS:
            from polywan.probe.dns import check_dns

            return check_dns
        case Layer.HTTP:
            from polywan.probe.http import check_http

            return check_http
        case Layer.LARGE:
            from polywan.probe.large import check_large

            return check_large
        case Layer.SCRIPT:
            from polywan.probe.script import check_script

            return check_script
        case _:
            assert_never(layer)
