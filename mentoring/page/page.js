// The operator's page: one question at a time, answered by one key.
//
// Nothing here waits for the network: a key changes the picture, the answer goes to the outbox, and
// the outbox to the hub when it can.

import { Ahead, keyOf } from "./ahead.js";
import { Outbox } from "./outbox.js";
import { Stage } from "./stage.js";

const PAGE = "mentoring/1";
const TOO_SOON_MS = 250; // such an answer was meant for the picture before
const KEPT = 40; // answers that can be taken back
const IDLE_MS = 3000;
const NUMBERED = 9; // classes that have a key

const $ = (id) => document.getElementById(id);
// classes that say nothing of the kind of defect; of a model of good parts alone the one class is novelty
const PLAIN = { defect: "Is this really a defect?", novelty: "Unlike the good parts: is it a defect?" };
const WORDS = { confirm: "Defect", infirm: "False alarm", unsure: "Unsure" };
const MARKS = {
  confirm: "M5 12.500l4.700 4.700L19.500 7.500",
  infirm: "M6 6l12 12M18 6L6 18",
  unsure: "M8.500 9a3.500 3.500 0 1 1 5.200 3.100c-1.100.6-1.700 1.300-1.700 2.400M12 18.500v.1",
};

// crypto.randomUUID needs a secure context, which plain http in a plant is not
const uuid = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
};

const kept = {
  read: (store, key, otherwise) => {
    try {
      return JSON.parse(store.getItem(key)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  write: (store, key, value) => {
    try {
      store.setItem(key, JSON.stringify(value));
    } catch {
      // a convenience of this visit alone; the answers themselves are in the outbox
    }
  },
};

// ---- who and where

const fragment = new URLSearchParams(location.hash.slice(1));
for (const name of ["token", "operator"]) {
  const given = fragment.get(name);
  if (given) kept.write(name === "token" ? sessionStorage : localStorage, `mentoring-${name}`, given);
}
if (location.hash) history.replaceState(null, "", location.pathname); // the token does not stay in sight

let token = kept.read(sessionStorage, "mentoring-token", "");
let operator = kept.read(localStorage, "mentoring-operator", "");
const computer = kept.read(localStorage, "mentoring-device", null) ?? uuid().slice(0, 8);
kept.write(localStorage, "mentoring-device", computer);
// a reload keeps its name and so its questions; a duplicated tab finds the first one alive and takes another
const alive = kept.read(sessionStorage, "mentoring-alive", false);
const tab = (!alive && kept.read(sessionStorage, "mentoring-tab", null)) || uuid().slice(0, 8);
kept.write(sessionStorage, "mentoring-tab", tab);
addEventListener("pageshow", () => kept.write(sessionStorage, "mentoring-alive", true));
const device = `web-${computer}-${tab}`;

const call = (path, options = {}) =>
  fetch(path, { ...options, headers: { ...options.headers, Authorization: `Bearer ${token}` } });

const outbox = new Outbox(
  (answers, signal) =>
    call("/v1/answers", {
      method: "POST",
      signal,
      body: JSON.stringify(answers),
      headers: { "Content-Type": "application/json" },
    }),
  () => showState(),
);
const ahead = new Ahead(call, device, () => continueIfIdle());
const stage = new Stage();

// ---- what happens

let past = kept.read(sessionStorage, "mentoring-past", []);
let tally = kept.read(sessionStorage, "mentoring-tally", { confirm: 0, infirm: 0, unsure: 0 });
let paintedAt = null; // null: nothing to answer is on the screen
let turn = 0; // counts questions shown, so that a late picture does not replace a newer one

async function showCurrent() {
  const question = ahead.current;
  const mine = ++turn;
  painted(null);
  if (!question) return showIdle();
  setView("asking");
  showPrompt(question);
  const slow = ahead.ready(question) ? 0 : setTimeout(() => mine === turn && stageBusy(true), 120);
  try {
    const picture = await ahead.picture(question);
    if (mine !== turn) return;
    stage.show(question, picture);
    $("hide").setAttribute("aria-pressed", "false");
    stageBusy(false);
    // painted: the frame after the one that draws it
    requestAnimationFrame(() => requestAnimationFrame(() => mine === turn && painted(performance.now())));
  } catch (error) {
    if (mine !== turn) return;
    if (error.status === 404 || error.name === "InvalidStateError") {
      // gone at the hub, or no picture after all: nobody can answer it
      ahead.leaveOut(question);
      hint("A picture could not be read and is left out");
      return next();
    }
    stage.clear();
    setNote("away", "The picture is not here yet", "The hub does not answer just now. It is tried again by itself.");
    setTimeout(() => mine === turn && showCurrent(), 1500);
  } finally {
    clearTimeout(slow);
  }
}

function painted(at) {
  paintedAt = at;
  if (at === null) delete document.body.dataset.painted;
  else document.body.dataset.painted = at; // for whoever drives this page by machine
}

function next() {
  ahead.advance();
  void showCurrent();
}

function answer(says, kind = null) {
  if (document.body.dataset.view !== "asking") return;
  const after = paintedAt === null ? 0 : performance.now() - paintedAt;
  if (paintedAt === null || after < TOO_SOON_MS) return tooSoon();
  const question = ahead.current;
  const other = kind === question.class ? null : kind;
  const given = said(question, says, Math.round(after), null, other);
  past = [...past, { question, id: given.id, says, kind: other }].slice(-KEPT);
  tally[says] += 1;
  ahead.answered.set(keyOf(question), given.id);
  if (ahead.open) ahead.open -= 1;
  flash(says);
  keep(given);
  next();
}

/** A defect is there, and it is of that class, whichever was asked about. */
function answerKind(number) {
  const kind = ahead.current?.classes?.[number];
  if (kind !== undefined && !$("kinds").hidden) answer("confirm", kind);
}

function takeBack() {
  const last = past.at(-1);
  if (!last || document.body.dataset.view === "welcome") return;
  past = past.slice(0, -1);
  tally[last.says] = Math.max(0, tally[last.says] - 1);
  ahead.answered.delete(keyOf(last.question));
  if (ahead.open !== null) ahead.open += 1;
  keep(said(last.question, "unsure", 0, last.id));
  hint("Taken back");
  ahead.again(last.question);
  void showCurrent();
}

function said(question, says, after_ms, withdraws, other = null) {
  return {
    schema: "answer/1",
    id: uuid(),
    item: question.item,
    question: question.question,
    answer: says,
    class: other,
    operator,
    device,
    answered_at: new Date().toISOString(),
    after_ms,
    page: PAGE,
    withdraws,
  };
}

function keep(given) {
  void outbox.add(given);
  kept.write(sessionStorage, "mentoring-past", past);
  kept.write(sessionStorage, "mentoring-tally", tally);
  showState();
}

function continueIfIdle() {
  if (ahead.reached === "locked") return welcome("The hub does not know this token.");
  if (ahead.reached && outbox.state === "away") outbox.retry();
  if (!ahead.current && ahead.queue.length && document.body.dataset.view !== "welcome") next();
  else if (!ahead.current) showIdle();
  showState();
}

// ---- what is seen

function setView(view) {
  document.body.dataset.view = view;
  $("note").hidden = view === "asking";
  for (const says of Object.keys(WORDS)) $(says).disabled = view !== "asking";
  $("hide").disabled = view !== "asking";
}

function setNote(kind, title, text) {
  document.body.dataset.view = "note";
  setView("note");
  $("note").dataset.kind = kind;
  $("note-title").textContent = title;
  $("note-text").textContent = text;
  stageBusy(false);
}

function showIdle() {
  if (document.body.dataset.view === "welcome") return;
  turn += 1;
  painted(null);
  stage.clear();
  $("title").textContent = "";
  $("meta").textContent = "";
  if (ahead.reached === false) {
    setNote("away", "Waiting for the hub", "It does not answer just now. Your answers are kept here and sent when it is back.");
  } else if (ahead.reached === null) {
    setView("loading");
  } else if (ahead.elsewhere) {
    setNote("done", "The rest is with others", `${ahead.elsewhere} open, all of them on another screen just now.`);
  } else {
    setNote("done", "All answered", "New frames appear here by themselves.");
  }
}

function showPrompt(question) {
  const whole = question.question === null;
  document.body.classList.toggle("whole", whole);
  const title = $("title");
  if (whole) {
    title.textContent = "Is there a defect anywhere in this picture?";
  } else {
    const name = document.createElement("em");
    name.textContent = question.class;
    const plain = PLAIN[question.class.toLowerCase()];
    title.replaceChildren(...(plain ? [plain] : ["Is this really ", name, "?"]));
  }
  const when = new Date(question.captured_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const spot = question.of > 1 ? [`spot ${question.question + 1} of ${question.of}`] : [];
  const again = question.again ? ["taken back, answer again"] : [];
  $("meta").textContent = [question.station, question.camera, when, ...spot, ...again].join("  ·  ");
  for (const label of document.querySelectorAll(".says[data-whole]")) {
    label.dataset.spot ??= label.textContent;
    label.textContent = whole ? label.dataset.whole : label.dataset.spot;
  }
  const classes = (question.classes ?? []).slice(0, NUMBERED);
  $("kinds").hidden = classes.length < 2;
  $("kinds").replaceChildren(...classes.map((kind, number) => kindButton(kind, number, kind === question.class)));
}

function kindButton(kind, number, asked) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-keyshortcuts", String(number + 1));
  button.setAttribute("aria-current", String(asked));
  const key = document.createElement("kbd");
  key.textContent = String(number + 1);
  button.append(key, kind);
  button.addEventListener("click", () => answerKind(number));
  return button;
}

function showState() {
  const { unsent, keeping, refused, state, durable } = outbox;
  const away = state === "away" || ahead.reached === false;
  // "3 not yet sent" says that the three outlive a power cut, "All saved" that the disk was looked at
  const opening = state === "opening";
  const rest = away ? "Hub away" : opening ? "Opening…" : "All saved";
  $("sync-text").textContent = keeping ? "Keeping…" : unsent ? `${unsent} not yet sent` : rest;
  $("sync").dataset.state = away ? "away" : unsent || opening ? "sending" : "saved";
  for (const says of Object.keys(tally)) $(`n-${says}`).textContent = tally[says];
  const left = ahead.open === null ? "–" : ahead.open > 999 ? "999+" : String(toGo());
  $("to-go").textContent = left;
  $("who").textContent = operator;
  $("undo").disabled = !past.length;
  $("past").replaceChildren(...past.slice(-12).reverse().map(chip));
  const tell = refused.length
    ? `The hub did not take ${refused.length === 1 ? "an answer" : `${refused.length} answers`}: ${refused.at(-1)}`
    : !durable
      ? "This browser keeps nothing on disk (a private window?). Do not close it while answers are not yet sent."
      : away
        ? "The hub does not answer. Go on: your answers are kept on this computer and sent when it is back."
        : "";
  $("banner-text").textContent = tell;
  $("banner-done").hidden = !refused.length;
  $("banner").hidden = !tell;
}

const toGo = () => Math.max(ahead.open, ahead.queue.length + (ahead.current ? 1 : 0));

function chip({ question, says, kind }) {
  const entry = document.createElement("li");
  entry.className = says;
  const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  mark.setAttribute("viewBox", "0 0 24 24");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", MARKS[says]);
  mark.append(path);
  const text = document.createElement("span");
  const about = kind ?? (question.question === null ? "picture" : question.class);
  text.textContent = about === "novelty" ? WORDS[says] : `${WORDS[says]} · ${about}`;
  entry.append(mark, text);
  return entry;
}

function again(element, name) {
  element.classList.remove(name);
  void element.offsetWidth; // the animation starts anew
  element.classList.add(name);
}

function flash(says) {
  again($(says), "hit");
  $("stage").dataset.flash = says;
  again($("stage"), "flash");
}

function tooSoon() {
  hint("Too quick: look first");
  again($("stage"), "shake");
}

function hint(text) {
  $("hint").textContent = text;
  again($("hint"), "told");
}

function stageBusy(busy) {
  $("stage").classList.toggle("busy", busy);
}

function toggleOutline() {
  if (document.body.dataset.view !== "asking" || ahead.current?.question === null) return;
  stage.outlined = !stage.outlined;
  $("hide").setAttribute("aria-pressed", String(!stage.outlined));
  stage.draw();
}

function toggleWide() {
  if (document.body.dataset.view !== "asking") return;
  stage.wide = !stage.wide;
  stage.draw();
}

// ---- welcome

function welcome(error = "") {
  setView("welcome");
  turn += 1;
  $("welcome").hidden = false;
  $("welcome-error").textContent = error;
  $("token-field").hidden = Boolean(token) && !error;
  $("token").required = !$("token-field").hidden;
  $("name").value = operator;
  $(operator && $("token").required ? "token" : "name").focus();
}

$("welcome").addEventListener("submit", (event) => {
  event.preventDefault();
  operator = $("name").value.trim();
  if (!operator) return;
  kept.write(localStorage, "mentoring-operator", operator);
  if ($("token").required) {
    token = $("token").value.trim();
    kept.write(sessionStorage, "mentoring-token", token);
    $("token").value = "";
  }
  $("welcome").hidden = true;
  document.activeElement?.blur();
  begin();
});

function begin() {
  setView("loading");
  ahead.reached = null;
  showState();
  outbox.retry();
  if (ahead.current) void showCurrent();
  void ahead.refill();
}

// ---- keys

const KEYS = {
  j: () => answer("confirm"),
  arrowright: () => answer("confirm"),
  f: () => answer("infirm"),
  arrowleft: () => answer("infirm"),
  " ": () => answer("unsure"),
  backspace: takeBack,
  z: takeBack,
  h: toggleOutline,
  w: toggleWide,
  "?": () => $("help").showModal(),
};
for (let number = 0; number < NUMBERED; number += 1) KEYS[number + 1] = () => answerKind(number);
// keyboards of other scripts: the key in the same place
const PLACES = { KeyJ: "j", KeyF: "f", KeyZ: "z", KeyH: "h", KeyW: "w" };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.target.closest?.("input, dialog[open]") || $("help").open) return;
  const latin = /^[\x20-\x7e]$/.test(event.key) || event.key.length > 1;
  const name = latin ? event.key.toLowerCase() : PLACES[event.code];
  // where digits need the shift key, without it as well
  const digit = event.shiftKey ? undefined : /^Digit([1-9])$/.exec(event.code)?.[1];
  const deed = KEYS[name] ?? KEYS[digit];
  if (!deed) return;
  event.preventDefault();
  if (event.repeat || document.body.dataset.view === "welcome") return;
  deed();
});
// space on a button that has the focus would press it as well
addEventListener("keyup", (event) => {
  if (event.key === " " && event.target.closest?.("button") && !$("help").open) event.preventDefault();
});

for (const says of Object.keys(WORDS)) $(says).addEventListener("click", () => answer(says));
$("undo").addEventListener("click", takeBack);
$("hide").addEventListener("click", toggleOutline);
$("inset").addEventListener("click", toggleWide);
$("help-open").addEventListener("click", () => $("help").showModal());
$("banner-done").addEventListener("click", () => void outbox.forgetRefused());
$("who").addEventListener("click", () => welcome());
addEventListener("online", () => outbox.retry());
// the frames go back to the others at once, not when the lease runs out
addEventListener("pagehide", () => {
  kept.write(sessionStorage, "mentoring-alive", false);
  if (!outbox.unsent) void call(`/v1/release?holder=${encodeURIComponent(device)}`, { method: "POST", keepalive: true });
});

// ---- start

for (const given of await outbox.open()) {
  const key = keyOf(given);
  if (given.withdraws === null) ahead.answered.set(key, given.id);
  else if (ahead.answered.get(key) === given.withdraws) ahead.answered.delete(key);
}
let rested = 0;
setInterval(() => {
  if (document.body.dataset.view === "welcome") return;
  rested += IDLE_MS;
  // a short look when there is nothing to do, else the heart-beat that keeps the leases
  if (!ahead.current || ahead.reached !== true || rested >= ((ahead.leaseS ?? 60) * 1000) / 3) {
    rested = 0;
    void ahead.refill();
  }
}, IDLE_MS);
showState();
if (operator && token) begin();
else welcome();
