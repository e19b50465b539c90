// Follow Airflow's light and dark mode: its toggle sets a class on the host page, which no media query sees.

function host() {
  try {
    return window.parent.document.documentElement;
  } catch {
    return document.documentElement;
  }
}

function apply() {
  const outside = host();
  const system = window.matchMedia("(prefers-color-scheme: dark)").matches;
  const dark = outside === document.documentElement ? system : outside.classList.contains("dark");
  document.documentElement.classList.toggle("dark", dark);
}

apply();
if (host() !== document.documentElement) {
  new MutationObserver(apply).observe(host(), { attributes: true, attributeFilter: ["class"] });
} else {
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
}
