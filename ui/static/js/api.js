// Calls that are answered once. An answer that refuses becomes an error with `control`: the element that is wrong.
export async function ask(path, parameters = {}) {
  const response = await fetch(address(path, parameters));
  const body = await response.json().catch(() => ({ text: `the server answered ${response.status}` }));
  if (!response.ok) throw Object.assign(new Error(body.text ?? "the server refused"), { control: body.control ?? "message" });
  return body;
}

export function address(path, parameters) {
  const found = new URL(`api/${path}`, document.baseURI);
  found.search = found.hash = "";
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") found.searchParams.set(name, value);
  }
  return found;
}

// The parameters that every call about flows shares.
export const scope = (state) => ({
  filter: state.get("filter"), start: state.get("range")?.[0], stop: state.get("range")?.[1],
});
