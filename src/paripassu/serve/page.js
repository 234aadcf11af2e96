// Strokes become a picture, the picture a question; answers come while drawing.

const PEN = 0.078; // width of a line, in widths of the sheet
const SENT = 140; // pixels of the picture that is sent
const STEPS = 20; // of the keyboard's pen from edge to edge

const $ = (id) => document.getElementById(id);
const sheet = $("sheet");
const sentCanvas = document.createElement("canvas");
sentCanvas.width = sentCanvas.height = SENT;
const sent = sentCanvas.getContext("2d", { willReadFrequently: true });

let strokes = []; // each a list of points, 0..1
let before = []; // what `strokes` was, for undo
let pointer = null; // that draws now
let line = null; // its stroke, or the keyboard's
const pen = { x: STEPS / 2, y: STEPS / 2, down: false, shown: false };

// ---- drawing

function trace(context, points) {
  context.beginPath();
  context.moveTo(...points[0]);
  for (let i = 1; i < points.length - 1; i++) {
    const [x, y] = points[i];
    const [nextX, nextY] = points[i + 1];
    context.quadraticCurveTo(x, y, (x + nextX) / 2, (y + nextY) / 2);
  }
  context.lineTo(...points[points.length - 1]);
  context.stroke();
}

function paint(context, size, ink) {
  context.setTransform(size, 0, 0, size, 0, 0);
  context.lineWidth = PEN;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = context.fillStyle = ink;
  for (const points of strokes) {
    if (points.length > 1) {
      trace(context, points);
    } else {
      context.beginPath();
      context.arc(...points[0], PEN / 2, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

function draw() {
  const size = sheet.width;
  const context = sheet.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, size, size);
  const style = getComputedStyle(document.documentElement);
  paint(context, size, style.getPropertyValue("--ink"));
  if (pen.shown) {
    context.lineWidth = 0.008;
    context.strokeStyle = style.getPropertyValue(pen.down ? "--s0" : "--s1");
    context.beginPath();
    context.arc(pen.x / STEPS, pen.y / STEPS, PEN / 2 + 0.012, 0, 2 * Math.PI);
    context.stroke();
  }
  $("hint").hidden = strokes.length > 0 || pen.shown;
  $("undo").setAttribute("aria-disabled", before.length === 0);
  $("clear").setAttribute("aria-disabled", strokes.length === 0);
}

function begin(point) {
  before.push(strokes);
  line = [point];
  strokes = [...strokes, line];
  changed();
}

function lengthen(points) {
  line.push(...points);
  changed();
}

function undo() {
  if (before.length === 0) return;
  lift();
  strokes = before.pop();
  changed();
}

function clear() {
  if (strokes.length === 0) return;
  lift();
  before.push(strokes);
  strokes = [];
  changed();
}

function lift() {
  pointer = line = null;
  pen.down = false;
}

function changed() {
  draw();
  ask();
}

// ---- mouse, finger, pen

function place(event) {
  const box = sheet.getBoundingClientRect();
  return [
    (event.clientX - box.left) / box.width,
    (event.clientY - box.top) / box.height,
  ];
}

sheet.addEventListener("pointerdown", (event) => {
  if (pointer !== null || event.button !== 0) return;
  sheet.setPointerCapture(event.pointerId);
  lift();
  pen.shown = false;
  pointer = event.pointerId;
  begin(place(event));
});

sheet.addEventListener("pointermove", (event) => {
  if (event.pointerId !== pointer) return;
  const events = event.getCoalescedEvents?.() ?? [];
  lengthen((events.length ? events : [event]).map(place));
});

for (const kind of ["pointerup", "pointercancel"]) {
  sheet.addEventListener(kind, (event) => {
    if (event.pointerId === pointer) lift();
  });
}

// ---- keyboard

const MOVES = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
  Home: [-1, -1],
  PageUp: [1, -1],
  End: [-1, 1],
  PageDown: [1, 1],
};

sheet.addEventListener("focus", () => {
  pen.shown = sheet.matches(":focus-visible");
  draw();
});

sheet.addEventListener("blur", () => {
  pen.shown = false;
  if (pen.down) lift();
  draw();
});

sheet.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || pointer !== null) return;
  if (event.key in MOVES) {
    move(MOVES[event.key], event.shiftKey ? 5 : 1);
  } else if (event.key === " " || event.key === "Enter") {
    if (event.repeat) return;
    pen.shown = true;
    if (pen.down) {
      lift();
      draw();
    } else {
      begin([pen.x / STEPS, pen.y / STEPS]);
      pen.down = true;
      draw();
    }
  } else if (event.key === "Escape" && pen.down) {
    lift();
    draw();
  } else if (event.key === "Backspace") {
    undo();
  } else if (event.key === "Delete") {
    clear();
  } else {
    return;
  }
  event.preventDefault();
  saySpot();
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !event.shiftKey) {
    event.preventDefault();
    undo();
  }
});

function move([right, down], length) {
  pen.shown = true;
  const inside = (value) => Math.min(STEPS, Math.max(0, value));
  for (let i = 0; i < length; i++) {
    pen.x = inside(pen.x + right);
    pen.y = inside(pen.y + down);
    if (pen.down) line.push([pen.x / STEPS, pen.y / STEPS]);
  }
  if (pen.down) changed();
  else draw();
}

let spotTimer = 0;
function saySpot() {
  clearTimeout(spotTimer);
  spotTimer = setTimeout(() => {
    const where = `column ${pen.x}, row ${pen.y} of ${STEPS}`;
    $("spot").textContent = `pen ${pen.down ? "down" : "up"}, ${where}`;
  }, 150);
}

$("undo").addEventListener("click", undo);
$("clear").addEventListener("click", clear);

// ---- questions and answers

let asking = false;
let again = false;

async function ask() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  $("answers").setAttribute("aria-busy", "true");
  do {
    again = false;
    if (strokes.length) await askOnce();
    if (!strokes.length) forget();
  } while (again);
  asking = false;
  $("answers").setAttribute("aria-busy", "false");
}

function picture() {
  sent.setTransform(1, 0, 0, 1, 0, 0);
  sent.fillStyle = "#000";
  sent.fillRect(0, 0, SENT, SENT);
  paint(sent, SENT, "#fff");
  const text = atob(sentCanvas.toDataURL("image/png").split(",")[1]);
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

async function askOnce() {
  const start = performance.now();
  let seconds = 2; // until it is worth while to ask again
  try {
    const response = await fetch("/predict", {
      method: "POST",
      headers: { "Content-Type": "image/png" },
      body: picture(),
    });
    const answer = await response.json();
    if (response.ok) {
      show(answer, performance.now() - start);
      return;
    }
    $("message").textContent = answer.detail;
    if (response.status < 500) return;
    seconds = Math.min(5, Number(response.headers.get("Retry-After") ?? seconds));
  } catch {
    $("message").textContent = "The server does not answer. Asking again.";
  }
  await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
  again = true;
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const milliseconds = (time) => `${time.toFixed(time < 10 ? 1 : 0)} ms`;

function scientific(value) {
  if (value === 0) return "0";
  if (value >= 0.001) return value.toPrecision(2);
  const [digits, exponent] = value.toExponential(1).split("e-");
  return `${digits} × 10⁻${[...exponent].map((x) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[x]).join("")}`;
}

function fill(attribute, key, text) {
  document.querySelector(`[data-${attribute}="${key}"]`).textContent = text;
}

function show(answer, trip) {
  const { answers, agree, largest_difference: gap } = answer.predictions[0];
  const best = new Set(answers.map((x) => x.digit));
  for (const { model, digit, probabilities } of answers) {
    fill("digit", model, digit);
    fill("sure", model, percent(probabilities[digit]));
    fill("time", model, milliseconds(answer.milliseconds[model]));
    probabilities.forEach((share, i) => {
      fill("share", `${model}/${i}`, percent(share));
      const bar = document.querySelector(`[data-bar="${model}/${i}"]`);
      bar.style.setProperty("--share", share);
    });
  }
  for (const row of document.querySelectorAll("[data-row]")) {
    row.classList.toggle("best", best.has(Number(row.dataset.row)));
  }
  if (answers.length > 1) {
    const places = Math.min(7, Math.floor(-Math.log10(2 * gap))); // of float32
    $("sign").textContent = agree ? "=" : "≠";
    $("difference").textContent = scientific(gap);
    $("meaning").textContent =
      places > 2 ? `same to ${places} decimals` : agree ? "same digit" : "they disagree";
  }
  $("trip").textContent = milliseconds(trip);
  $("message").textContent = "";
  const doubts = answer.doubts.join("; ");
  $("doubts").textContent = doubts && `It may be no digit: ${doubts}.`;
  see(answer.image);
  speak(answers, gap);
}

function see(rows) {
  const context = $("seen").getContext("2d");
  const data = context.createImageData(28, 28);
  rows.flat().forEach((grey, i) => data.data.set([grey, grey, grey, 255], 4 * i));
  context.putImageData(data, 0, 0);
  $("seen").setAttribute("aria-label", "The image that the network sees: your digit");
}

function forget() {
  const empty = { digit: "\u00a0", sure: "\u00a0", time: "–", share: "–" };
  for (const [name, text] of Object.entries(empty)) {
    for (const place of document.querySelectorAll(`[data-${name}]`)) {
      place.textContent = text;
    }
  }
  for (const bar of document.querySelectorAll("[data-bar]")) {
    bar.style.setProperty("--share", 0);
  }
  for (const row of document.querySelectorAll(".best")) row.classList.remove("best");
  for (const [id, text] of [["sign", "\u00a0"], ["difference", "–"], ["meaning", "\u00a0"]]) {
    if ($(id)) $(id).textContent = text;
  }
  $("trip").textContent = "–";
  $("message").textContent = $("doubts").textContent = "";
  $("seen").getContext("2d").clearRect(0, 0, 28, 28);
  $("seen").setAttribute("aria-label", "The image that the network sees: nothing yet");
  clearTimeout(speakTimer);
  $("spoken").textContent = "The sheet is empty.";
}

let speakTimer = 0;
function speak(answers, gap) {
  clearTimeout(speakTimer);
  speakTimer = setTimeout(() => {
    const found = answers.map(({ model, digit, probabilities }) => {
      const title = document.querySelector(`[data-digit="${model}"]`).dataset.title;
      return `${title}: ${digit}, ${percent(probabilities[digit])}.`;
    });
    if (answers.length > 1) found.push(`Largest difference ${scientific(gap)}.`);
    $("spoken").textContent = found.join(" ");
  }, 700);
}

// ---- the sheet's size and colours

new ResizeObserver(() => {
  const size = Math.round(sheet.clientWidth * devicePixelRatio);
  if (size && size !== sheet.width) sheet.width = sheet.height = size;
  draw();
}).observe(sheet);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
