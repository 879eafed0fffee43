// Answers on their way: on this computer's disk before they count as given, sent in order, deleted
// only once the hub says that it has them.  Each carries its own id, so sending twice is harmless.

const NAME = "mentoring-outbox";
const BATCH = 50;
const TIMEOUT_MS = 10_000;
const WAITS_MS = [500, 1000, 2000, 4000, 8000];

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const ended = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });

export class Outbox {
  /**
   * @param {(answers: object[], signal: AbortSignal) => Promise<Response>} send
   * @param {() => void} changed called whenever a public field has changed
   */
  constructor(send, changed) {
    this.refused = []; // sentences of answers that the hub will never take
    this.state = "opening"; // opening | saved | sending | away | locked
    this.durable = true; // false where this browser keeps nothing
    this._send = send;
    this._changed = changed;
    this._memory = [];
    this._coming = 0; // on their way to this computer's disk
    this._stored = 0; // on it; other tabs send these too, so it is counted there and not here
    this._tries = 0;
    this._timer = 0;
    this._running = false;
    this._writing = Promise.resolve();
  }

  /** How many answers were given and are not yet at the hub. */
  get unsent() {
    return this._coming + this._stored + this._memory.length;
  }

  /** Whether an answer is still on its way to this computer's disk: a power cut would take it. */
  get keeping() {
    return this._coming > 0;
  }

  /** Open the store; returns the answers that an earlier visit left unsent. */
  async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () =>
        request.result.createObjectStore("answers", { keyPath: "seq", autoIncrement: true });
      this._db = await done(request);
      this._db.onversionchange = () => this._db.close();
      const left = await done(this._db.transaction("answers").objectStore("answers").getAll());
      this._stored = left.filter((row) => !row.refused).length;
      this.refused = left.filter((row) => row.refused).map((row) => row.refused);
      this._kick(0);
      return left.map((row) => row.answer);
    } catch (error) {
      console.error("no IndexedDB", error);
      this.durable = false;
      this.state = "saved"; // nothing is left where nothing is kept
      return [];
    } finally {
      this._changed();
    }
  }

  /** Keep an answer and send it soon.  Resolves when it is on this computer's disk. */
  add(answer) {
    this._coming += 1;
    this._changed();
    // one after another, so that a withdrawal never overtakes what it withdraws
    this._writing = this._writing.then(() => this._keep(answer));
    return this._writing.then(() => this._kick(0));
  }

  /** The operator has read what was refused; it is hidden once it is off this computer's disk. */
  async forgetRefused() {
    const read = new Set(this.refused);
    if (this._db) {
      const transaction = this._db.transaction("answers", "readwrite");
      const store = transaction.objectStore("answers");
      for (const row of await done(store.getAll())) if (read.has(row.refused)) store.delete(row.seq);
      await ended(transaction);
    }
    this.refused = this.refused.filter((sentence) => !read.has(sentence));
    this._changed();
  }

  /** Try at once: the token is new, or the network came back. */
  retry() {
    this._tries = 0;
    this._kick(0);
  }

  async _keep(answer) {
    if (this.durable) {
      try {
        const transaction = this._db.transaction("answers", "readwrite", { durability: "strict" });
        transaction.objectStore("answers").add({ answer });
        await ended(transaction);
        this._coming -= 1;
        this._stored += 1;
        this._changed();
        return;
      } catch (error) {
        console.error("an answer could not be kept on disk", error);
        this.durable = false;
      }
    }
    this._coming -= 1;
    this._memory.push({ answer });
    this._changed();
  }

  _kick(after) {
    clearTimeout(this._timer);
    this._timer = setTimeout(() => this._drain(), after);
  }

  async _drain() {
    if (this._running || (this.durable && !this._db)) return; // open() begins once it has looked
    this._running = true;
    try {
      for (;;) {
        const rows = await this._first();
        if (!rows.length) break;
        this._is("sending");
        await this._sendRows(rows);
      }
      if (!this.unsent) this._is("saved");
    } catch (error) {
      if (error.status === 401) {
        this._is("locked");
      } else {
        this._is("away");
        this._kick(WAITS_MS[Math.min(this._tries++, WAITS_MS.length - 1)] * (0.75 + Math.random() / 2));
      }
    } finally {
      this._running = false;
    }
  }

  async _first() {
    if (this._memory.length) return this._memory.slice(0, BATCH);
    if (!this._db) return [];
    const all = await done(this._db.transaction("answers").objectStore("answers").getAll());
    const waiting = all.filter((row) => !row.refused);
    if (waiting.length !== this._stored) {
      this._stored = waiting.length;
      this._changed();
    }
    return waiting.slice(0, BATCH);
  }

  async _sendRows(rows) {
    const response = await this._send(
      rows.map((row) => row.answer),
      AbortSignal.timeout(TIMEOUT_MS),
    );
    if (![200, 201, 422].includes(response.status)) {
      throw Object.assign(new Error(`the hub said ${response.status}`), { status: response.status });
    }
    const { answers } = await response.json();
    const fates = new Map(answers.map((fate, n) => [rows[n], fate]));
    if (fates.size !== rows.length) throw new Error("the hub did not say what became of each answer");
    if (this._memory.length) {
      this._memory = this._memory.filter((row) => !fates.has(row));
    } else {
      const transaction = this._db.transaction("answers", "readwrite");
      const store = transaction.objectStore("answers");
      for (const [row, fate] of fates) {
        if (fate.error) store.put({ ...row, refused: fate.error });
        else store.delete(row.seq);
      }
      await ended(transaction);
      this._stored -= rows.length;
    }
    for (const fate of fates.values()) if (fate.error) this.refused.push(fate.error);
    this._tries = 0;
    this._changed();
  }

  _is(state) {
    if (this.state === state) return;
    this.state = state;
    this._changed();
  }
}
