// Drawings for cards, 16 by 16, one stroke each.
const PATHS = {
  box: "M8 1.5 14 5v6.5L8 14.5 2 11V5z M2 5l6 3.2L14 5 M8 8.2v6.3",
  web: "M1.5 3h13v10h-13z M1.5 6h13 M4 4.5h.01 M6 4.5h.01",
  client: "M3 2.5h10v8H3z M1.5 13.5h13 M6 10.5v3 M10 10.5v3",
  database: "M2.5 4c0-3 11-3 11 0v8c0 3-11 3-11 0z M2.5 4c0 3 11 3 11 0 M2.5 8c0 3 11 3 11 0",
  queue: "M1.5 4h13v8h-13z M5 4v8 M8.3 4v8 M11.6 4v8",
  dns: "M8 1.5a6.5 6.5 0 1 0 .01 0z M5 10V6l6 4V6",
  globe: "M8 1.5a6.5 6.5 0 1 0 .01 0z M1.5 8h13 M8 1.5c-4 4-4 9 0 13 M8 1.5c4 4 4 9 0 13",
  chart: "M2 2v12h12 M5 11V8 M8.5 11V4.5 M12 11V6.5",
  node: "M2 2.5h12v4.5H2z M2 9h12v4.5H2z M4.5 4.7h.01 M4.5 11.2h.01",
  island: "M1.5 5.5h5v5h-5z M9.5 1.5h5v5h-5z M9.5 9.5h5v5h-5z M6.5 8l3-3 M6.5 8l3 3",
};

export const iconPath = (name) => PATHS[name] ?? PATHS.box;
