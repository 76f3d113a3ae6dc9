"use strict";

const values = JSON.parse(document.getElementById("values").textContent);
const details = document.getElementById("details");
const empty = details.firstElementChild;
const answers = [...document.querySelectorAll(".tokens")];
const placeOf = new Map();  // token -> [its answer, its index]
const LISTED = 6;           // log-ratios in the numbers of a token; then follow their number and their mean
let current = null;         // the token that has or had the focus

answers.forEach((answer, row) => [...answer.children].forEach((token, i) => {
  placeOf.set(token, [row, i]);
  token.tabIndex = i ? -1 : 0;  // Tab goes from answer to answer, arrow keys within
}));

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

const number = (value, digits) => value.toFixed(digits).replace(/^-0\.0*$/, (0).toFixed(digits)).replace("-", "\u2212");

function scored(column, i) {
  while (column[i] === "=") i -= 1;  // the tokens that stand against the token before stand against this one too
  return column[i];
}

function scoredText(parts) {
  const words = [];
  for (let i = 0; i + 1 < parts.length; i += 2) words.push(`"${parts[i]}"\u00a0${number(parts[i + 1], 3)}`);
  if (parts.length % 2) words.push(`\u2026 ${parts.at(-1)} tokens`);  // more than are listed
  return words.join("  ") || "\u2013";
}

function ratioText(ratios) {
  if (ratios.length === 1) return `${number(ratios[0], 3)}, ratio ${Math.exp(ratios[0]).toPrecision(3)}`;
  const listed = ratios.length > LISTED ? ratios.slice(0, LISTED) : ratios;
  const [count, mean] = ratios.length > LISTED
    ? ratios.slice(LISTED)
    : [0, ratios.reduce((sum, ratio) => sum + ratio, 0) / ratios.length];
  const more = count ? `, \u2026 ${count} in all` : "";
  return `${listed.map((ratio) => number(ratio, 3)).join(", ")}${more}; mean ${number(mean, 3)}`;
}

function notes(answer, i) {
  const [lower, upper, of] = answer.bounds[i] || [0, 0, 0];
  const which = (part) => {
    const count = Math.round(part * of);
    return of === 1 ? "clamped at" : count === of ? `all ${of} log-ratios at` : `${count} of ${of} log-ratios at`;
  };
  const made = [];
  if (lower) made.push(`${which(lower)} the lower bound, ${number(values.bounds[0], 2)}`);
  if (upper) made.push(`${which(upper)} the upper bound, ${number(values.bounds[1], 2)}`);
  if (answer.neutral[i]) made.push(`neutral, ${answer.neutral[i]}`);
  return made.join("; ");
}

function show(token) {
  if (!token) return details.replaceChildren(empty);
  const [row, i] = placeOf.get(token);
  const answer = values.answers[row];
  const isEos = token.textContent === "EOS" && token.classList.contains("mark");
  const text = isEos ? "EOS" : `"${answer.texts[i] ?? token.textContent}"`;
  const side = answers[row].dataset.side;
  const prompt = answers[row].closest("article").querySelector("h2 bdi").textContent;
  const head = element("p", "", "head");
  head.append(element("bdi", text, "token"), element("span", `token ${i + 1} of ${answer.weight.length}, ${side}, ${prompt}`, "where"));
  const list = document.createElement("dl");
  const add = (label, value, className) => {
    const pair = document.createElement("div");
    pair.append(element("dt", label), element("dd", value, className));
    list.append(pair);
    return pair.lastElementChild;
  };
  const swatch = element("span", "", `swatch ${token.classList[0]}`);
  add("weight", String(answer.weight[i]).replace("-", "\u2212")).prepend(swatch);
  add("log p student", number(answer.student[i], 3));
  for (const [role, column] of Object.entries(answer.scored))
    if (!isEos) add(`log p ${values.scorers[role]}`, scoredText(scored(column, i)), "scored");
  if (answer.ratios[i].length) add("log-ratio r", ratioText(answer.ratios[i]));
  head.append(element("span", notes(answer, i), "note"));
  details.replaceChildren(head, list);
}

function focus(token) {
  if (!token) return;
  const [row] = placeOf.get(token);
  for (const other of answers[row].children) other.tabIndex = other === token ? 0 : -1;
  token.focus();
}

// The token nearest to this one in the line above (-1) or below (1), as the text is broken now.
function inLine(token, direction) {
  const from = token.getClientRects()[0];
  let best = null, least = Infinity;
  for (const other of token.parentElement.children) {
    const to = other.getClientRects()[0];
    const rows = direction * (to.top - from.top) / from.height;
    if (rows < 0.5) continue;
    const distance = 1000 * Math.round(rows) + Math.abs(to.left - from.left) / 10;
    if (distance < least) [best, least] = [other, distance];
  }
  return best;
}

const MOVES = {
  ArrowRight: (token) => token.nextElementSibling,
  ArrowLeft: (token) => token.previousElementSibling,
  ArrowDown: (token) => inLine(token, 1),
  ArrowUp: (token) => inLine(token, -1),
  Home: (token) => token.parentElement.firstElementChild,
  End: (token) => token.parentElement.lastElementChild,
};

const tokenOf = (event) => placeOf.has(event.target) ? event.target : null;

document.addEventListener("keydown", (event) => {
  const token = tokenOf(event);
  if (!token || !(event.key in MOVES) || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  focus(MOVES[event.key](token));
});
document.addEventListener("focusin", (event) => {
  if (current) current.classList.remove("current");
  current = tokenOf(event) || current;
  if (tokenOf(event)) {
    current.classList.add("current");
    show(current);
  }
});
document.addEventListener("click", (event) => focus(tokenOf(event)));
document.addEventListener("mouseover", (event) => tokenOf(event) && show(tokenOf(event)));
document.addEventListener("mouseout", (event) => tokenOf(event) && show(current));

const filter = document.getElementById("filter");
const pairs = [...document.querySelectorAll("article")];
const texts = pairs.map((pair) => pair.querySelector(".prompt").textContent.toLowerCase());

filter.addEventListener("input", () => {
  const wanted = filter.value.toLowerCase();
  pairs.forEach((pair, i) => { pair.hidden = !texts[i].includes(wanted); });
  const found = pairs.filter((pair) => !pair.hidden).length;
  document.getElementById("count").textContent = found === pairs.length ? `${found} pairs` : `${found} of ${pairs.length} pairs`;
  document.getElementById("none").hidden = found > 0;
});
filter.form.addEventListener("submit", (event) => event.preventDefault());
