"use strict";
// The questions to the server, one at a time, and the answers of all networks, a card each.

const PAUSE = 50, RETRY = 2000, PATIENCE = 15000; // ms between questions, after a failure, until one counts as failed
const NOTHING = "Nothing drawn yet.", RECENT = 9; // answers that a time is the median of
let version = 0; // of the drawing
let asked = 0; // the version asked about last
let answered = 0; // the version that is shown
let waiting = false; // one question at a time; the next one is about the drawing as it then is
let clearings = 0; // an answer about a drawing that is gone is not shown
let look = 0; // the network that is looked into
let times = []; // of each network, the last few

// ------------------------------------------------------------------------------- the questions

async function fetched(path, options) {
  const response = await fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE) });
  const answer = await response.json();
  if (response.ok) return answer;
  throw Object.assign(new Error(answer.error), { refused: response.status !== 503, busy: response.status === 503 });
}

async function ask() {
  if (waiting || asked === version || !about.networks.length) return;
  asked = version;
  if (!strokes.length) return showNothing(NOTHING);
  const about_version = version, about_clearings = clearings, after = begun, started = performance.now();
  let pause = PAUSE;
  waiting = true;
  try {
    const body = JSON.stringify({ strokes, width: width(), look });
    const headers = { "Content-Type": "application/json" };
    const answer = await fetched("predict", { method: "POST", headers, body });
    if (about_clearings === clearings) {
      show(answer, after, performance.now() - started);
      say(full() ? FULL : "");
    }
    answered = about_version;
  } catch (error) {
    if (about_clearings === clearings) showNothing("No answer.");
    if (error.refused) say(`The server refused this drawing. ${error.message}`);
    else {
      say(`The server ${error.busy ? "is busy" : "does not answer"}. Your drawing is kept; asking again.`);
      [asked, pause] = [-1, RETRY];
    }
  }
  waiting = false;
  setTimeout(ask, pause);
}

// --------------------------------------------------------------------------------- the answers

function say(text) {
  if (byId("message").textContent !== text) byId("message").textContent = text;
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

const listed = (names) => (names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`);

function announce(text, apart, detail = "") {
  byId("verdict").replaceChildren(element("span", "", text), element("span", "detail", detail));
  byId("verdict").classList.toggle("apart", apart);
  text += detail;
  if (byId("heard").textContent !== text) byId("heard").textContent = text; // heard only when it changes
}

function showNothing(reason) {
  announce(reason, false);
  for (const card of byId("cards").children) {
    showSays(card, "\u2013", "", false);
    card.querySelector(".top").replaceChildren();
  }
  byId("time").textContent = "";
  showNothingInside();
  answered = version;
}

function show(answer, after, milliseconds) {
  const verdicts = answer.networks.map((one) => one.top[0].class);
  announceVerdicts(verdicts);
  answer.networks.forEach((one, k) => showAnswer(byId("cards").children[k], k, one, verdicts));
  const sum = answer.networks.reduce((total, one) => total + one.milliseconds, 0);
  byId("time").textContent =
    `${sum.toFixed(1)} ms in all networks, ${milliseconds.toFixed(0)} ms from question to answer`;
  if (answer.look === look) showInside(answer);
  judge(verdicts, after);
}

const quoted = (name) => (name === about.none ? "none of these looks likely" : name);

function announceVerdicts(verdicts) {
  const names = about.networks.map((network) => network.name);
  const said = [...new Set(verdicts)];
  const who = (one) => listed(names.filter((_, k) => verdicts[k] === one));
  if (said.length > 1) announce("They disagree.", true, said.map((one) => ` ${who(one)}: ${quoted(one)}.`).join(""));
  else if (said[0] === about.none) announce("None of these looks likely.", false);
  else announce(names.length > 1 ? `${names.length === 2 ? "Both" : "All"} say ${said[0]}.` : `Looks like: ${said[0]}.`, false);
}

function showSays(card, said, percent, differs) {
  card.querySelector(".class").textContent = `${differs ? "\u2260 " : ""}${said}`; // not as the first network
  card.querySelector(".percent").textContent = percent;
  card.classList.toggle("differs", differs);
}

function showAnswer(card, k, { top, milliseconds }, verdicts) {
  const percents = top.map((one) => `${(100 * one.probability).toFixed(1)} %`);
  showSays(card, top[0].class, percents[0], verdicts[k] !== verdicts[0]);
  card.querySelector(".top").replaceChildren(...top.map((one, i) => {
    const row = element("li", one.class === about.none ? "none" : ""), bar = element("span", "bar"), length = element("i", "");
    length.style.width = `${100 * one.probability}%`;
    bar.append(length);
    bar.setAttribute("aria-hidden", "true");
    row.append(element("span", "", one.class), bar, element("span", "number", percents[i]));
    return row;
  }));
  times[k] = [...(times[k] || []), milliseconds].slice(-RECENT);
  const median = [...times[k]].sort((a, b) => a - b)[times[k].length >> 1];
  card.querySelector(".ms").textContent = `${median.toFixed(1)} ms`;
}

function showGot(got) {
  byId("cards").classList.toggle("playing", got !== null);
  [...byId("cards").children].forEach((card, k) => {
    const line = card.querySelector(".got"), yes = got !== null && got[k] !== null;
    line.hidden = got === null;
    line.classList.toggle("yes", yes);
    line.textContent = yes ? `\u2713 after ${some(got[k], "stroke")}` : "not yet";
  });
}

// -------------------------------------------------------------------------------- the cards

const short = (count) => (count >= 1e6 ? `${(count / 1e6).toFixed(1)} M` : `${(count / 1e3).toFixed(0)} k`);

function buildCard(network, k) {
  const card = element("div", "card"), says = element("div", "says"), top = element("ol", "top");
  card.setAttribute("role", "group");
  card.setAttribute("aria-label", network.name);
  says.append(element("span", "name", network.name), element("span", "class"), element("span", "got"),
    element("span", "percent"));
  top.setAttribute("aria-label", `What ${network.name} finds likely`);
  const again = element("p", "more-name", network.name); // on a phone, where the rest stands apart
  again.setAttribute("aria-hidden", "true");
  card.append(says, again, top, strip(network), figures(network, k));
  return card;
}

// Which inputs and which weights of each layer are bits.
function strip({ name, layers }) {
  const made = element("div", "strip"), named = layers.length <= 8;
  made.setAttribute("role", "img");
  const where = (key) => ["binary", "real"].map((kind) => {
    const found = layers.filter((layer) => layer[key] === kind).map((layer) => layer.name);
    return `${kind === "binary" ? "bits" : "real"} in ${listed(found) || "no layer"}`;
  }).join(", ");
  made.setAttribute("aria-label", `${name}: inputs ${where("inputs")}; weights ${where("weights")}`);
  if (named) {
    const number = (layer, k) => (k === layers.length - 1 ? "last" : layer.name.replace(/^conv(?=\d)/, ""));
    made.append(element("span", "layer-name title", "layer"), ...layers.map((one, k) => element("span", "layer-name", number(one, k))));
  }
  ["inputs", "weights"].forEach((key, row) => {
    const place = row + (named ? 2 : 1), title = element("span", "title", key);
    title.style.gridRow = place;
    made.append(title, ...layers.map((layer) => {
      const cell = element("span", `cell ${layer[key] === "binary" ? "bits" : "real"}`);
      cell.style.gridRow = place;
      cell.title = `${layer.name}: ${key} ${layer[key] === "binary" ? "are bits" : "are real"}`;
      return cell;
    }));
  });
  for (const one of made.querySelectorAll(".layer-name")) one.style.gridRow = 1;
  return made;
}

function figures(network, k) {
  const made = element("div", "figures"), list = document.createElement("dl"), button = element("button", "", "Look inside");
  const texts = { time: "\u2013", operations: short(network.operations), bytes: short(network.bytes) };
  for (const [name, text] of Object.entries(texts)) {
    const pair = document.createElement("div"), value = element("dd", name === "time" ? "ms" : "", text);
    pair.append(element("dt", "", name), value);
    list.append(pair);
  }
  button.type = "button";
  button.setAttribute("aria-label", `Look inside ${network.name}`);
  button.setAttribute("aria-keyshortcuts", String(k + 1));
  button.addEventListener("click", () => lookInto(k));
  made.append(list, button);
  return made;
}

function lookInto(k) {
  look = k;
  [...byId("cards").children].forEach((card, i) => {
    card.classList.toggle("open", i === k);
    card.querySelector("button").setAttribute("aria-pressed", String(i === k));
  });
  byId("maps-title").textContent = `Inside ${about.networks[k].name}`;
  if (strokes.length) changed();
}

// ----------------------------------------------------------------------------------- beginning

function linkNotebooks() {
  for (const place of document.querySelectorAll("[data-notebook]")) {
    const path = `tutorials/${place.dataset.notebook}.ipynb`;
    if (!about.notebooks.includes(path)) continue; // installed without them
    const link = element("a", "", place.textContent);
    link.href = path;
    place.replaceChildren(link);
  }
}

async function introduce() {
  try {
    about = await fetched("about");
  } catch {
    setTimeout(introduce, RETRY);
    return;
  }
  const { network, networks, classes, rest } = about, sizes = [...new Set(networks.map((one) => one.input_size))];
  const first = networks.length === 1 ? `${networks[0].name} of ${network}` : `${networks.length} networks of the same layers`;
  byId("network").textContent = networks.length === 1
    ? `${first}: ${classes.length} classes, ${sizes[0]} \u00d7 ${sizes[0]} pixels`
    : `${networks.length} networks, one drawing: which of their numbers may be single bits, and what does it cost?`;
  byId("cards").replaceChildren(...networks.map(buildCard));
  [byId("width").min, byId("width").max] = about.widths;
  buildChips();
  linkNotebooks();
  byId("rest").replaceChildren(...rest.map((line) => element("li", "", line)));
  showGame();
  showNothing(NOTHING);
  const hybrid = networks.findIndex((one) => one.variant === "hybrid");
  lookInto(Math.max(0, hybrid));
  requestAnimationFrame(paint);
  ask();
}

setWidth(1);
introduce();
