// The samples of one node, as they came: at most 15 minutes of each series.

const SAMPLES_MAX = 900;

export class Samples {
  constructor() {
    this.last = 0;
    this.columns = new Map();
  }

  // Puts an answer's samples behind those that are here.
  add({ last, series }) {
    const come = Math.max(0, ...Object.values(series).map((one) => one.values.length));
    // The process has started anew, or more was missed than it keeps.
    if (last < this.last || last - come > this.last) this.columns.clear();
    for (const [name, { unit, values }] of Object.entries(series)) {
      const column = this.columns.get(name) ?? { unit, values: [] };
      column.values.push(...values);
      column.values.splice(0, column.values.length - SAMPLES_MAX);
      this.columns.set(name, column);
    }
    this.last = last;
  }

  unit(name) {
    return this.columns.get(name)?.unit;
  }

  values(name) {
    return this.columns.get(name)?.values ?? [];
  }

  // Whether this node has it at all.
  has(name) {
    return this.values(name).some((value) => value !== null);
  }

  now(name) {
    return this.values(name).at(-1) ?? null;
  }

  // The last that there was within so many samples: a quiet server has no
  // times to tell of.
  lately(name, samples = 30) {
    return this.values(name).slice(-samples).findLast((value) => value !== null) ?? null;
  }

  peak(name) {
    return this.values(name).reduce((peak, value) => (value !== null && value > (peak ?? -Infinity) ? value : peak), null);
  }

  // By how much a total has grown within so many samples.
  growth(name, samples) {
    const values = this.values(name).slice(-samples - 1).filter((value) => value !== null);
    return values.length < 2 ? 0 : values.at(-1) - values[0];
  }
}
