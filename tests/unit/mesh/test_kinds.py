"""The table of kinds says what the models say."""

from __future__ import annotations

from typing import get_args

import pytest

from mesh.resources.kinds import known_kinds


@pytest.mark.parametrize("name", known_kinds())
def test_each_kind_names_the_model_of_that_kind(name: str) -> None:
    kind = known_kinds()[name]
    assert name in get_args(kind.model.model_fields["kind"].annotation)
    assert kind.api_versions
