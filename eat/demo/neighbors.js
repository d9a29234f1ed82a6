// The recordings that came with the page, and which of them are most similar; the same
// arithmetic as eat/commands/neighbors.py.

/** Recordings `{name, file}` and their features. */
export class Gallery {
  /** Load the features of the recordings. */
  static async load(recordings) {
    if (!recordings.length) return new Gallery([], new Float32Array());
    const response = await fetch("neighbors.bin");
    if (!response.ok) throw new Error(`neighbors.bin: ${response.status}`);
    return new Gallery(recordings, new Float32Array(await response.arrayBuffer()));
  }

  constructor(recordings, values) {
    this.recordings = recordings;
    const width = values.length / recordings.length;
    const rows = recordings.map((_, i) => values.subarray(i * width, (i + 1) * width));
    const average = (of) => rows.reduce((sum, row) => sum + of(row), 0) / rows.length;
    // Dimensions differ in mean and spread, so each is standardized. One recording has
    // nothing to be compared with.
    this.mean = new Float64Array(width || 0);
    this.scale = new Float64Array(width || 0).fill(1);
    for (let i = 0; i < width && rows.length > 1; i++) {
      this.mean[i] = average((row) => row[i]);
      this.scale[i] = Math.sqrt(average((row) => (row[i] - this.mean[i]) ** 2)) || 1;
    }
    this.vectors = rows.map((row) => this.standardize(row));
  }

  /** Return a standardized vector of length 1. */
  standardize(features) {
    const values = Float64Array.from(
      features, (x, i) => (x - this.mean[i]) / this.scale[i],
    );
    const norm = Math.hypot(...values) || 1;
    return values.map((x) => x / norm);
  }

  /** Return the `count` recordings of the highest cosine similarity, with it. */
  mostSimilar(features, count = 5) {
    const query = this.standardize(features);
    const compared = this.recordings.map((recording, i) => {
      const similarity = this.vectors[i].reduce((sum, x, j) => sum + x * query[j], 0);
      return { ...recording, similarity };
    });
    return compared.sort((a, b) => b.similarity - a.similarity).slice(0, count);
  }
}
