"""The check of each layer above the link; rounds of probes are `prober.py`."""

from __future__ import annotations

from typing import assert_never

from polywan.core.health.layers import Layer
from polywan.probe.check import Method
from polywan.probe.dns import check_dns
from polywan.probe.http import check_http
from polywan.probe.large import check_large
from polywan.probe.neighbour import check_gateway
from polywan.probe.script import check_script


def method_of(layer: Layer) -> Method:
    """Return what looks at a layer."""
    match layer:
        case Layer.GATEWAY:
            return check_gateway
        case Layer.DNS:
            return check_dns
        case Layer.HTTP:
            return check_http
        case Layer.LARGE:
            return check_large
        case Layer.SCRIPT:
            return check_script
        case _:
            assert_never(layer)
