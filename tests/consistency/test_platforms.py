"""What only Linux or Unix has is used behind a guard: elsewhere, the quick path works.

The other systems are simulated: a process hides what they lack, after the libraries
have been imported, and then imports and uses the toolkit.
"""

import numpy as np
import pytest
import soundfile

from eat.data.manifest import ManifestRow, write_manifest
from eat.data.shard_writer import ClipUnion, pack_shard, shard_tasks, write_manifests

CLIPS = 3

# Names that a system's Python lacks; `module.*` is a whole module.
MACOS = """
os: sched_getaffinity sched_setaffinity posix_fallocate memfd_create process_cpu_count
signal: sigwaitinfo sigtimedwait
"""
WINDOWS = f"""
{MACOS}
os: pread pwrite preadv fork forkpty getuid geteuid getgid getpgid setsid killpg uname
os: statvfs statvfs_result mkfifo chown lchown fchmod wait waitid nice getloadavg
os: sysconf register_at_fork O_NOFOLLOW O_DIRECTORY O_NONBLOCK O_CLOEXEC
signal: SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGBUS SIGCHLD SIGALRM SIGQUIT SIGSTOP SIGCONT
signal: pthread_sigmask sigwait sigpending setitimer alarm pthread_kill SIG_BLOCK
fcntl.* resource.* pwd.* grp.* termios.* posix.* syslog.*
"""
USE = """
import pkgutil, sys, types
from importlib import import_module
import hyperpyyaml, multiprocessing.popen_spawn_posix, numpy, pandas, safetensors.torch
import soundfile, speechbrain, tempfile, torch, torch.utils.data, torchaudio, tqdm
from transformers import ASTFeatureExtractor, AutoModel, PreTrainedModel

platform, hidden, folder = sys.argv[1:]
for line in hidden.splitlines():
    module, colon, names = line.partition(":")
    if colon:
        for name in names.split():
            if hasattr(sys.modules[module], name):
                delattr(sys.modules[module], name)
    else:
        for name in line.split():
            sys.modules[name.removesuffix(".*")] = None
# Its library is this system's, whatever it asks.
soundfile._sys = types.SimpleNamespace(**vars(sys))
sys.platform = platform
if platform == "win32":
    lock = types.ModuleType("msvcrt")
    lock.LK_NBLCK, lock.LK_UNLCK, lock.locking = 2, 0, lambda *arguments: None
    sys.modules["msvcrt"] = lock

import eat
for found in pkgutil.walk_packages(eat.__path__, "eat."):
    if found.name != "eat.adapters.mteb":  # MTEB does not import in the simulation
        import_module(found.name)
from eat.data.dataset import audio_dataset, collate
from eat.data.workers import ClipLoader
from eat.interop.pretrained import save_model
from eat.model.encoder import EATEncoder
from eat.model.classifier import EATClassifier
from eat.utils.lock import lock_folder
from eat.utils.signals import Interruption
from pathlib import Path

folder = Path(folder)
data = audio_dataset(folder / "all.csv", folder, None, 1)
(batch,) = ClipLoader(data, batch_size=3, collate_fn=collate)
print("lengths", *batch.lengths.tolist())
classifier = EATClassifier(EATEncoder(dim=16, depth=1, num_heads=2, max_frames=64), 2)
frontend = {"mean": -5.0, "std": 4.0, "num_frames": 64}
config = {"kind": "classifier", **classifier.config, "frontend": frontend}
save_model(folder / "model", config, classifier)
model = eat.from_pretrained(folder / "model", device="cpu")
print("features", *model.encode_file(folder / "0.wav").values.shape)
with lock_folder(folder), Interruption().watch():
    print("done")
"""


@pytest.fixture
def shards(tmp_path):
    """Three clips in a shard, one of them as a file too."""
    rows = [ManifestRow(f"c{i}", 0.1, f"{i}.wav") for i in range(CLIPS)]
    for i, row in enumerate(rows):
        noise = np.random.default_rng(i).uniform(-0.5, 0.5, 1600 + i)
        soundfile.write(tmp_path / row.wav, noise, 16000)
    write_manifest(tmp_path / "all.csv", rows)
    out = tmp_path / "shards"
    out.mkdir()
    clips = ClipUnion([tmp_path / "all.csv"])
    tasks = list(shard_tasks(clips, out, str(tmp_path), CLIPS, None))
    for task in tasks:
        pack_shard(task)
    write_manifests(clips, tasks, [tmp_path / "all.csv"], out)
    (tmp_path / "0.wav").rename(out / "0.wav")
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("platform", "hidden"),
    [("darwin", MACOS), ("win32", WINDOWS)],
    ids=["macos", "windows"],
)
def test_import_and_quick_path(run_code, shards, platform, hidden):
    printed, _ = run_code(USE, platform, hidden.strip(), shards)
    assert printed.split("\n")[-4:] == [
        "lengths 1600 1601 1602",
        "features 16",
        "done",
        "",
    ]
