"""Where cards stand: worked out by the layout library in a page, moved by people, kept here for all.

In:        places and routes that a page sends.
Out:       the same to every page that looks at the same set of islands, also after a restart.
Elsewhere: static/js/map/arrange.js runs the layout library; picture.py says what is on the map.

One layout is kept per view: the set of islands that are closed. What a page sends is checked, because another page will
draw it.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path
from typing import Annotated, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

log = structlog.get_logger(component="ui")

MOST_VIEWS: Final = 40
FAR: Final = 200_000.0
"""Coordinates beyond this are no map."""

Number = Annotated[float, Field(ge=-FAR, le=FAR, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=600)]
Point = tuple[Number, Number]


class Route(BaseModel):
    """The way of one arrow, and where its words stand."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    points: Annotated[list[Point], Field(max_length=60)]
    label: Point | None = None


class Layout(BaseModel):
    """Places of one view."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    places: Annotated[dict[Name, Point], Field(max_length=6_000)]
    routes: Annotated[dict[Name, Route], Field(max_length=12_000)] = {}
    pinned: Annotated[list[Name], Field(max_length=6_000)] = []
    version: Annotated[int, Field(ge=0)] = 0
    """Grows with each change; assigned here."""


class Layouts:
    """Layouts by view, the least used forgotten first."""

    def __init__(self, path: Path | None = None) -> None:
        """`path`: a file to keep them in; None: they last as long as the process."""
        self._path = path
        self._views: OrderedDict[str, Layout] = OrderedDict()
        if path is not None and path.exists():
            self._load(path)

    def get(self, view: str) -> Layout | None:
        found = self._views.get(view)
        if found is not None:
            self._views.move_to_end(view)
        return found

    def put(self, view: str, layout: Layout) -> Layout:
        """Keep it; returns it with its version."""
        old = self._views.get(view)
        stored = layout.model_copy(update={"version": (old.version if old else 0) + 1})
        self._views[view] = stored
        self._views.move_to_end(view)
        while len(self._views) > MOST_VIEWS:
            self._views.popitem(last=False)
        self._save()
        return stored

    def _load(self, path: Path) -> None:
        try:
            stored = json.loads(path.read_text())
            self._views.update((view, Layout.model_validate(layout)) for view, layout in stored.items())
        except (OSError, ValueError, ValidationError, AttributeError) as error:
            log.warning("stored layouts are not readable; starting without", path=str(path), error=str(error)[:200])

    def _save(self) -> None:
        if self._path is None:
            return
        part = self._path.with_name(self._path.name + ".part")
        try:
            part.write_text(json.dumps({view: layout.model_dump() for view, layout in self._views.items()}))
            os.replace(part, self._path)
        except OSError as error:
            log.warning("layouts could not be written", path=str(self._path), error=error.strerror)
