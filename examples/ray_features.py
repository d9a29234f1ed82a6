"""# Features with Ray Data

Where a corpus goes through a pipeline of
[Ray Data](https://docs.ray.io/en/latest/data/data.html), a class that holds the model
is all that it takes. Ray makes as many copies as `concurrency` says, each with a GPU of
its own if there are any, and feeds them; each takes a CPU core, and at least one must
be left for reading and writing. `pip install 'eat-toolkit[scale]'` installs
Ray.

    python examples/ray_features.py MODEL MANIFEST DATA_ROOT OUT [CONCURRENCY]

OUT receives Parquet files with the columns ID, features and failure: why a clip cannot
be read and has no features.
"""

import sys

import pyarrow as pa
import pyarrow.csv
import ray
import torch

import eat
from eat.data.shards import read_clip
from eat.errors import AudioError

checkpoint, manifest, data_root, out, *concurrency = sys.argv[1:]


class Extractor:
    """Encodes batches of rows of a manifest."""

    def __init__(self, checkpoint: str, data_root: str) -> None:
        self.model = eat.from_pretrained(checkpoint)
        self.data_root = data_root

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the features of a batch."""
        waveforms, failures = {}, [None] * len(batch)
        for row, wav in enumerate(batch["wav"].to_pylist()):
            try:
                path = wav.replace("$data_root", self.data_root, 1)
                waveforms[row] = read_clip(path)  # a file, or an address in a shard
            except AudioError as error:
                failures[row] = str(error)
        features = [None] * len(batch)
        if waveforms:
            encoded = self.model.encode_batch(list(waveforms.values()))
            for row, vector in zip(waveforms, encoded.cpu().numpy(), strict=True):
                features[row] = vector
        vectors = pa.array(features, pa.list_(pa.float32()))
        reasons = pa.array(failures, pa.string())
        return pa.table({"ID": batch["ID"], "features": vectors, "failure": reasons})


texts = dict.fromkeys(["ID", "wav", "labels"], pa.string())
(
    ray.data.read_csv(
        manifest, convert_options=pa.csv.ConvertOptions(column_types=texts)
    )
    .repartition(target_num_rows_per_block=256)
    .map_batches(
        Extractor,
        fn_constructor_args=[checkpoint, data_root],
        batch_size=16,
        batch_format="pyarrow",
        concurrency=int(concurrency[0]) if concurrency else 1,
        num_gpus=int(torch.cuda.is_available()),
    )
    .write_parquet(out)
)
