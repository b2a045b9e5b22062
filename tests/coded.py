"""Slots of compressed maps for tests."""

from gossamer.golden import codec
from gossamer.golden.spec import CODEC_SLOT

__all__ = ["every_slot"]


def every_slot(frontend):
    """Slots for all tensors whose rows can be compressed, large enough for any values."""
    found, config = {}, frontend.config
    for name in frontend.layout.pitches:
        place = frontend.layout.map(name)
        values = place.columns * place.pitch
        part = -(-codec.bound(values // config.codec_streams, False) // config.codec_chunk) * config.codec_chunk
        full = place.channels <= config.lanes or place.channels % config.lanes == 0
        full = full and place.channels % config.codec_streams == 0
        if place.channels == place.pitch and full and values % config.store_bytes == 0 and part <= CODEC_SLOT:
            found[name] = config.codec_streams * part
    return found
