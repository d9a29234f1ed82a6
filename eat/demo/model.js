// The model, seen from the page: promises around the messages to its worker.

export class Model {
  /**
   * @param {(loaded: number, total: number) => void} onProgress - bytes of the download;
   *   total is 0 if the server does not say it
   */
  constructor(onProgress) {
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.pending = new Map();
    this.calls = 0;
    this.worker.onmessage = ({ data: { id, result, error, progress } }) => {
      if (progress) return onProgress(progress.loaded, progress.total);
      const { resolve, reject } = this.pending.get(id);
      this.pending.delete(id);
      return error === undefined ? resolve(result) : reject(new Error(error));
    };
  }

  /** Load the model file and ONNX Runtime, from a folder or address that ends in "/". */
  load(model, runtime) {
    return this.call("load", { model, runtime });
  }

  /**
   * Run the network on one window.
   *
   * @param {Float32Array} wav - samples at 16 kHz, at most the model's
   * @returns {Promise<{scores?: Float32Array, features: Float32Array,
   *   spectrogram: Float32Array}>}
   */
  run(wav) {
    return this.call("run", { wav: wav.slice() }); // not the whole recording's memory
  }

  call(command, options) {
    const id = this.calls++;
    return new Promise((resolve, reject) => {
      this.pending.set(id, { resolve, reject });
      this.worker.postMessage({ id, command, ...options });
    });
  }
}

/** Mean of vectors that are added one by one. */
export class Mean {
  add(values) {
    this.sum ??= new Float64Array(values.length);
    this.count = (this.count ?? 0) + 1;
    values.forEach((value, i) => { this.sum[i] += value; });
  }

  get value() {
    return this.sum.map((total) => total / this.count);
  }
}
