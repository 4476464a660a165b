"use strict";
// A small game without a clock: a word is asked for, and each network says after how many strokes it got it.

const ROUNDS = 10;
let game = { wish: null, got: [], rounds: [], over: false }; // rounds: {class, got}; got: strokes of each network, or null

const some = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function withArticle(name) {
  if (/[^us]s$/.test(name)) return name; // scissors
  return `${/^[aeiou]/.test(name) ? "an" : "a"} ${name}`;
}

function buildChips() {
  const chips = about.classes.map((name, k) => {
    const chip = element("button", "", name);
    chip.type = "button";
    chip.tabIndex = k ? -1 : 0; // the whole row is one stop of the Tab key
    chip.setAttribute("aria-pressed", "false");
    chip.addEventListener("click", () => wish(name));
    return chip;
  });
  byId("chips").replaceChildren(...chips);
}

byId("chips").addEventListener("keydown", (event) => {
  const chips = [...byId("chips").children], from = chips.indexOf(document.activeElement);
  const step = { ArrowRight: from + 1, ArrowDown: from + 1, ArrowLeft: from - 1, ArrowUp: from - 1, Home: 0, End: -1 };
  if (!(event.key in step) || from < 0) return;
  event.preventDefault();
  chips.at(step[event.key] % chips.length).focus();
});
byId("chips").addEventListener("focusin", (event) => {
  for (const chip of byId("chips").children) chip.tabIndex = chip === event.target ? 0 : -1;
});

// Ask for a drawing; the one asked for before counts if it was begun.
function wish(name) {
  finishRound();
  if (game.over) return;
  byId("score").hidden = true;
  game.wish = name;
  game.got = about.networks.map(() => null);
  clear();
  cleared = null;
  begun = 0;
  showGame();
  byId("heard").textContent = byId("wish").textContent;
  paper.focus({ preventScroll: true });
}

function finishRound() {
  if (game.wish === null || begun === 0) return;
  game.rounds.push({ class: game.wish, got: game.got });
  game.wish = null;
  if (game.rounds.length === ROUNDS) showScore();
}

// A word that has been asked for least often, by chance.
function next() {
  if (!about.classes.length) return;
  if (game.over) newGame();
  const asked = [...game.rounds.map((round) => round.class), game.wish];
  const times = (name) => asked.filter((one) => one === name).length;
  const least = Math.min(...about.classes.map(times));
  const rare = about.classes.filter((name) => times(name) === least && name !== game.wish);
  const from = rare.length ? rare : about.classes;
  wish(from[Math.floor(Math.random() * from.length)]);
}

// What the networks say now, after the strokes begun when they were asked.
function judge(verdicts, after) {
  if (game.wish === null) return;
  verdicts.forEach((said, k) => { if (said === game.wish) game.got[k] ??= after; });
  showGame();
}

function showGame() {
  const playing = game.wish !== null;
  byId("game").hidden = !playing;
  for (const [k, chip] of [...byId("chips").children].entries()) {
    chip.setAttribute("aria-pressed", String(about.classes[k] === game.wish));
    chip.classList.toggle("done", game.rounds.some((round) => round.class === about.classes[k]));
  }
  byId("ten").hidden = playing;
  showGot(playing ? game.got : null);
  if (!playing) return;
  const all = game.got.every((after) => after !== null), last = game.rounds.length === ROUNDS - 1;
  byId("wish").textContent = `Draw ${withArticle(game.wish)}.`;
  byId("wish-text").textContent =
    `${game.rounds.length + 1} of ${ROUNDS}${all ? ", and all got it" : ""}`;
  byId("next").textContent = last ? "Score" : "Next";
}

function showScore() {
  game.over = true;
  game.wish = null;
  showGame();
  const names = about.networks.map((network) => network.name), { rounds } = game;
  const said = (after) => (after === null ? "no" : String(after));
  const rows = rounds.map((round, k) => tableRow("td", `${k + 1}. ${round.class}`, round.got.map(said)));
  const right = names.map((_, k) => rounds.map((round) => round.got[k]).filter((after) => after !== null));
  const mean = (all) => (all.length ? (all.reduce((sum, one) => sum + one) / all.length).toFixed(1) : "\u2013");
  const [head, body, foot] = ["thead", "tbody", "tfoot"].map((name) => document.createElement(name));
  head.append(tableRow("th", "drawing", names));
  body.append(...rows);
  foot.append(
    tableRow("td", "recognised", right.map((all) => `${all.length} of ${rounds.length}`)),
    tableRow("td", "mean", right.map(mean)),
  );
  byId("score-table").replaceChildren(head, body, foot);
  const most = Math.max(...right.map((all) => all.length));
  const best = names.filter((_, k) => right[k].length === most);
  byId("score-text").textContent = best.length === names.length && names.length > 1
    ? `All of them recognised ${most} of ${some(rounds.length, "drawing")}.`
    : `${listed(best)} recognised most: ${most} of ${some(rounds.length, "drawing")}.`;
  byId("score").hidden = false;
  byId("score-title").focus();
}

function tableRow(kind, first, rest) {
  const row = document.createElement("tr"), head = element("th", "", first);
  head.scope = kind === "th" ? "col" : "row";
  row.append(head, ...rest.map((text) => {
    const made = element(kind, "", text);
    if (kind === "th") made.scope = "col";
    return made;
  }));
  return row;
}

function newGame() {
  game = { wish: null, got: [], rounds: [], over: false };
  byId("score").hidden = true;
  showGame();
}

byId("ten").addEventListener("click", () => { newGame(); next(); });
byId("again").addEventListener("click", () => { newGame(); next(); });
byId("next").addEventListener("click", next);
byId("end").addEventListener("click", () => {
  finishRound();
  if (game.over) return;
  if (game.rounds.length) showScore();
  else newGame();
});
byId("close").addEventListener("click", () => { newGame(); byId("ten").focus(); });
