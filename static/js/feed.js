// New events as they are sealed: over a WebSocket that comes back by itself and goes on where it stopped.
import { load } from "./audit.js";

const MOST_ROWS = 200;
const button = document.getElementById("live");
const WORDS = { connecting: "Connecting", live: "Live", held: "Held back", older: "Older page", lost: "Not live" };

let socket = null;
let attempts = 0;
let after = "";
let waiting = 0;
let held = false;
let chartDue = 0;

function show(state) {
  button.dataset.state = state;
  button.setAttribute("aria-pressed", String(held));
  button.querySelector("[data-live-text]").textContent = waiting ? `${WORDS[state]}, ${waiting} new` : WORDS[state];
}

function reload() {
  waiting = 0;
  window.htmx.ajax("GET", location.pathname + location.search, { target: "#events", swap: "innerHTML" });
}

function add(html) {
  const rows = document.getElementById("rows");
  if (rows === null) return html ? reload() : undefined;
  const template = document.createElement("template");
  template.innerHTML = html;
  const fresh = [...template.content.querySelectorAll("tr")].filter((row) => document.getElementById(row.id) === null);
  for (const row of fresh) row.classList.add("gh-new");
  rows.prepend(...fresh);
  for (const row of fresh) window.htmx.process(row);
  while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
  if (fresh.some((row) => row.querySelector(".gh-chip")) && Date.now() > chartDue) {
    chartDue = Date.now() + 5000;
    load();
  }
}

function hear(message) {
  after = message.after;
  if (message.type === "ready") {
    attempts = 0;
  } else if (held) {
    waiting += message.type === "many" ? 100 : message.rows.split("<tr ").length - 1;
  } else if (message.type === "many") {
    reload();
  } else {
    add(message.rows);
  }
  show(held ? "held" : "live");
}

function connect() {
  const feed = document.getElementById("feed");
  if (feed === null) return;
  if (feed.dataset.live === "off") return show("older");
  const query = new URLSearchParams(location.search);
  query.delete("cursor");
  query.delete("tenant");
  if (feed.dataset.slug) query.set("tenant", feed.dataset.slug);
  query.set("after", after || feed.dataset.after);
  const mine = new WebSocket(`${location.origin.replace(/^http/, "ws")}/ws/audit?${query}`);
  socket = mine;
  mine.addEventListener("message", (event) => socket === mine && hear(JSON.parse(event.data)));
  mine.addEventListener("close", (event) => {
    if (socket !== mine) return;
    show("lost");
    // Refused, or no longer allowed: coming back would change nothing.
    if (event.code >= 4400 && event.code < 4500) return;
    attempts += 1;
    setTimeout(() => socket === mine && connect(), Math.min(30000, 500 * 2 ** attempts));
  });
}

function again() {
  const old = socket;
  socket = null;
  old?.close();
  after = "";
  connect();
}

button?.addEventListener("click", () => {
  if (button.dataset.state === "older") return;
  held = !held;
  if (!held && waiting) reload();
  show(held ? "held" : "live");
});
document.addEventListener("htmx:afterSettle", (event) => event.detail.target?.id === "events" && again());
addEventListener("pagehide", () => {
  const old = socket;
  socket = null;
  old?.close();
});
if (button) connect();
