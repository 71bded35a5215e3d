// Runs before anything is painted, so that a chosen theme does not flash.
try {
  const chosen = localStorage.getItem("flowscope-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* storage is not allowed: the system's theme it is */ }
