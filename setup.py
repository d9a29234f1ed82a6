"""Install the EAT toolkit: ``pip install -e .`` (add ``[test]`` for the tests)."""

from pathlib import Path

from setuptools import find_packages, setup

VERSION = {}
exec(Path(__file__).with_name("eat").joinpath("_version.py").read_text(), VERSION)
PARQUET = ["pyarrow>=15"]  # AudioSet from its Hugging Face copy

setup(
    name="eat-toolkit",
    version=VERSION["__version__"],
    description="Pre-train, fine-tune and use EAT, the Efficient Audio Transformer",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["eat", "eat.*"]),
    install_requires=[
        "torch>=2.6",
        "torchaudio>=2.6",
        "speechbrain>=1.1.2,<2",
        "hyperpyyaml>=1.2.2",
        "sentencepiece>=0.1.99",
        "pandas>=2",
        "tqdm>=4.66",
        "numpy",
        "soundfile>=0.12",
        "safetensors>=0.4",
        "scipy>=1.10",  # filters of the mini corpora
        "matplotlib>=3.7",  # pictures of the reports
    ],
    extras_require={
        "parquet": PARQUET,
        "test": [
            "pytest>=8",
            "pytest-xdist>=3",  # two test files at a time
            "ruff>=0.8",
            "scikit-learn>=1.3",
            "psutil>=5.9",  # all processes of a training
            "webdataset>=1",  # reads our shards
            *PARQUET,
        ],
    },
)
