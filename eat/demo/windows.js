// Where the windows of a recording are; the same arithmetic as eat/inference/windows.py,
// so that the page and Python score the same samples.

export const SAMPLE_RATE = 16000;
export const FRAME = 2560; // samples of a frame of 160 ms, the width of a patch
const HOP = 160; // samples from one spectrogram frame to the next
const STFT_WINDOW = 400; // samples of a spectrogram frame
const TAIL = STFT_WINDOW - HOP;

/** Number of spectrogram frames that fit into the samples. */
export function countSpectrogramFrames(samples) {
  return Math.max(0, Math.floor((samples - STFT_WINDOW) / HOP) + 1);
}

/**
 * Cut a recording into windows of `size` frames.
 *
 * The last window is moved back to end with the recording, so that it is full as well;
 * a recording shorter than a window is one window.
 *
 * @param {Float32Array} samples - at 16 kHz
 * @param {number} size - frames of 160 ms
 * @returns {{start: number, end: number, samples: Float32Array}[]} start and end in
 *   samples
 */
export function cutWindows(samples, size) {
  const frames = Math.ceil((samples.length - TAIL) / FRAME);
  const last = Math.max(frames - size, 0);
  const starts = [];
  for (let start = 0; start < last; start += size) starts.push(start);
  starts.push(last);
  return starts.map((frame) => {
    const start = frame * FRAME;
    const part = samples.subarray(start, start + size * FRAME + TAIL);
    return { start, end: start + Math.min(part.length, size * FRAME), samples: part };
  });
}
