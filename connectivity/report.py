"""How the tests went, for people and for CI systems.

In:        outcomes of tests.
Out:       lines of text; a JUnit file.
Elsewhere: runner.py produces outcomes. Form: spec/mesh.md section 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

from connectivity.suite import Action


@dataclass(frozen=True, slots=True)
class Failed:
    """An action that did not go as expected."""

    action: Action | str
    problems: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """One test."""

    name: str
    skipped: bool = False
    actions: int = 0
    took_s: float = 0.0
    failed: list[Failed] = field(default_factory=list)
    error: str = ""
    """Why the test could not be made, such as a policy that was refused."""

    @property
    def ok(self) -> bool:
        return not self.failed and not self.error


def closing(outcomes: Sequence[Outcome], scenarios_skipped: int = 0) -> str:
    """The last lines."""
    run = [one for one in outcomes if not one.skipped]
    skipped = len(outcomes) - len(run)
    actions = sum(one.actions for one in run)
    bad = [one for one in run if not one.ok]
    if not bad:
        return (
            f"✅ All {len(run)} tests ({actions} actions) successful, {skipped} tests skipped,"
            f" {scenarios_skipped} scenarios skipped."
        )
    failed = sum(len(one.failed) for one in bad)
    lines = [
        f"❌ {len(bad)}/{len(run)} tests failed ({failed}/{actions} actions), {skipped} tests skipped,"
        f" {scenarios_skipped} scenarios skipped:"
    ]
    for one in bad:
        lines.append(f"Test [{one.name}]:")
        if one.error:
            lines.append(f"  ❌ {one.error}")
        lines += [f"  ❌ {failure.action}: {'; '.join(failure.problems)}" for failure in one.failed]
    return "\n".join(lines)


def junit(outcomes: Iterable[Outcome], properties: Mapping[str, str]) -> str:
    """The outcomes as JUnit's XML (one suite, a case for each test)."""
    listed = list(outcomes)
    suite = ElementTree.Element(
        "testsuite",
        name="connectivity test",
        tests=str(len(listed)),
        failures=str(sum(bool(one.failed) for one in listed)),
        errors=str(sum(bool(one.error) for one in listed)),
        skipped=str(sum(one.skipped for one in listed)),
        time=f"{sum(one.took_s for one in listed):.3f}",
    )
    if properties:
        known = ElementTree.SubElement(suite, "properties")
        for name, value in properties.items():
            ElementTree.SubElement(known, "property", name=name, value=value)
    for one in listed:
        case = ElementTree.SubElement(
            suite, "testcase", classname="connectivity test", name=one.name, time=f"{one.took_s:.3f}"
        )
        if one.skipped:
            ElementTree.SubElement(case, "skipped")
        if one.error:
            ElementTree.SubElement(case, "error", message=one.error)
        if one.failed:
            failure = ElementTree.SubElement(case, "failure", message=f"{len(one.failed)} actions failed")
            failure.text = "\n".join(f"{each.action}: {'; '.join(each.problems)}" for each in one.failed)
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
