"""Program images: assembler and disassembler. ``docs/formats.md`` shows the layout bit by bit."""

import dataclasses
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.spec import (
    CODECS,
    DESCRIPTOR,
    DESCRIPTOR_BYTES,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    STEP_BYTES,
    STEP_FETCH,
    STEP_HOST,
    STEP_LOAD,
    STEP_LOOP,
    STEP_RUN,
    VERSION,
    Config,
    Field,
    Opcode,
    UserError,
)

__all__ = ["ImageError", "Program", "TensorPlace", "decode", "encode"]

Record = Mapping[str, int]


NAMES = {
    Opcode.LOAD_WEIGHTS: "load_weights",
    Opcode.LOAD_PARAMETERS: "load_parameters",
    Opcode.RUN: "run",
    Opcode.FETCH: "fetch",
    Opcode.HOST: "host",
    Opcode.LOOP: "loop",
    Opcode.LOAD_MASKS: "load_masks",
    Opcode.LOAD_PALETTE: "load_palette",
}
"""Of the steps but the end."""

LAYOUTS = {
    Opcode.LOAD_WEIGHTS: STEP_LOAD,
    Opcode.LOAD_PARAMETERS: STEP_LOAD,
    Opcode.RUN: STEP_RUN,
    Opcode.FETCH: STEP_FETCH,
    Opcode.HOST: STEP_HOST,
    Opcode.LOOP: STEP_LOOP,
    Opcode.LOAD_MASKS: STEP_LOAD,
    Opcode.LOAD_PALETTE: STEP_LOAD,
}


class ImageError(UserError, ValueError):
    """An image breaks a rule of the format; the message is one sentence with the rule and the value."""


def encode(layout: Mapping[str, Field], values: Record, size: int) -> bytes:
    """The record as ``size`` bytes. A field that is not in ``values`` is 0.

    Raises :class:`ImageError` for a value that its field cannot hold.
    """
    total = 0
    for name, value in values.items():
        field = layout[name]
        low = -(1 << field.width - 1) if field.signed else 0
        if not low <= value < low + (1 << field.width):
            raise ImageError(f"field {name!r} must be {low} to {low + (1 << field.width) - 1}, not {value}")
        total |= (value & (1 << field.width) - 1) << field.offset
    return total.to_bytes(size, "little")


def decode(layout: Mapping[str, Field], data: bytes) -> dict[str, int]:
    """The fields of a record."""
    total = int.from_bytes(data, "little")
    values = {}
    for name, field in layout.items():
        value = total >> field.offset & (1 << field.width) - 1
        if field.signed and value >> field.width - 1:
            value -= 1 << field.width
        values[name] = value
    return values


@dataclasses.dataclass(frozen=True)
class TensorPlace:
    """Where a feature map is in the store.

    ``rows`` rows of ``columns`` pixels of ``channels`` bytes. A pixel starts ``pitch`` bytes behind the one before; the bytes
    between hold the zero point, or with ``offset``, the channels in front of the map's, other maps. A row starts at a store
    word; ``address`` is the first row's byte. With ``per_byte`` 2 or 8 a byte holds that many values, the first in its lowest
    bits: four bits of the value plus 8, or one that is 1 for +1 and 0 for -1; channels, pitch and offset count values.
    """

    address: int
    rows: int
    columns: int
    channels: int
    pitch: int
    offset: int = 0
    per_byte: int = 1

    def row_bytes(self) -> int:
        """Bytes of a row that mean something."""
        return self.columns * self.pitch // self.per_byte

    def row_words(self, config: Config) -> int:
        """Store words from one row to the next."""
        return -(-self.row_bytes() // config.store_bytes)

    def size(self, config: Config) -> int:
        """Bytes taken in the store."""
        return self.rows * self.row_words(config) * config.store_bytes

    @property
    def _channels(self) -> slice:
        return slice(self.offset, self.offset + self.channels)

    def to_store(self, values: NDArray[np.int8], zero_point: int, config: Config) -> NDArray[np.uint8]:
        """The bytes of a feature map ``(rows, columns, channels)`` as they lie in the store."""
        pixels = np.full((self.rows, self.columns, self.pitch), zero_point, np.int16)
        pixels[:, :, self._channels] = values.reshape(self.rows, self.columns, self.channels)
        values_of_bytes = pixels.reshape(self.rows, -1, self.per_byte)
        rows = np.full((self.rows, self.row_words(config) * config.store_bytes), zero_point + 128, np.uint8)
        if self.per_byte == 8:
            rows[:, : self.row_bytes()] = np.packbits(values_of_bytes > 0, axis=2, bitorder="little")[..., 0]
        elif self.per_byte == 2:
            rows[:, : self.row_bytes()] = (values_of_bytes[..., 0] + 8) | (values_of_bytes[..., 1] + 8) << 4
        else:
            rows[:, : self.row_bytes()] = values_of_bytes[..., 0] + 128
        return rows.reshape(-1)

    def from_store(self, data: NDArray[np.uint8], config: Config) -> NDArray[np.int8]:
        """The feature map in ``size`` bytes of the store."""
        rows = data.reshape(self.rows, -1)[:, : self.row_bytes()]
        values: NDArray[np.int16] = rows.astype(np.int16) - 128
        if self.per_byte == 8:
            values = np.unpackbits(rows, axis=1, bitorder="little").astype(np.int16) * 2 - 1
        elif self.per_byte == 2:
            values = np.stack([rows & 15, rows >> 4], axis=2).astype(np.int16) - 8
        return values.reshape(self.rows, self.columns, self.pitch)[:, :, self._channels].astype(np.int8)


@dataclasses.dataclass(frozen=True)
class Program:
    """A program: what the image holds, decoded.

    ``layers[i]`` is entry ``i + 1`` of the layer table. A step is a record with ``opcode`` and the fields of
    ``LAYOUTS[opcode]``. A warm start begins with step ``warm``. ``blob`` is the data behind the steps, ``external`` what must
    be in the external memory.
    """

    config: Config
    layers: tuple[Record, ...]
    steps: tuple[Record, ...]
    blob: bytes
    input: TensorPlace
    output: TensorPlace
    end_address: int
    warm: int = 0
    external: bytes = b""

    @staticmethod
    def blob_address(layers: int, steps: int) -> int:
        """Byte address of the blob in an image with so many layers and steps (the end step not counted)."""
        address = HEADER_BYTES + layers * DESCRIPTOR_BYTES + (steps + 1) * STEP_BYTES
        return -(-address // 16) * 16

    @staticmethod
    def step_words(layers: int, config: Config) -> tuple[int, int]:
        """The store word of the first step in an image with so many layers, and the words from one step to the next."""
        return (HEADER_BYTES + layers * DESCRIPTOR_BYTES) // config.store_bytes, STEP_BYTES // config.store_bytes

    def step_word(self, step: int) -> int:
        """The store word of a step."""
        first, words = self.step_words(len(self.layers), self.config)
        return first + step * words

    @property
    def size(self) -> int:
        """Bytes of the image."""
        size = self.blob_address(len(self.layers), len(self.steps)) + len(self.blob)
        return -(-size // self.config.store_bytes) * self.config.store_bytes

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights, masks and palettes that the program loads, in the store or in the external memory, equal ones
        once."""
        kinds = (Opcode.LOAD_WEIGHTS, Opcode.LOAD_MASKS, Opcode.LOAD_PALETTE)
        loads = (step for step in self.steps if step["opcode"] in kinds)
        return self.config.store_bytes * sum(count for _, count in {(step["in_address"], step["count"]) for step in loads})

    @property
    def coded(self) -> bool:
        """Whether rows are compressed."""
        return any(layer.get(name) for layer in self.layers for name in ("in_coded", "in_coded_odd", "out_coded"))

    def assemble(self) -> bytes:
        """The image."""
        config = self.config
        table = b"".join(encode(DESCRIPTOR, layer, DESCRIPTOR_BYTES) for layer in self.layers)
        steps = b"".join(encode(LAYOUTS[step["opcode"]], step, STEP_BYTES) for step in self.steps) + bytes(STEP_BYTES)
        body = (table + steps).ljust(self.blob_address(len(self.layers), len(self.steps)) - HEADER_BYTES, b"\0")
        body = (body + self.blob).ljust(self.size - HEADER_BYTES, b"\0")
        header = {
            "magic": MAGIC,
            "version": VERSION,
            "lanes": config.lanes,
            "store_bytes": config.store_bytes,
            "steps": self.step_word(0),
            "warm_steps": self.step_word(self.warm),
            "image_words": self.size // config.store_bytes,
            "codec": CODECS.index(config.codec) * self.coded,
            "codec_streams": (config.codec_streams.bit_length() - 1) * self.coded,
            "input_address": self.input.address,
            "output_address": self.output.address,
            "end_address": self.end_address,
            "external_words": len(self.external) // config.store_bytes,
            "external_crc": zlib.crc32(self.external),
        }
        for name, place in (("input", self.input), ("output", self.output)):
            for field in ("rows", "columns", "channels", "pitch"):
                header[f"{name}_{field}"] = getattr(place, field)
        header["crc"] = zlib.crc32(encode(HEADER, header, HEADER_BYTES) + body)
        return encode(HEADER, header, HEADER_BYTES) + body

    @classmethod
    def disassemble(cls, image: bytes, config: Config, external: bytes | None = None) -> "Program":
        """The program in an image. ``external`` is what is in the external memory, if that shall be checked too.

        Raises :class:`ImageError` if the image is damaged, has another version, or was compiled for another
        configuration.
        """
        if len(image) < HEADER_BYTES + STEP_BYTES:
            raise ImageError(f"an image must have at least {HEADER_BYTES + STEP_BYTES} bytes, not {len(image)}")
        header = decode(HEADER, image[:HEADER_BYTES])
        for name, value in (
            ("magic", MAGIC),
            ("version", VERSION),
            ("lanes", config.lanes),
            ("store_bytes", config.store_bytes),
            ("image_words", len(image) // config.store_bytes),
        ):
            if header[name] != value:
                raise ImageError(f"an image's {name} must be {value:#x}, not {header[name]:#x}")
        own = CODECS.index(config.codec)
        if header["codec"] not in (0, own):
            raise ImageError(f"an image's codec must be 0 or {own}, not {header['codec']}")
        own = (config.codec_streams.bit_length() - 1) * (header["codec"] != 0)
        if header["codec_streams"] != own:
            raise ImageError(f"an image's codec_streams must be {own}, not {header['codec_streams']}")
        if len(image) % config.store_bytes:
            raise ImageError(f"an image must have whole store words of {config.store_bytes} bytes, not {len(image)} bytes")
        field = HEADER["crc"].offset // 8
        crc = zlib.crc32(image[:field] + bytes(4) + image[field + 4 :])
        if header["crc"] != crc:
            raise ImageError(f"an image's CRC must be {crc:#010x}, not {header['crc']:#010x}: the image is damaged")
        needed = header["external_words"] * config.store_bytes
        if external is not None and (len(external), zlib.crc32(external)) != (needed, header["external_crc"]):
            raise ImageError(
                f"the external memory must have the {needed} bytes with CRC {header['external_crc']:#010x} that belong to the "
                f"image, not {len(external)} bytes with CRC {zlib.crc32(external):#010x}"
            )
        at = header["steps"] * config.store_bytes
        warm = header["warm_steps"] * config.store_bytes
        if not HEADER_BYTES <= at < len(image):
            raise ImageError(f"an image's steps must start at byte {HEADER_BYTES} to {len(image) - 1}, not {at}")
        table = at - HEADER_BYTES
        if table % DESCRIPTOR_BYTES:
            raise ImageError(f"an image's layer table must be a multiple of {DESCRIPTOR_BYTES} bytes, not {table}")
        layers = tuple(decode(DESCRIPTOR, image[i : i + DESCRIPTOR_BYTES]) for i in range(HEADER_BYTES, at, DESCRIPTOR_BYTES))
        steps: list[dict[str, int]] = []
        while True:
            record = image[at : at + STEP_BYTES]
            if len(record) < STEP_BYTES:
                raise ImageError("an image's steps must end with an END step, not with the image")
            opcode = decode(STEP_RUN, record)["opcode"]
            if opcode == Opcode.END:
                break
            if opcode not in NAMES:
                raise ImageError(f"the opcode of step {len(steps)} must be 0 to {max(NAMES)}, not {opcode}")
            step = decode(LAYOUTS[opcode], record)
            if opcode == Opcode.RUN and not 1 <= step["layer"] <= len(layers):
                raise ImageError(f"the layer of step {len(steps)} must be 1 to {len(layers)}, not {step['layer']}")
            steps.append(step)
            at += STEP_BYTES
        places = [
            TensorPlace(*(header[f"{name}_{field}"] for field in ("address", "rows", "columns", "channels", "pitch")))
            for name in ("input", "output")
        ]
        first, rest = divmod(warm - header["steps"] * config.store_bytes, STEP_BYTES)
        if rest or not 0 <= first <= len(steps):
            raise ImageError(f"an image's warm start must be at one of its steps, not at byte {warm}")
        blob = image[cls.blob_address(len(layers), len(steps)) :]
        return cls(
            config, layers, tuple(steps), blob, places[0], places[1], header["end_address"], first, external or bytes(needed)
        )

    def listing(self) -> str:
        """The program as text, one line per layer and step."""

        def fields(layout: Mapping[str, Field], record: Record) -> str:
            return " ".join(f"{name}={record[name]}" for name in layout if record.get(name) and name != "opcode")

        lines = [f"layer {i}: {fields(DESCRIPTOR, layer)}" for i, layer in enumerate(self.layers, 1)]
        for i, step in enumerate(self.steps):
            if i == self.warm and self.warm:
                lines.append("warm start:")
            lines.append(f"step {i}: {NAMES[step['opcode']]} {fields(LAYOUTS[step['opcode']], step)}")
        return "\n".join([*lines, f"step {len(self.steps)}: end", ""])
