// The recordings that came with the page, and which of them are most similar.

/**
 * Load the features of the recordings.
 *
 * @param {{name: string, file: string}[]} recordings
 * @returns {Promise<{name: string, file: string, vector: Float32Array}[]>} vectors of
 *   length 1
 */
export async function loadGallery(recordings) {
  if (!recordings.length) return [];
  const response = await fetch("neighbors.bin");
  if (!response.ok) throw new Error(`neighbors.bin: ${response.status}`);
  const values = new Float32Array(await response.arrayBuffer());
  const width = values.length / recordings.length;
  return recordings.map((recording, i) => (
    { ...recording, vector: values.subarray(i * width, (i + 1) * width) }
  ));
}

/** Return the `count` recordings of the highest cosine similarity, with it. */
export function mostSimilar(features, gallery, count = 5) {
  const norm = Math.hypot(...features) || 1;
  const compared = gallery.map((recording) => {
    const dot = recording.vector.reduce((sum, x, i) => sum + x * features[i], 0);
    return { ...recording, similarity: dot / norm };
  });
  return compared.sort((a, b) => b.similarity - a.similarity).slice(0, count);
}
