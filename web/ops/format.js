// Numbers as people read them. What does not exist is a dash.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const DASH = "–";

const digits = (value, count) => Number(value).toLocaleString("en", { maximumSignificantDigits: count });

function count(value) {
  return Math.abs(value) < 10 && !Number.isInteger(value) ? digits(value, 2) : whole.format(value);
}

function rate(value) {
  return value < 10 ? digits(value, 2) : whole.format(value);
}

function seconds(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3) return `${digits(value * 1e6, 3)} µs`;
  if (size < 1) return `${digits(value * 1e3, 3)} ms`;
  if (size < 120) return `${digits(value, 3)} s`;
  if (size < 7200) return `${whole.format(value / 60)} min`;
  if (size < 172800) return `${digits(value / 3600, 3)} h`;
  return `${whole.format(value / 86400)} days`;
}

function bytes(value) {
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(size) < 1024 || unit === "GiB") return `${size < 10 ? digits(size, 2) : whole.format(size)} ${unit}`;
    size /= 1024;
  }
  return DASH;
}

function cores(value) {
  return `${whole.format(value * 100)} %`;
}

const BY_UNIT = { count, per_second: rate, seconds, bytes, cores };

export function format(value, unit) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  return (BY_UNIT[unit] ?? count)(value);
}

export const micros = (value) => format(value / 1e6, "seconds");

export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${share < 0.1 ? digits(share * 100, 2) : whole.format(share * 100)} %`;
}

// A node that was given no name has a long one.
export const shortened = (name) => (name.length > 20 ? `node ${name.slice(0, 8)}…` : name);

export function ago(iso) {
  const left = (new Date(iso).getTime() - Date.now()) / 1000;
  if (!Number.isFinite(left)) return DASH;
  return left < 0 ? `${seconds(-left)} ago` : `in ${seconds(left)}`;
}

export function clock(iso) {
  return new Date(iso).toLocaleTimeString("en-GB");
}
