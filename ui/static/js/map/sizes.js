// Sizes that layout and drawing share, in map units (CSS pixels at zoom 1).
export const CARD = { width: 184, height: 78 };
export const LABEL = { width: 100, height: 34 };
export const PADDING = { top: 40, side: 20 };
export const SPACING = 30;
