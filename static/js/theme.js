// Runs before the first paint, so that no page flashes in the wrong colours. "system" follows the device.
(() => {
  const root = document.documentElement;
  const device = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => {
    try {
      return localStorage.getItem("theme") ?? "system";
    } catch {
      return "system";
    }
  };
  const paint = () => {
    const wanted = remembered();
    root.dataset.theme = wanted;
    root.dataset.bsTheme = wanted === "system" ? (device.matches ? "dark" : "light") : wanted;
    root.dispatchEvent(new CustomEvent("themechange"));
  };
  device.addEventListener("change", paint);
  addEventListener("storage", paint);
  window.setTheme = (name) => {
    try {
      localStorage.setItem("theme", name);
    } catch {
      // Without storage the choice lasts for this page.
    }
    paint();
  };
  paint();
})();
