"use strict";
// What enters the layers of one network: bits, or real numbers beside their signs.

let layersShown = []; // kept, to be drawn again where the width of the page changes
const WORST = 1.5; // the E at which its bar is full
const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

function showInput({ height, width, pixels }) {
  const canvas = byId("input"), ink = bytes(pixels);
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  ink.forEach((value, k) => image.data.set([255 - value, 255 - value, 255 - value, 255], 4 * k));
  canvas.getContext("2d").putImageData(image, 0, 0);
  byId("input-text").textContent = `What the network sees: ${width} \u00d7 ${height} pixels of the middle`;
}

function showInside(answer) {
  showInput(answer.input);
  layersShown = answer.layers;
  paintLayers();
}

function showNothingInside() {
  byId("input").getContext("2d").clearRect(0, 0, byId("input").width, byId("input").height);
  layersShown = [];
  byId("layers").replaceChildren(element("p", "", "Draw something, and it appears here."));
}

function paintLayers() {
  const box = byId("layers");
  if (!layersShown.length) return box.replaceChildren(element("p", "", "No layer of this network may be binary."));
  while (box.children.length > layersShown.length || box.firstElementChild?.tagName === "P") box.lastChild.remove();
  layersShown.forEach((layer, k) => {
    if (!box.children[k]) {
      const made = element("div", "layer");
      made.append(element("h3", ""), document.createElement("canvas"));
      made.lastChild.setAttribute("role", "img");
      box.append(made);
    }
    titleLayer(layer, box.children[k].firstChild);
    paintLayer(layer, box.children[k].lastChild, box.clientWidth);
  });
}

function titleLayer(layer, title) {
  const { name, inputs, height, width, channels, maps, error } = layer;
  const shown = maps.length < channels ? `the first ${maps.length} of ${channels}` : `${maps.length}`;
  const what = inputs === "real" ? "real inputs" : "bits";
  const share = `${(100 * layer.ones).toFixed(0)} % ${inputs === "real" ? "would be" : "are"} +1`;
  title.replaceChildren(
    element("strong", "", name), ` takes ${what}: ${shown} channels, ${height} \u00d7 ${width}, ${share}`);
  if (error === null) return;
  const meter = element("span", "error"), length = element("i", "");
  length.style.width = `${Math.min(100, 100 * error / WORST)}%`;
  meter.append(length);
  meter.setAttribute("aria-hidden", "true");
  title.append(`, E = ${error.toFixed(2)} `, meter);
}

// One channel, the colours of its values, as a canvas of one pixel each.
function stamp(grey, height, width) {
  const one = document.createElement("canvas"), small = one.getContext("2d");
  [one.width, one.height] = [width, height];
  const image = small.createImageData(width, height);
  grey.forEach((level, i) => image.data.set([level, level, level, 255], 4 * i));
  small.putImageData(image, 0, 0);
  return one;
}

function unpacked(text, count) {
  const packed = bytes(text);
  return Array.from({ length: count }, (_, i) => ((packed[i >> 3] >> (7 - (i & 7))) & 1 ? 0 : 255));
}

// The pictures of a layer: for each channel its signs, with its values before them where there are any. Channels of one
// value each make one picture together, 16 wide.
function pictures({ height, width, maps, levels }) {
  const signs = maps.map((text) => unpacked(text, height * width));
  const values = levels && levels.map((text) => Array.from(bytes(text), (level) => 255 - level));
  if (height * width > 1) return signs.map((one, k) => (values ? [values[k], one] : [one]).map((g) => stamp(g, height, width)));
  const across = 16, down = Math.ceil(maps.length / across);
  const together = (list) => stamp(list.flat(), down, across);
  return [(values ? [values, signs] : [signs]).map(together)];
}

function paintLayer(layer, canvas, room) {
  const all = pictures(layer), gap = 2, apart = layer.levels ? 6 : 0, { width, height } = all[0][0];
  const wanted = Math.round((all.length === 1 ? 160 : room < 500 ? 40 : 56) / width);
  const scale = Math.min(14, Math.max(1, wanted)); // screen pixels a value, a whole number
  const one = scale * width + gap, across = all[0].length * one + apart, down = scale * height + gap + apart;
  const rows = Math.ceil(all.length / Math.max(1, Math.floor((room - gap) / across)));
  const columns = Math.ceil(all.length / rows); // rows of equal length
  canvas.width = columns * across + gap - apart;
  canvas.height = rows * down + gap - apart;
  canvas.dataset.scale = scale;
  const sheet = canvas.getContext("2d");
  sheet.imageSmoothingEnabled = false;
  sheet.fillStyle = "#a9bfd3"; // neither black nor white
  all.forEach((pair, k) => {
    const x = (k % columns) * across, y = Math.floor(k / columns) * down;
    sheet.fillRect(x, y, pair.length * one + gap, scale * height + 2 * gap);
    pair.forEach((map, m) => sheet.drawImage(map, x + m * one + gap, y + gap, scale * width, scale * height));
  });
  canvas.setAttribute("aria-label", layer.levels
    ? `Feature maps that enter ${layer.name}, each beside its signs` : `Feature maps that enter ${layer.name}`);
}

new ResizeObserver(() => { paint(); if (layersShown.length) paintLayers(); }).observe(byId("maps"));
