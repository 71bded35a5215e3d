"""Runs a notebook without Jupyter: the code cells in their order, each with what its last expression shows.

In:        a file in the form of nbformat 4.
Out:       the names that the cells leave behind and the text they show; with --write, the file with its outputs.

python -m tests.support.notebook docs/flows.ipynb [--write]
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class NotebookRun:
    """What came of it."""

    names: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    """Text of the last expression, by id of the cell."""


def run_notebook(path: Path, *, write: bool = False) -> NotebookRun:
    """Run all code cells. `write` puts their outputs into the file, as Jupyter would."""
    document = json.loads(path.read_text())
    run = NotebookRun()
    for number, cell in enumerate((cell for cell in document["cells"] if cell["cell_type"] == "code"), 1):
        value = _run_cell("".join(cell["source"]), f"{path.name}[{cell['id']}]", run.names)
        run.shown[cell["id"]] = repr(value)
        cell["execution_count"] = number
        cell["outputs"] = [] if value is None else [_output(value, number)]
    if write:
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return run


def _run_cell(source: str, name: str, names: dict[str, Any]) -> Any:
    body = ast.parse(source, name).body
    last = body[-1] if body else None
    if not isinstance(last, ast.Expr):
        exec(compile(ast.Module(body, []), name, "exec"), names)
        return None
    exec(compile(ast.Module(body[:-1], []), name, "exec"), names)
    return eval(compile(ast.Expression(last.value), name, "eval"), names)


def _output(value: Any, number: int) -> dict[str, Any]:
    data = {"text/plain": repr(value).splitlines(keepends=True)}
    if hasattr(value, "_repr_html_") and (html := value._repr_html_()):
        data["text/html"] = html.splitlines(keepends=True)
    return {"output_type": "execute_result", "execution_count": number, "metadata": {}, "data": data}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for cell, text in run_notebook(options.path, write=options.write).shown.items():
        print(f"{cell}:\n{text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
