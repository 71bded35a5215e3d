// The verdicts of a flow: how each is marked (shape, so that colour is never alone).
export const VERDICTS = {
  FORWARDED: { mark: "●", word: "Forwarded" },
  DROPPED: { mark: "✕", word: "Dropped" },
  REDIRECTED: { mark: "➜", word: "Redirected" },
  AUDIT: { mark: "◌", word: "Audit" },
  ERROR: { mark: "!", word: "Error" },
  TRANSLATED: { mark: "⇄", word: "Translated" },
  TRACED: { mark: "◦", word: "Traced" },
};

export const markOf = (verdict) => VERDICTS[verdict]?.mark ?? "?";
