// Runs the network in a thread of its own: a window may take seconds, in which the page
// must scroll and play.

let session;
let outputs;

/** Download a file, telling how much has arrived. */
async function download(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get("Content-Length"));
  const parts = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    loaded += value.length;
    self.postMessage({ progress: { loaded, total } });
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

const commands = {
  /** Load runtime and model. */
  async load({ model, runtime }) {
    const downloaded = download(model);
    const ort = await import(`${runtime}ort.wasm.bundle.min.mjs`);
    ort.env.wasm.wasmPaths = { wasm: `${runtime}ort-wasm-simd-threaded.wasm` };
    session = await ort.InferenceSession.create(await downloaded);
    outputs = session.outputNames.filter((name) => name !== "frames");
    commands.run = async ({ wav }) => {
      const input = new ort.Tensor("float32", wav, [1, wav.length]);
      const results = await session.run({ wav: input }, outputs);
      return Object.fromEntries(outputs.map((name) => [name, results[name].data]));
    };
  },
};

self.onmessage = async ({ data: { id, command, ...options } }) => {
  try {
    self.postMessage({ id, result: await commands[command](options) });
  } catch (error) {
    self.postMessage({ id, error: error.message || String(error) });
  }
};
