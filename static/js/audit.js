// The audit browser: clean URLs, and the chart.

document.documentElement.dataset.js = "";

// What is not asked for has no place in the URL.
document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.elt.id !== "filters") return;
  for (const [name, value] of [...event.detail.formData.entries()]) {
    if (value === "") event.detail.formData.delete(name);
  }
});

const BANDS = ["low", "medium", "high", "critical"];
const chart = document.getElementById("risk");
let plot = null;
let shown = null;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--gh-${name}`).trim();

function stacked(data) {
  // Bars are drawn from the tallest to the shortest, each over the one before.
  const sums = data.at.map((_, step) => {
    let sum = 0;
    return BANDS.map((band) => (sum += data[band][step]));
  });
  return [data.at, ...BANDS.map((_, place) => sums.map((sum) => sum[place])).reverse()];
}

function legend(data) {
  const list = document.getElementById("risk-legend");
  list.replaceChildren(
    ...BANDS.map((band) => {
      const entry = document.createElement("span");
      const count = data[band].reduce((sum, one) => sum + one, 0);
      entry.dataset.band = band;
      entry.append(document.createElement("i"), `${count} ${band}`);
      return entry;
    }),
  );
  const highest = Math.max(...data.highest.map((one) => one ?? 0));
  chart.setAttribute("aria-label", `Risk over time: ${list.textContent}; highest score ${highest}`);
}

function draw(data) {
  plot?.destroy();
  chart.replaceChildren();
  legend(data);
  const step = data.at.length > 1 ? data.at[1] - data.at[0] : 60;
  const days = step * data.at.length > 2 * 86400;
  const name = new Intl.DateTimeFormat(undefined, days ? { day: "numeric", month: "short" } : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const axis = { stroke: colour("ink-3"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  plot = new window.uPlot(
    {
      width: chart.clientWidth - 16,
      height: chart.clientHeight - 12,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { range: [data.at[0] - step / 2, data.at.at(-1) + step / 2] }, y: { range: (_, __, most) => [0, Math.max(most, 4)] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => name.format(tick * 1000)) }, { ...axis, size: 44, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000, 100000] }],
      series: [
        {},
        ...[...BANDS].reverse().map((band) => ({
          fill: colour(`${band}-fill`),
          stroke: colour(`${band}-fill`),
          width: 0,
          points: { show: false },
          paths: window.uPlot.paths.bars({ size: [0.8, 24] }),
        })),
      ],
    },
    stacked(data),
    chart,
  );
}

function state(name, text) {
  chart.replaceChildren();
  const block = document.createElement("div");
  block.className = "gh-empty";
  block.dataset.state = name;
  block.append(text);
  if (name === "error") {
    const again = document.createElement("button");
    again.type = "button";
    again.className = "btn btn-sm";
    again.textContent = "Try again";
    again.addEventListener("click", load);
    block.append(again);
  }
  chart.append(block);
  plot = null;
}

export async function load() {
  if (!chart) return;
  try {
    const answer = await fetch(chart.dataset.source + location.search, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(answer.status);
    shown = await answer.json();
  } catch {
    shown = null;
    return state("error", "The chart could not be loaded.");
  }
  if (shown.highest.every((score) => score === null)) {
    legend(shown);
    return state("empty", "Nothing with a score in this time.");
  }
  draw(shown);
}

document.documentElement.addEventListener("themechange", () => shown && plot && draw(shown));
addEventListener("resize", () => shown && plot && draw(shown));
document.addEventListener("htmx:afterSettle", (event) => event.detail.target?.id === "events" && load());
load();
