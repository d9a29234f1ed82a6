// Sound in: files and the microphone, as 16 kHz mono samples.

import { SAMPLE_RATE } from "./windows.js";

/**
 * Decode a file or recording of any format that the browser plays.
 *
 * @param {Blob} blob
 * @returns {Promise<Float32Array>} samples at 16 kHz, channels averaged
 */
export async function decode(blob) {
  // A context of this rate resamples while it decodes. Its own length does not matter.
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  const buffer = await context.decodeAudioData(await blob.arrayBuffer());
  const mono = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < mono.length; i++) {
      mono[i] += samples[i] / buffer.numberOfChannels;
    }
  }
  return mono;
}

/** A recording from the microphone: `start`, then `stop`, which returns a blob. */
export class Recorder {
  async start() {
    if (!navigator.mediaDevices) {
      throw new Error("Recording needs a page from https:// or localhost.");
    }
    // Filters made for speech would remove the sounds to be tagged.
    const audio = {
      echoCancellation: false, noiseSuppression: false, autoGainControl: false,
    };
    this.stream = await navigator.mediaDevices.getUserMedia({ audio });
    this.parts = [];
    this.recorder = new MediaRecorder(this.stream);
    this.recorder.ondataavailable = ({ data }) => this.parts.push(data);
    this.recorder.start();
  }

  async stop() {
    await new Promise((resolve) => {
      this.recorder.onstop = resolve;
      this.recorder.stop();
    });
    for (const track of this.stream.getTracks()) track.stop();
    return new Blob(this.parts, { type: this.recorder.mimeType });
  }
}

/**
 * Encode samples as a WAV file of 16 bits.
 *
 * The files of MediaRecorder have no length, so players cannot seek in them.
 */
export function encodeWav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (offset, value) =>
    [...value].forEach((c, i) => view.setUint8(offset + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format
  view.setUint16(20, 1, true); // integers
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, SAMPLE_RATE, true);
  view.setUint32(28, 2 * SAMPLE_RATE, true); // bytes per second
  view.setUint16(32, 2, true); // bytes of a sample
  view.setUint16(34, 16, true); // bits
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, i) => {
    const clipped = Math.max(-1, Math.min(1, sample));
    view.setInt16(44 + 2 * i, Math.round(clipped * 32767), true);
  });
  return new Blob([view], { type: "audio/wav" });
}
