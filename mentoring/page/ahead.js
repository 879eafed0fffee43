// The questions that come next, and their pictures, here and decoded before they are asked for.

const COUNT = 20;
const AT_ONCE = 4; // downloads
const TIMEOUT_MS = 10_000;
const DECODED_PX = 64e6; // decoded pictures take four bytes a pixel

export const keyOf = (question) => `${question.item}:${question.question ?? "whole"}`;

export class Ahead {
  /**
   * @param {(path: string, options?: object) => Promise<Response>} call the hub, with the token
   * @param {string} holder who asks: this tab
   * @param {() => void} changed called when there is something new to show
   */
  constructor(call, holder, changed) {
    this.queue = [];
    this.current = null;
    this.open = null; // questions still open at the hub, as of the last call
    this.elsewhere = 0;
    this.reached = null; // whether the last call did
    this.answered = new Map(); // key of a question: id of the answer that stands
    this._call = call;
    this._holder = holder;
    this._changed = changed;
    this._fetching = false;
    this._pictures = new Map();
    this._downloads = 0;
  }

  /** The next question, or null; what is undone is put in front by `again`. */
  advance() {
    this.current = this.queue.shift() ?? null;
    this._prepare();
    if (this.queue.length < COUNT / 2) void this.refill();
    return this.current;
  }

  /** Ask a question once more; what was being asked waits. */
  again(question) {
    if (this.current) this.queue.unshift(this.current);
    this.queue = this.queue.filter((other) => keyOf(other) !== keyOf(question));
    this.current = { ...question, again: true };
    this._prepare();
  }

  /** Never ask this one here again: its picture is gone or cannot be read. */
  leaveOut(question) {
    this.answered.set(keyOf(question), "left out");
  }

  /** Lease more, and keep the leases there are. */
  async refill() {
    if (this._fetching) return;
    this._fetching = true;
    try {
      const response = await this._call(`/v1/next?lease=${COUNT}&holder=${encodeURIComponent(this._holder)}`, {
        signal: AbortSignal.timeout(TIMEOUT_MS), // a hub that hangs is a hub that is away
      });
      if (!response.ok) throw Object.assign(new Error("no questions"), { status: response.status });
      const body = await response.json();
      this._merge(body.questions);
      // what is answered here and not yet there counts as done
      this.open = body.open - body.questions.filter((question) => this.answered.has(keyOf(question))).length;
      this.elsewhere = body.elsewhere;
      this.leaseS = body.lease_s;
      this.reached = true;
    } catch (error) {
      this.reached = error.status === 401 ? "locked" : false;
    } finally {
      this._fetching = false;
      this._prepare();
      this._changed();
    }
  }

  _merge(given) {
    const held = new Set(given.map(keyOf));
    // a lease that ran out may be with someone else now; what was taken back the hub may not know of yet
    this.queue = this.queue.filter((question) => question.again || held.has(keyOf(question)));
    const here = new Set(this.queue.map(keyOf));
    if (this.current) here.add(keyOf(this.current));
    for (const question of given) {
      const key = keyOf(question);
      if (!here.has(key) && !this.answered.has(key)) this.queue.push(question);
    }
  }

  /** The decoded picture of a question; rejects when it cannot be had. */
  picture(question) {
    const entry = this._entry(question);
    entry.bitmap ??= this._blob(question, entry).then((blob) =>
      // boxes are in stored pixels, so the picture is not turned either
      createImageBitmap(blob, { imageOrientation: "none", colorSpaceConversion: "none" }),
    );
    entry.bitmap.catch(() => this._pictures.delete(question.item));
    return entry.bitmap;
  }

  /** Whether `picture` would resolve at once. */
  ready(question) {
    return Boolean(this._pictures.get(question.item)?.decoded);
  }

  _entry(question) {
    let entry = this._pictures.get(question.item);
    if (!entry) this._pictures.set(question.item, (entry = {}));
    return entry;
  }

  _blob(question, entry) {
    entry.blob ??= this._call(question.picture, { signal: AbortSignal.timeout(3 * TIMEOUT_MS) }).then((response) => {
      if (!response.ok) throw Object.assign(new Error("no picture"), { status: response.status });
      return response.blob();
    });
    return entry.blob;
  }

  _prepare() {
    const coming = [this.current, ...this.queue].filter(Boolean);
    const wanted = new Map(coming.map((question) => [question.item, question]));
    for (const [item, entry] of this._pictures) {
      if (wanted.has(item)) continue;
      entry.bitmap?.then((bitmap) => bitmap.close(), () => {});
      this._pictures.delete(item);
    }
    let pixels = 0;
    for (const question of wanted.values()) {
      pixels += question.width * question.height;
      const entry = this._entry(question);
      if (pixels <= DECODED_PX || question === this.current) {
        if (!entry.started && this._downloads >= AT_ONCE && question !== this.current) continue;
        if (entry.started) continue;
        entry.started = true;
        this._downloads += 1;
        this.picture(question)
          .then(() => (entry.decoded = true))
          .catch(() => {})
          .finally(() => {
            this._downloads -= 1;
            this._prepare();
          });
      }
    }
  }
}
