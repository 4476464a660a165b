"use strict";
// The paper: strokes by mouse, finger, pen and keys; undo and clear. Tells networks.js of every change.

const byId = (id) => document.getElementById(id);
const paper = byId("paper"), pen = paper.getContext("2d");
const NEAR = 0.004; // a point nearer to the one before adds nothing: a quarter of a pixel of 64
const STEP = 0.02; // of the arrow keys
const FULL = "The drawing has as many lines as the server takes. Undo or clear to go on.";

// Until /about has answered:
let about = { pen: 1.5 / 72, max_strokes: 500, max_points: 20000, max_body: 262144, networks: [], classes: [] };
let strokes = []; // each a list of points [x, y], 0 to 1 of the paper; a list, so that undo is a pop
let cleared = null; // what Clear took away, for Undo
let begun = 0; // strokes since the game last asked for a drawing, those taken back included
let pointer = null; // id of the pointer that draws
let keys = { x: 0.5, y: 0.5, down: false, seen: false }; // the pen of the arrow keys

// ---------------------------------------------------------------------------------- the drawing

const width = () => Number(byId("width").value);

function paint() {
  const side = Math.round(paper.clientWidth * devicePixelRatio);
  if (paper.width !== side) paper.width = paper.height = side;
  pen.setTransform(side, 0, 0, side, 0, 0); // from here on the paper is 1 wide
  pen.clearRect(0, 0, 1, 1);
  pen.lineWidth = about.pen * width();
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = "#111";
  for (const stroke of strokes) {
    pen.beginPath();
    if (stroke.length === 1) pen.arc(...stroke[0], pen.lineWidth / 1e3, 0, 7); // a canvas draws no line of one point
    for (const point of stroke) pen.lineTo(...point);
    pen.stroke();
  }
  if (keys.seen && document.activeElement === paper) paintCross();
}

function paintCross() {
  pen.lineWidth = 0.004;
  pen.strokeStyle = "#0b4a7d";
  pen.beginPath();
  pen.arc(keys.x, keys.y, keys.down ? 0.008 : 0.02, 0, 7); // small: the pen is down
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    pen.moveTo(keys.x + 0.02 * dx, keys.y + 0.02 * dy);
    pen.lineTo(keys.x + 0.04 * dx, keys.y + 0.04 * dy);
  }
  pen.stroke();
}

function changed() {
  version += 1;
  byId("undo").disabled = !strokes.length && !cleared;
  byId("clear").disabled = !strokes.length;
  requestAnimationFrame(paint);
  ask();
}

// A point is written as [0.1234,0.5678], and needs up to 18 bytes of the body.
function full() {
  const points = strokes.reduce((sum, stroke) => sum + stroke.length, 0);
  return points >= Math.min(about.max_points, about.max_body / 18 - 100) || strokes.length >= about.max_strokes;
}

function begin(point) {
  if (full()) {
    say(FULL);
    return false;
  }
  cleared = null;
  strokes.push([point]);
  begun += 1;
  changed();
  return true;
}

function extend(point) {
  const stroke = strokes[strokes.length - 1], last = stroke[stroke.length - 1];
  if (Math.hypot(point[0] - last[0], point[1] - last[1]) < NEAR) return;
  stroke.push(point);
  if (stroke.length % 50 === 0 && full()) {
    lift();
    say(FULL);
  }
  changed();
}

function lift() {
  pointer = null;
  keys.down = false;
}

function undo() {
  lift();
  if (strokes.length) strokes.pop();
  else if (cleared) [strokes, cleared] = [cleared, null];
  else return;
  clearings += 1; // an answer on its way is about more than what is left
  say("");
  changed();
}

function clear() {
  lift();
  if (!strokes.length) return;
  [cleared, strokes] = [strokes, []];
  clearings += 1;
  say("");
  changed();
}

function setWidth(value) {
  byId("width").value = value;
  byId("width-text").textContent = `${width()} \u00d7`;
  changed();
}

// -------------------------------------------------------------------------- mouse, finger, keys

const limited = (value) => Math.round(1e4 * Math.min(1.5, Math.max(-0.5, value))) / 1e4;

function place(event) {
  const box = paper.getBoundingClientRect();
  return [limited((event.clientX - box.left) / box.width), limited((event.clientY - box.top) / box.height)];
}

paper.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  lift();
  keys.seen = false;
  if (!begin(place(event))) return;
  pointer = event.pointerId;
  paper.setPointerCapture(pointer); // a stroke may leave the paper and come back
});
paper.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  for (const one of all.length ? all : [event]) if (pointer !== null) extend(place(one));
});
for (const name of ["pointerup", "pointercancel"]) {
  paper.addEventListener(name, (event) => { if (event.pointerId === pointer) lift(); });
}
for (const name of ["focus", "blur"]) paper.addEventListener(name, () => { keys.down = false; paint(); });

paper.addEventListener("keydown", (event) => {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
  if (event.ctrlKey || event.metaKey || event.altKey || pointer !== null || (!dx && !dy && event.key !== " ")) return;
  event.preventDefault();
  keys.seen = true;
  if (event.key === " ") {
    if (!event.repeat) keys.down = !keys.down && begin([limited(keys.x), limited(keys.y)]);
  } else {
    keys.x = Math.min(1, Math.max(0, keys.x + STEP * dx));
    keys.y = Math.min(1, Math.max(0, keys.y + STEP * dy));
    if (keys.down) extend([limited(keys.x), limited(keys.y)]);
  }
  paint();
});

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), modified = event.ctrlKey || event.metaKey;
  if (event.altKey || event.defaultPrevented) return;
  if (modified ? key === "z" && !event.shiftKey : key === "u") undo();
  else if (!modified && (key === "c" || key === "escape")) clear();
  else if (!modified && (key === "+" || key === "=")) setWidth(width() + 0.25);
  else if (!modified && key === "-") setWidth(width() - 0.25);
  else if (!modified && key === "n") next();
  else if (!modified && /^[1-8]$/.test(key) && Number(key) <= about.networks.length) lookInto(Number(key) - 1);
  else return;
  event.preventDefault();
});

byId("undo").addEventListener("click", undo);
byId("clear").addEventListener("click", clear);
byId("width").addEventListener("input", () => setWidth(width()));
