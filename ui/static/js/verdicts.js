// The verdicts of a flow: how each is marked (shape, so that colour is never alone) and how bad it is.
export const VERDICTS = {
  FORWARDED: { mark: "●", rank: 0 },
  TRANSLATED: { mark: "⇄", rank: 0 },
  TRACED: { mark: "◦", rank: 0 },
  REDIRECTED: { mark: "➜", rank: 1 },
  AUDIT: { mark: "◌", rank: 2 },
  ERROR: { mark: "!", rank: 3 },
  DROPPED: { mark: "✕", rank: 4 },
};

export const markOf = (verdict) => VERDICTS[verdict]?.mark ?? "?";
