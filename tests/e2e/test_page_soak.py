"""The short form of the page's soak; the long one is `make soak-page`."""

from __future__ import annotations

import pytest

from tests.support.page_soak import Growth, Sample, soak

pytestmark = pytest.mark.browser


def test_an_open_page_and_its_server_stay_flat() -> None:
    told: list[Sample] = []
    samples = soak(12, 1.0, 10_000, "--flows", "16383", tell=told.append)
    assert told == samples
    growth = Growth.of(samples)
    assert growth.is_flat(), samples
    assert samples[-1].flows > samples[0].flows
