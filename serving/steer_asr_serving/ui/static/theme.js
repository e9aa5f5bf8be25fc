// Runs before the page is drawn, so that it never shows in the wrong colours first.
(() => {
  const known = ["auto", "light", "dark"];
  let chosen = "auto";
  try {
    chosen = localStorage.getItem("steer-asr-theme") ?? "auto";
  } catch {
    // Storage is off; the choice then lasts as long as the page.
  }
  document.documentElement.dataset.theme = known.includes(chosen) ? chosen : "auto";
})();
