// The explorer: a map of test images, sliders, and what the decoder makes of the code that they choose.
// decoder.js is above. Without a decoder (data.live is null) there is a sheet of pictures of the map's places.
const element = id => document.getElementById(id);
const data = JSON.parse(element("explorer-data").textContent);
const map = element("map"), sheet = element("sheet"), sprite = element("sprite"), count = data.places.length;
const size = data.origin.length, codes = new Float32Array(bytesOf(data.codes).buffer);
const codeOf = i => Array.from(codes.subarray(i * size, (i + 1) * size));
const dot = (a, b) => a.reduce((sum, v, k) => sum + v * b[k], 0);
const minus = (a, b) => a.map((v, k) => v - b[k]);
const mixed = (a, b, t) => a.map((v, k) => (1 - t) * v + t * b[k]);
const STEPS = 9, NEAREST = 5, CLOSE = 0.02;

let decode = data.live ? decoderOf(data.live) : null;
let shown = new Set(), pinned = false, start = null, path = null;  // classes, and an interpolation's first place
const place = { x: 0.5, y: 0.5, image: null };  // on the map; the test image that is there
let code = codeAt(place.x, place.y);

function interpolated(t, edges) {
  const at = Math.min(edges.length - 1.001, Math.max(0, t * (edges.length - 1))), k = Math.floor(at);
  return edges[k] + (at - k) * (edges[k + 1] - edges[k]);
}

function codeAt(x, y) {
  const a = interpolated(x, data.edges[0]), b = interpolated(1 - y, data.edges[1]);
  return data.origin.map((v, k) => v + a * data.basis[0][k] + b * data.basis[1][k]);
}

function placeOf(some) {  // on the map, of a code
  const along = data.basis.map(axis => dot(minus(some, data.origin), axis));
  const [x, y] = along.map((v, axis) => {
    const edges = data.edges[axis], last = edges.length - 1;
    if (v <= edges[0]) return 0;
    if (v >= edges[last]) return 1;
    let k = 0;
    while (edges[k + 1] < v) k++;
    return (k + (v - edges[k]) / (edges[k + 1] - edges[k])) / last;
  });
  return { x, y: 1 - y };
}

function nearestOnMap(x, y, within) {
  let best = null, least = within ** 2;
  data.places.forEach(([px, py], i) => {
    const distance = (px - x) ** 2 + (py - y) ** 2;
    if (distance < least && (!shown.size || shown.has(data.labels[i]))) { least = distance; best = i; }
  });
  return best;
}

function neighbours(of) {  // test images by the distance of their codes
  const here = codeOf(of), distances = [];
  for (let i = 0; i < count; i++) {
    let sum = 0;
    for (let k = 0; k < size; k++) sum += (codes[i * size + k] - here[k]) ** 2;
    if (i !== of) distances.push([sum, i]);
  }
  return distances.sort((a, b) => a[0] - b[0]).slice(0, NEAREST).map(pair => pair[1]);
}

// ---- pictures ----

const [, , decodedHeight, decodedWidth] = data.live ? data.live.steps[data.live.output].shape : [1, 1, data.height, data.width];

function paint(canvas, numbers) {  // (C, H, W) in [0, 1]
  const area = decodedHeight * decodedWidth, channels = numbers.length / area, image = new ImageData(decodedWidth, decodedHeight);
  for (let i = 0; i < area; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = Math.round(255 * Math.min(1, Math.max(0, numbers[i + (channels === 3 ? c * area : 0)])));
    image.data[4 * i + 3] = 255;
  }
  canvas.width = decodedWidth; canvas.height = decodedHeight;
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function paintFrom(canvas, picture, columns, index) {
  canvas.width = data.width; canvas.height = data.height;
  canvas.getContext("2d").drawImage(picture, index % columns * data.width, Math.floor(index / columns) * data.height, data.width, data.height, 0, 0, data.width, data.height);
}

function paintCode(canvas, some) {
  if (decode) return paint(canvas, decode(some));
  const { x, y } = placeOf(some), cell = t => Math.min(data.side - 1, Math.floor(t * data.side));
  paintFrom(canvas, sprite, data.side, cell(y) * data.side + cell(x));
}

const named = i => data.classes[data.labels[i]] ?? "";

function picture(parent, text) {
  const figure = document.createElement("figure"), canvas = document.createElement("canvas"), caption = document.createElement("figcaption");
  canvas.role = "img"; canvas.ariaLabel = caption.textContent = text;
  figure.append(canvas, caption); parent.append(figure);
  return canvas;
}

function drawMap() {
  const pen = map.getContext("2d"), side = map.width, at = t => t * side;
  pen.clearRect(0, 0, side, side);
  data.places.forEach(([x, y], i) => {
    pen.globalAlpha = shown.size && !shown.has(data.labels[i]) ? 0.08 : 0.9;
    pen.fillStyle = data.colours[data.labels[i]] ?? "#3f90da";
    pen.beginPath(); pen.arc(at(x), at(y), 6, 0, 7); pen.fill();
  });
  pen.globalAlpha = 1; pen.strokeStyle = getComputedStyle(map).color; pen.lineWidth = 3;
  const line = path ?? (start && { from: start, to: place });
  if (line) { pen.beginPath(); pen.moveTo(at(line.from.x), at(line.from.y)); pen.lineTo(at(line.to.x), at(line.to.y)); pen.stroke(); }
  pen.beginPath(); pen.arc(at(place.x), at(place.y), 11, 0, 7); pen.stroke();
}

function drawSliders() {
  const off = minus(code, data.mean);
  data.directions.forEach((direction, k) => {
    const value = data.deviations[k] ? dot(off, direction) / data.deviations[k] : 0;
    sliders[k].value = value;
    sliders[k].nextElementSibling.textContent = value.toFixed(1).replace("-0.0", "0.0");
  });
}

function drawImage() {
  const found = element("found"), i = place.image;
  found.replaceChildren();
  if (i === null) { element("said").textContent = pinned ? "held; click the map to release" : "no test image here"; return; }
  element("said").textContent = `test image ${i}${named(i) && `, ${named(i)}`}${pinned ? " (held)" : ""}, and its neighbours in the code`;
  paintFrom(picture(found, "itself"), sheet, data.columns, i);
  if (decode) paintCode(picture(found, "decoded"), codeOf(i));
  for (const near of neighbours(i)) paintFrom(picture(found, named(near) || `image ${near}`), sheet, data.columns, near);
}

function drawPath() {
  const strip = element("path");
  strip.replaceChildren();
  if (!path) return;
  for (let k = 0; k < STEPS; k++) paintCode(picture(strip, `${Math.round(100 * k / (STEPS - 1))} %`), mixed(path.from.code, path.to.code, k / (STEPS - 1)));
}

let due = false;  // all is drawn at most so often
function draw() {
  if (due) return;
  due = true;
  setTimeout(() => {
    due = false;
    drawMap(); drawSliders(); drawImage();
    paintCode(element("decoded"), code);
    element("decoded").dataset.code = JSON.stringify(code);
  }, 15);
}

// ---- what one does ----

function moveTo(x, y) {
  place.x = Math.min(1, Math.max(0, x)); place.y = Math.min(1, Math.max(0, y));
  place.image = nearestOnMap(place.x, place.y, 0.012);
  code = place.image === null ? codeAt(place.x, place.y) : codeOf(place.image);
  draw();
}

// The ends of an interpolation are the nearest test images' codes, or places of the map where none is near.
function end() {
  const image = place.image ?? nearestOnMap(place.x, place.y, 0.03);
  return { x: place.x, y: place.y, code: image === null ? code : codeOf(image) };
}

function finish() {
  path = { from: start, to: end() };
  start = null;
  drawPath(); draw();
}

const positionOf = event => {
  const box = map.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
let pressed = null;
map.addEventListener("pointerdown", event => {
  map.setPointerCapture(event.pointerId);
  const [x, y] = positionOf(event);
  const held = pinned;
  pinned = false;
  moveTo(x, y);
  pressed = { x, y, held, from: end() };
});
map.addEventListener("pointermove", event => {
  const [x, y] = positionOf(event);
  if (pressed && !start && Math.hypot(x - pressed.x, y - pressed.y) > 0.03) { path = null; start = pressed.from; drawPath(); }
  if (!pinned) moveTo(x, y);
});
map.addEventListener("pointerup", () => {
  if (start) finish();
  else if (pressed) { pinned = !pressed.held; draw(); }
  pressed = null;
});
map.addEventListener("pointercancel", () => { pressed = start = null; draw(); });
map.addEventListener("keydown", event => {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (step) {
    pinned = false;
    moveTo(place.x + step[0] / 100, place.y + step[1] / 100);
  } else if (event.key === "Enter") {
    if (start) finish(); else { path = null; start = end(); drawPath(); draw(); }
  } else if (event.key === "Escape") {
    path = start = null; pinned = false; drawPath(); draw();
  } else return;
  event.preventDefault();
});

const sliders = data.directions.map((direction, k) => {
  const label = document.createElement("label"), slider = document.createElement("input"), value = document.createElement("output");
  Object.assign(slider, { type: "range", min: -3.5, max: 3.5, step: 0.1, value: 0 });
  label.append(`direction ${k + 1}`, slider, value);
  element("sliders").append(label);
  slider.addEventListener("input", () => {
    const by = (slider.valueAsNumber - dot(minus(code, data.mean), direction) / (data.deviations[k] || 1)) * data.deviations[k];
    code = code.map((v, index) => v + by * direction[index]);
    Object.assign(place, placeOf(code), { image: null });
    pinned = true;
    draw();
  });
  return slider;
});
element("mean").addEventListener("click", () => { code = [...data.mean]; Object.assign(place, placeOf(code), { image: null }); pinned = true; draw(); });

data.classes.forEach((name, label) => {
  const button = document.createElement("button"), dotted = document.createElement("i");
  dotted.style.background = data.colours[label];
  button.append(dotted, name); button.ariaPressed = false;
  button.addEventListener("click", () => {
    if (!shown.delete(label)) shown.add(label);
    button.ariaPressed = shown.has(label);
    draw();
  });
  element("legend").append(button);
});

// ---- how near the decoder of this page is to the model's ----

if (decode) {
  const wanted = new Float32Array(bytesOf(data.checked).buffer), each = decodedHeight * decodedWidth * data.channels;
  let largest = 0, took = performance.now();
  for (let i = 0; i * each < wanted.length; i++) {
    const got = decode(codeOf(i));
    for (let k = 0; k < each; k++) largest = Math.max(largest, Math.abs(got[k] - wanted[i * each + k])) || Infinity;
  }
  took = (performance.now() - took) / (wanted.length / each);
  const near = largest <= CLOSE;
  element("check").dataset.difference = largest;
  element("check").textContent = `Checked in this browser just now: a pixel differs by at most ${largest.toPrecision(1)} (of 1) from the model's`
    + (near ? `; an image takes ${took.toFixed(0)} ms.` : ", which is too much: don't trust what is decoded here.");
}
drawPath();
const first = nearestOnMap(0.5, 0.5, 2);
moveTo(...data.places[first]);
for (const picture of [sheet, sprite]) picture?.decode().then(draw);
