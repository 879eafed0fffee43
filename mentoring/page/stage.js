// What is drawn: the spot in question enlarged with what lies around it, its outline, and the whole
// picture with the enlarged part marked.

const CONTEXT = 2.2; // the enlarged part is so many times as large as the spot
const LARGEST = 10; // screen pixels per picture pixel, at most

const $ = (id) => document.getElementById(id);

export class Stage {
  constructor() {
    this._stage = $("stage");
    this._crop = $("crop");
    this._whole = $("whole");
    this._overlay = $("overlay");
    this._shown = null;
    this.wide = false; // the whole picture instead of the spot
    this.outlined = true;
    this._watch = new ResizeObserver(() => this.draw());
    this._watch.observe(this._stage);
    this._watch.observe($("inset"));
  }

  /** Show a question on its decoded picture. */
  show(question, picture) {
    this._shown = { question, picture };
    this.wide = false;
    this.outlined = true;
    this.draw();
  }

  clear() {
    this._shown = null;
    for (const canvas of [this._crop, this._whole]) canvas.getContext("2d").reset();
    this._outline("");
  }

  draw() {
    if (!this._shown) return;
    const { question, picture } = this._shown;
    const box = this._stage.getBoundingClientRect();
    const view = this.wide || !question.box ? fitting(picture, box) : around(question.box, picture, box);
    paint(this._crop, box, picture, view);
    this._outline(this.outlined ? outlineOf(question.outline, view) : "");
    this._drawWhole(question, picture, box, view);
    if (!question.box) return;
    // where the small whole picture lies on the stage, it keeps off the spot
    const across = ((question.box[0] + question.box[2]) / 2 - view.left) * view.scale;
    document.body.classList.toggle("spot-right", across > box.width / 2);
  }

  _drawWhole(question, picture, box, view) {
    const inset = $("inset");
    const room = inset.clientWidth;
    if (!room) return;
    const scale = Math.min(room / picture.width, room / picture.height);
    const size = { width: Math.round(picture.width * scale), height: Math.round(picture.height * scale) };
    const canvas = this._whole;
    paint(canvas, size, picture, { left: 0, top: 0, scale });
    if (!question.box) return;
    const pen = canvas.getContext("2d");
    const shown = {
      left: Math.max(0, view.left),
      top: Math.max(0, view.top),
      right: Math.min(picture.width, view.left + box.width / view.scale),
      bottom: Math.min(picture.height, view.top + box.height / view.scale),
    };
    // what is not enlarged lies in the dark
    pen.fillStyle = "rgb(10 12 14 / 45%)";
    pen.beginPath();
    pen.rect(0, 0, size.width, size.height);
    const inside = [shown.left, shown.top, shown.right - shown.left, shown.bottom - shown.top].map((v) => v * scale);
    pen.rect(...inside);
    pen.fill("evenodd");
    pen.strokeStyle = "#e6ebf0";
    pen.lineWidth = 1.5;
    pen.strokeRect(...inside);
    const [left, top, right, bottom] = question.box.map((edge) => edge * scale);
    for (const [style, width] of [["rgb(0 0 0 / 80%)", 4], ["#ffe98a", 2]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width;
      pen.strokeRect(left, top, Math.max(3, right - left), Math.max(3, bottom - top));
    }
  }

  _outline(d) {
    for (const path of this._overlay.children) path.setAttribute("d", d);
  }
}

// a view: left and top in picture pixels, and screen pixels per picture pixel

function fitting(picture, box) {
  const scale = Math.min(box.width / picture.width, box.height / picture.height);
  return {
    left: (picture.width - box.width / scale) / 2,
    top: (picture.height - box.height / scale) / 2,
    scale,
  };
}

function around([left, top, right, bottom], picture, box) {
  const least = fitting(picture, box).scale;
  const wanted = Math.min(box.width, box.height) / (CONTEXT * Math.max(right - left, bottom - top, 1));
  const scale = Math.max(least, Math.min(wanted, LARGEST));
  const place = (middle, room, length) =>
    room >= length ? (length - room) / 2 : Math.min(Math.max(middle - room / 2, 0), length - room);
  return {
    left: place((left + right) / 2, box.width / scale, picture.width),
    top: place((top + bottom) / 2, box.height / scale, picture.height),
    scale,
  };
}

function paint(canvas, size, picture, view) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(size.width * ratio));
  canvas.height = Math.max(1, Math.round(size.height * ratio));
  canvas.style.width = `${size.width}px`;
  canvas.style.height = `${size.height}px`;
  const pen = canvas.getContext("2d", { alpha: false });
  pen.fillStyle = "#0a0c0e";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, -view.left * view.scale * ratio, -view.top * view.scale * ratio);
  pen.imageSmoothingEnabled = true;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, 0, 0);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
}

/** The outer edge of all cells together, as an SVG path on the screen. */
export function outlineOf(cells, view) {
  const edges = new Map();
  const key = (...numbers) => numbers.map((n) => Math.round(n * 4)).join(",");
  for (const [left, top, right, bottom] of cells) {
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    corners.forEach((from, n) => {
      const to = corners[(n + 1) % 4];
      // an edge that two cells share runs once each way: both go
      if (!edges.delete(key(...to, ...from))) edges.set(key(...from, ...to), [from, to]);
    });
  }
  const starts = new Map();
  for (const edge of edges.values()) {
    const at = key(...edge[0]);
    starts.set(at, [...(starts.get(at) ?? []), edge]);
  }
  const on = ([x, y]) => `${((x - view.left) * view.scale).toFixed(1)} ${((y - view.top) * view.scale).toFixed(1)}`;
  let path = "";
  for (const first of edges.values()) {
    let edge = take(starts, key(...first[0]), first);
    if (!edge) continue;
    path += `M${on(edge[0])}`;
    while (edge) {
      const next = take(starts, key(...edge[1]));
      path += next ? `L${on(edge[1])}` : "Z";
      edge = next;
    }
  }
  return path;
}

function take(starts, at, wanted) {
  const list = starts.get(at) ?? [];
  const n = wanted ? list.indexOf(wanted) : 0;
  return n < 0 ? undefined : list.splice(n, 1)[0];
}
