"""Headers that policies want changed: a small program for Envoy's Lua filter.

In:        what rules do to headers, by the name of the action that RBAC tells for a request.
Out:       the filter's configuration; one that does nothing when no rule does.
Elsewhere: matching.py finds the rule; mesh/policy/rules.py says what the actions mean.
"""

from __future__ import annotations

from typing import Any, Final

from mesh.envoy.matching import Changes
from mesh.policy.rules import HeaderMatch

Tree = dict[str, Any]

TYPE: Final = "type.googleapis.com/envoy.extensions.filters.http."
_PROGRAM: Final = """
local changes = {%s}
function envoy_on_request(handle)
  local judged = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.rbac")
  local wanted = judged and changes[judged["enforced_effective_policy_id"]]
  if not wanted then return end
  local headers = handle:headers()
  for _, one in ipairs(wanted) do
    local action, name, value = one[1], one[2], one[3]
    local found = headers:get(name)
    if found == nil or (value ~= "" and found ~= value) then
      if action == "REPLACE" then headers:replace(name, value)
      elseif action == "ADD" then headers:add(name, value)
      elseif action == "DELETE" then headers:remove(name) end
    end
  end
end
"""


def changing_filter(changes: Changes) -> Tree:
    """The filter behind the one that judges."""
    wanted = {name: kept for actions, name in changes.names.items() if (kept := [_action(one) for one in actions])}
    if not wanted:
        return {"@type": f"{TYPE}rbac.v3.RBAC"}
    table = ", ".join(f"[{quoted(name)}] = {{{', '.join(actions)}}}" for name, actions in wanted.items())
    return {"@type": f"{TYPE}lua.v3.Lua", "default_source_code": {"inline_string": _PROGRAM % table}}


def _action(one: HeaderMatch) -> str:
    return f"{{{quoted(one.mismatch)}, {quoted(one.name)}, {quoted(one.value)}}}"


def quoted(text: str) -> str:
    """A Lua string; every byte that is no letter, digit or dash is written as its number."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03d}" for byte in text.encode()) + '"'
