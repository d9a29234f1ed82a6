"""Fixtures of the tests of the benchmark suites' adapters."""

import pytest


@pytest.fixture(scope="session")
def torchcodec():
    """Skip a test whose suite decodes audio if torchcodec or its FFmpeg is missing."""
    try:
        import torchcodec.decoders
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"torchcodec with FFmpeg: {str(error).splitlines()[0]}")
    return torchcodec
