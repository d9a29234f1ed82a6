// The page: from a sound, chosen or recorded, to what is shown about it.

import { decode, encodeWav, Recorder } from "./audio.js";
import { Mean, Model } from "./model.js";
import { Gallery } from "./neighbors.js";
import {
  drawAxis, drawScores, drawSpectrogram, drawWaveform, formatTime,
} from "./plots.js";
import { countSpectrogramFrames, cutWindows, FRAME, SAMPLE_RATE } from "./windows.js";

const TOP_CLASSES = 10;
const BANDS = 128;
const FRAMES_PER_PATCH = 16; // spectrogram frames of 10 ms

const $ = (id) => document.getElementById(id);
const say = (text) => { $("status").textContent = text; };
const model = new Model(showProgress);
const recorder = new Recorder();
let info; // model.json
let gallery;
let job = 0; // number of the latest analysis; older ones stop when they see another
let current; // the recording that is shown: samples, its windows and their scores

function showError(text = "") {
  $("error").textContent = text;
  $("error").hidden = !text;
}

function showProgress(loaded, total) {
  const [done, all] = [loaded, total].map((bytes) => (bytes / 1e6).toFixed(0));
  say(`Loading the model: ${done}${total ? ` of ${all}` : ""} MB`);
}

async function load() {
  info = await (await fetch("model.json")).json();
  document.title = info.title;
  $("about").textContent = info.about;
  gallery = await Gallery.load(info.neighbors);
  const runtime = new URL(info.runtime, location.href).href;
  await model.load(new URL("model.onnx", location.href).href, runtime);
  fillResolutions();
  say("");
}

/** Offer windows of the model's length and shorter ones, down to a second. */
function fillResolutions() {
  const sizes = [info.frames];
  while (sizes.at(-1) * FRAME >= 2 * SAMPLE_RATE) sizes.push(sizes.at(-1) >> 1);
  for (const size of sizes) {
    $("window").add(new Option(formatTime((size * FRAME) / SAMPLE_RATE), size));
  }
  $("resolution").hidden = !info.labels || sizes.length === 1;
}

const ready = load();
ready.catch((error) => {
  say("");
  showError(`The model cannot be loaded. ${error.message}`);
});

/** Show a sound and analyze it. A later call ends the earlier one. */
async function analyze(blob, name, recorded = false) {
  const own = ++job;
  showError();
  let samples;
  try {
    samples = await decode(blob);
  } catch {
    if (own === job) showError(`${name}: your browser cannot decode this file.`);
    return;
  }
  if (own !== job) return;
  if (!samples.length) return showError(`${name}: contains no sound.`);
  showRecording(samples, name, recorded ? encodeWav(samples) : blob);
  await finish(own, ready.then(() => runModel(own)));
}

/** Wait for an analysis; say so if it fails. */
async function finish(own, running) {
  $("result").ariaBusy = "true";
  try {
    await running;
  } catch (error) {
    if (own === job) showError(`The model failed: ${error.message}`);
  }
  if (own !== job) return; // another one is running
  $("result").ariaBusy = "false";
  $("window").disabled = false;
  say("");
}

function showRecording(samples, name, blob) {
  current = { samples, windows: [], scores: [], total: new Mean() };
  $("name").textContent = `${name} (${formatTime(samples.length / SAMPLE_RATE)})`;
  URL.revokeObjectURL($("player").src);
  $("player").src = URL.createObjectURL(blob);
  $("tags").replaceChildren();
  $("neighbors").replaceChildren();
  $("similar").hidden = true;
  $("spectrogram").width = 0; // clears it
  $("result").hidden = false;
  $("window").selectedIndex = 0;
  $("window").disabled = true; // choosing would end the analysis
  drawWaveform($("waveform"), samples);
  drawAxis($("axis"), samples.length);
}

/** Run windows of the model's length: spectrogram, mean scores, neighbors. */
async function runModel(own) {
  const { samples, total } = current;
  const frames = Math.max(1, countSpectrogramFrames(samples.length));
  const spectrogram = new Float32Array(frames * BANDS).fill(NaN);
  const features = new Mean();
  const finished = await runWindows(own, info.frames, (window, outputs) => {
    features.add(outputs.features);
    if (outputs.scores) total.add(outputs.scores);
    // Without the frames of the padding.
    const known = countSpectrogramFrames(window.samples.length) * BANDS;
    const begin = (window.start / FRAME) * FRAMES_PER_PATCH * BANDS;
    spectrogram.set(outputs.spectrogram.subarray(0, known), begin);
    drawSpectrogram($("spectrogram"), spectrogram, frames);
  });
  if (finished && info.neighbors.length) showNeighbors(features.value);
}

/** Run windows of a size, show their scores; return false if another job began. */
async function runWindows(own, size, use = () => {}) {
  const windows = cutWindows(current.samples, size);
  current.windows = [];
  current.scores = [];
  for (const [i, window] of windows.entries()) {
    say(windows.length > 1 ? `Listening: ${i + 1} of ${windows.length}` : "Listening …");
    const outputs = await model.run(window.samples);
    if (own !== job) return false;
    use(window, outputs);
    if (outputs.scores) {
      current.windows.push(window);
      current.scores.push(outputs.scores);
      showTags();
    }
  }
  return true;
}

/** Show the classes with the highest mean scores, and their scores over time. */
function showTags() {
  const { samples, windows, scores, total } = current;
  const order = Array.from(total.value.entries()).sort(([, a], [, b]) => b - a);
  const rows = order.slice(0, TOP_CLASSES).map(([number, score]) => {
    const row = $("tag").content.firstElementChild.cloneNode(true);
    const [label, plot, value] = row.children;
    label.textContent = label.title = info.labels[number];
    value.textContent = `${(100 * score).toFixed(1)} %`;
    row.dataset.score = score;
    row.style.setProperty("--score", score);
    return [row, plot.firstElementChild, scores.map((all) => all[number])];
  });
  $("tags").replaceChildren(...rows.map(([row]) => row));
  // Colors are known once the rows are in the page.
  for (const [, canvas, own] of rows) drawScores(canvas, windows, own, samples.length);
}

function showNeighbors(features) {
  const items = gallery.mostSimilar(features).map(({ name, file, similarity }) => {
    const item = $("neighbor").content.firstElementChild.cloneNode(true);
    const [title, value, player] = item.children;
    title.textContent = name;
    value.textContent = `similarity ${similarity.toFixed(2)}`;
    player.src = file;
    return item;
  });
  $("neighbors").replaceChildren(...items);
  $("similar").hidden = false;
}

// -- Input ----------------------------------------------------------------------------

$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (file) analyze(file, file.name);
  target.value = ""; // so that the same file can be chosen again
});

for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(type, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", type === "dragenter" || type === "dragover");
    const file = type === "drop" && event.dataTransfer.files[0];
    if (file) analyze(file, file.name);
  });
}

$("record").addEventListener("click", async ({ currentTarget: button }) => {
  button.disabled = true; // while the browser asks for permission
  showError();
  try {
    if (button.classList.toggle("recording")) {
      await recorder.start();
      button.textContent = "Stop";
    } else {
      button.textContent = "Record";
      analyze(await recorder.stop(), "Recording", true);
    }
  } catch (error) {
    button.classList.remove("recording");
    const denied = error.name === "NotAllowedError";
    showError(denied ? "The browser does not allow this page to use the microphone."
      : `The microphone cannot be used. ${error.message}`);
  }
  button.disabled = false;
});

$("window").addEventListener("change", ({ target }) => {
  const own = ++job;
  finish(own, runWindows(own, Number(target.value)));
});

// -- Playback -------------------------------------------------------------------------

function showPosition() {
  const { currentTime, duration, paused } = $("player");
  $("timeline").style.setProperty("--played", duration ? currentTime / duration : 0);
  if (!paused) requestAnimationFrame(showPosition);
}

for (const type of ["play", "seeked", "loadedmetadata"]) {
  $("player").addEventListener(type, showPosition);
}

$("timeline").addEventListener("click", (event) => {
  const plot = event.target.closest(".plot");
  if (!plot || !$("player").duration) return;
  const { left, width } = plot.getBoundingClientRect();
  $("player").currentTime = ((event.clientX - left) / width) * $("player").duration;
});
