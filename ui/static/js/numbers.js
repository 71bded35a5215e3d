// Numbers and times as people read them.
export const rate = (perSecond) => (perSecond >= 1000 ? `${+(perSecond / 1000).toPrecision(2)}k/s` : `${+perSecond.toPrecision(2)}/s`);
export const percent = (number) => `${+number.toPrecision(2)}%`;
export const milliseconds = (ms) => (ms >= 1000 ? `${+(ms / 1000).toPrecision(2)} s` : ms < 1 ? `${Math.round(ms * 1000)} µs` : `${+ms.toPrecision(2)} ms`);
export const count = (number) => number.toLocaleString("en");
export const clock = (ms) => new Date(ms).toISOString().slice(11, 19);
