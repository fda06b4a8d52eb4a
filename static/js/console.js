// What every page of the console does in the browser: theme, copying, keyboard, the panel, and lost connections.

const typing = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;

export function toast(text) {
  const shown = document.createElement("div");
  shown.className = "gh-toast";
  shown.textContent = text;
  document.getElementById("toasts")?.append(shown);
  setTimeout(() => shown.remove(), 4000);
}

async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
  } catch {
    // Over plain HTTP the clipboard is closed to scripts; a selection still works.
    const field = document.createElement("textarea");
    field.value = button.dataset.copy;
    field.className = "visually-hidden";
    button.after(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  button.dataset.copied = "";
  setTimeout(() => delete button.dataset.copied, 1500);
  toast("Copied");
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button === null) return;
  if (button.dataset.copy !== undefined) copy(button);
  if (button.dataset.setTheme) window.setTheme(button.dataset.setTheme);
  if (button.dataset.help !== undefined) document.getElementById("help").showModal();
});

document.addEventListener("input", (event) => {
  const list = event.target.dataset?.narrows;
  if (!list) return;
  const wanted = event.target.value.trim().toLowerCase();
  for (const entry of document.querySelectorAll(`${list} > *`)) {
    entry.hidden = !entry.textContent.toLowerCase().includes(wanted);
  }
});

// --- keyboard

let chord = "";

function step(direction) {
  const rows = [...document.querySelectorAll(".gh-row-link")];
  const at = rows.indexOf(document.activeElement);
  rows[at < 0 ? 0 : Math.min(Math.max(at + direction, 0), rows.length - 1)]?.focus();
}

const KEYS = {
  "/": () => document.querySelector("[data-search]")?.focus(),
  "?": () => document.getElementById("help")?.showModal(),
  j: () => step(1),
  k: () => step(-1),
  t: () => {
    const themes = ["system", "light", "dark"];
    window.setTheme(themes[(themes.indexOf(document.documentElement.dataset.theme) + 1) % themes.length]);
  },
  "g a": () => document.querySelector(".gh-nav a[href$='/audit']")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  if (document.querySelector("dialog[open]")) return;
  const pressed = chord ? `${chord} ${event.key}` : event.key;
  chord = "";
  if (pressed === "g") {
    chord = "g";
    setTimeout(() => (chord = ""), 1000);
  } else if (KEYS[pressed]) {
    event.preventDefault();
    KEYS[pressed]();
  }
});

// --- the panel: a link that names it loads its page there instead of leaving the list

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target?.id !== "panel-body") return;
  const skeleton = '<div class="gh-skeleton"></div>'.repeat(6);
  event.detail.target.innerHTML = skeleton;
  window.tabler.Offcanvas.getOrCreateInstance("#panel").show();
});

document.addEventListener("keydown", (event) => {
  const panel = document.getElementById("panel");
  // The library hears the key only when the panel has come to rest.
  if (event.key === "Escape" && panel?.matches(".showing")) {
    panel.addEventListener("shown.bs.offcanvas", () => window.tabler.Offcanvas.getInstance(panel).hide(), { once: true });
  }
});

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target?.id === "panel-body") event.detail.target.scrollTop = 0;
});

// --- an answer that never came

document.addEventListener("htmx:sendError", (event) => {
  const { target, elt } = event.detail;
  const offline = document.getElementById("state-offline")?.content.cloneNode(true);
  if (!offline || !target) return;
  const again = () => window.htmx.trigger(elt, elt.matches("form") ? "submit" : "click");
  offline.querySelector("[data-retry]").addEventListener("click", again);
  target.replaceChildren(offline);
});
