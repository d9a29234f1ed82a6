// Drawing. The canvases have sizes of their own and are scaled by CSS, so nothing needs
// to be drawn again when the window changes.

import { SAMPLE_RATE } from "./windows.js";

const MAX_WIDTH = 2048; // pixels; browsers limit canvases
const BANDS = 128;
// Some colors of matplotlib's "magma", between which others are interpolated.
const MAGMA = [
  [0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122],
  [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191],
];

/** Color `[r, g, b]` of a value from 0 to 1. */
function magma(value) {
  const place = Math.max(0, Math.min(1, value)) * (MAGMA.length - 1);
  const below = Math.min(Math.floor(place), MAGMA.length - 2);
  return MAGMA[below].map(
    (low, i) => low + (place - below) * (MAGMA[below + 1][i] - low),
  );
}

/** Draw minimum and maximum of the samples of each column. */
export function drawWaveform(canvas, samples) {
  const width = (canvas.width = Math.min(samples.length, MAX_WIDTH));
  const height = (canvas.height = 120);
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).color;
  const peak = samples.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-3);
  const scale = height / 2 / peak;
  for (let x = 0; x < width; x++) {
    const end = Math.ceil(((x + 1) * samples.length) / width);
    let [low, high] = [0, 0];
    for (let i = Math.floor((x * samples.length) / width); i < end; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    const top = height / 2 - high * scale;
    context.fillRect(x, top, 1, Math.max(1, (high - low) * scale));
  }
}

/**
 * Draw a log-mel spectrogram, low frequencies at the bottom.
 *
 * @param {Float32Array} values - `frames` x 128; NaN where nothing is known yet
 */
export function drawSpectrogram(canvas, values, frames) {
  const width = (canvas.width = Math.min(frames, MAX_WIDTH));
  canvas.height = BANDS;
  const known = values.filter((_, i) => i % 7 === 0).filter((x) => !Number.isNaN(x));
  known.sort();
  const low = known[Math.floor(known.length * 0.05)];
  const high = known[Math.floor(known.length * 0.999)];
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, BANDS);
  for (let x = 0; x < width; x++) {
    const frame = Math.floor((x * frames) / width);
    for (let band = 0; band < BANDS; band++) {
      const value = values[frame * BANDS + band];
      if (Number.isNaN(value)) continue;
      const color = magma((value - low) / (high - low || 1));
      image.data.set([...color, 255], 4 * ((BANDS - 1 - band) * width + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** Draw the scores of one class: the higher, the more intense the color. */
export function drawScores(canvas, windows, scores, total) {
  canvas.width = Math.min(MAX_WIDTH, Math.max(1, total >> 4));
  canvas.height = 1;
  const context = canvas.getContext("2d");
  context.fillStyle = getComputedStyle(canvas).color;
  const scale = canvas.width / total;
  windows.forEach(({ start, end }, i) => {
    // The last window overlaps the one before it.
    const from = i ? Math.max(start, windows[i - 1].end) : start;
    context.globalAlpha = scores[i];
    context.fillRect(from * scale, 0, (end - from) * scale, 1);
  });
}

/** Label the time axis in steps of which there are at most eight. */
export function drawAxis(axis, samples) {
  const seconds = samples / SAMPLE_RATE;
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200];
  const step = steps.find((size) => seconds / size <= 8) ?? 3600;
  axis.replaceChildren();
  for (let i = 0; i * step <= seconds; i++) {
    const tick = document.createElement("span");
    tick.textContent = formatTime(i * step);
    tick.style.left = `${(100 * i * step) / seconds}%`;
    axis.append(tick);
  }
}

/** Format seconds as "2.5 s" or, from a minute on, "1:02". */
export function formatTime(seconds) {
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  return `${Math.floor(seconds / 60)}:${rest}`;
}
