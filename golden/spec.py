"""Constants and field layouts shared by the golden model, the compiler and the hardware.

This is the only module of :mod:`gossamer.golden` that :mod:`gossamer.hdl` and :mod:`gossamer.gateware` may import: it
holds numbers and layouts, no behaviour that a test could want to compare. ``docs/formats.md`` is its prose form.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "ADD_TABLE",
    "CODECS",
    "CODEC_BUDGET_CREDIT",
    "CODEC_CHUNK",
    "CODEC_CREDIT",
    "CODEC_CREDIT_FULL",
    "CODEC_CREDIT_LEAST",
    "CODEC_ORDER",
    "CODEC_SHIFTS",
    "CODEC_SLOT",
    "CONFIGS",
    "DESCRIPTOR",
    "DESCRIPTOR_BYTES",
    "EXTERNAL_WORDS",
    "HEADER",
    "HEADER_BYTES",
    "MAGIC",
    "MOST_FETCHED",
    "MOST_TURNS",
    "PALETTE_ENTRIES",
    "PARAMETER",
    "PARAMETER_BYTES",
    "REGISTERS",
    "STEP_BYTES",
    "STEP_FETCH",
    "STEP_HOST",
    "STEP_LOAD",
    "STEP_LOOP",
    "STEP_RUN",
    "VERSION",
    "WEIGHT_FORMATS",
    "Config",
    "ConfigError",
    "Error",
    "Field",
    "Opcode",
    "Register",
    "UserError",
    "config",
]

MAGIC = 0x5253_4D47
"""First four bytes of a program image: ``GMSR`` read as a little-endian 32-bit number."""

VERSION = 3
"""Version of the image format. Hardware and interpreter refuse every other one."""

HEADER_BYTES = 64
DESCRIPTOR_BYTES = 64
STEP_BYTES = 16
PARAMETER_BYTES = 8

EXTERNAL_WORDS = 1 << 18
"""Words of the external memory that a core can address."""

MOST_FETCHED = 4095
"""Words of the longest fetch."""

MOST_TURNS = 255
"""How often a loop can go back."""

SHIFT_BIAS = 7
"""A parameter's ``shift`` field holds the right shift ``e`` plus this: 0 means a left shift by 7."""

CODEC_ORDER = ((0, 3, 4, 5, 1, 2, 6, 7), (4, 0, 3, 5, 1, 2, 6, 7), (5, 0, 4, 6, 1, 2, 3, 7), (6, 0, 5, 7, 1, 2, 3, 4))
"""Compressed rows: of each context the sizes in the order of their prefixes."""

CODEC_CREDIT, CODEC_CREDIT_LEAST, CODEC_CREDIT_FULL = 32, 8, 120
"""Compressed rows: the credit of a unit at first, that with which a value is still coded, and that which does not grow."""

CODEC_BUDGET_CREDIT, CODEC_SHIFTS = 48, (40, 32, 24, 18, 14, 10, 7, 5)
"""Compressed rows with a budget: the credit of a unit at first, and those for which 0, 1, … low bits are dropped, at least."""


CODECS = ("off", "lossless", "bounded", "budgeted")
"""How rows can be compressed, by the number that says so in an image."""

DECODERS = ("off", "nibbles", "palettes")
"""What the weight decoder can be: each can do what those in front of it can."""

WEIGHT_FORMATS = ("bytes", "nibbles", "palette of 16", "palette of 32")
"""How weights can lie in the store, by the number that says so in a load step."""

PALETTE_ENTRIES = 32
"""Of the palette buffer, each with a byte for every lane."""

CODEC_SLOT = 2046
"""Bytes of the slot of a compressed row for one of its units, at most."""

CODEC_CHUNK = 8
"""Bytes of a unit that lie side by side in the slot of a row of several units, at least; more units than that have as many."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of a fixed-size record: ``width`` bits from bit ``offset``, little endian, two's complement if signed.

    No field crosses a 64-bit boundary, so that a store of 64-bit words delivers each in one beat.
    """

    offset: int
    width: int
    signed: bool = False
    doc: str = ""


def _pack(beats: tuple[tuple[tuple[str, int, str], ...], ...]) -> dict[str, Field]:
    """Lay fields out in 64-bit beats. A negative width means signed; an empty name is a gap."""
    fields: dict[str, Field] = {}
    for beat, members in enumerate(beats):
        offset = 0
        for name, width, doc in members:
            if name:
                fields[name] = Field(64 * beat + offset, abs(width), width < 0, doc)
            offset += abs(width)
        if offset > 64:
            raise ValueError(f"beat {beat} must hold at most 64 bits, not {offset}")
    return fields


HEADER = _pack(
    (
        (
            ("magic", 32, "``MAGIC``"),
            ("version", 16, "``VERSION``"),
            ("lanes", 8, "lanes the image was compiled for"),
            ("store_bytes", 5, "bytes per store word it was compiled for"),
            ("codec_streams", 3, "units of a compressed row: 1 << ``codec_streams``; 0 too if ``codec`` is 0"),
        ),
        (
            ("steps", 20, "store word of the first step"),
            ("warm_steps", 20, "store word of the first step of a warm start"),
            ("image_words", 20, "store words of the image; results are never written below this"),
            ("codec", 2, "the code of its compressed rows, an entry of ``CODECS``; 0: it has none"),
        ),
        (
            ("input_address", 32, "first byte of the input tensor (host)"),
            ("output_address", 32, "first byte of the output tensor (host)"),
        ),
        (
            ("end_address", 32, "first byte behind the activations (host)"),
            ("crc", 32, "CRC-32 of the image with this field zero (host)"),
        ),
        (
            ("input_rows", 16, "rows of the input tensor (host)"),
            ("input_columns", 16, "pixels per input row (host)"),
            ("input_channels", 16, "channels of an input pixel (host)"),
            ("input_pitch", 16, "bytes from one input pixel to the next (host)"),
        ),
        (
            ("output_rows", 16, "rows of the output tensor (host)"),
            ("output_columns", 16, "pixels per output row (host)"),
            ("output_channels", 16, "channels of an output pixel (host)"),
            ("output_pitch", 16, "bytes from one output pixel to the next (host)"),
        ),
        (
            ("external_words", 32, "words that the program needs in the external memory (host)"),
            ("external_crc", 32, "their CRC-32 (host)"),
        ),
    )
)

DESCRIPTOR = _pack(
    (
        (
            ("word_mode", 1, "1: a range yields whole words (depthwise, pooling, add); 0: single non-zero bytes"),
            ("maximum", 1, "1: the second of three repeats clamps the accumulators at zero from below"),
            ("add", 1, "1: accumulators hold two bytes that index the addition tables"),
            ("double_rounding", 1, "1: gemmlowp's two-step rounding; 0: one rounding"),
            ("ahead", 1, "1: the rows of the next output row may be loaded while this one is computed"),
            ("repeat", 2, "word mode: beats per tap"),
            ("", 1, ""),
            ("pad", 8, "stored byte that padding supplies"),
            ("zero_point", -8, "output zero point"),
            ("clamp_min", -8, "smallest output"),
            ("clamp_max", -8, "largest output"),
            ("groups", 12, "output channel groups"),
            ("last_lanes", 8, "channels in the last group"),
        ),
        (
            ("left_granules", 12, "padding granules in front of a row"),
            ("right_granule", 16, "granule of a row slot behind the last that holds data"),
            ("tail", 5, "bytes that count in the last that holds data"),
            ("slot_words", 14, "row buffer words per row slot"),
            ("kernel_rows", 8, "rows of a window"),
            ("stride_rows", 8, "rows from one window to the next below"),
        ),
        (
            ("row_step", -24, "store words from an even input row to the next row"),
            ("row_step_odd", -24, "store words from an odd input row to the next row"),
            ("out_x_step", 16, "bytes from one output pixel to the next"),
        ),
        (
            ("ring_words", 14, "row buffer words in use: slots times slot_words"),
            ("advance_words", 14, "stride_rows times slot_words"),
            ("offset", 16, "byte in its slot where the first window of a row starts"),
            ("width", 14, "output pixels per row"),
        ),
        (
            ("x_step", 16, "bytes from one window to the next in a row"),
            ("range_last", 16, "bytes (word mode: beats) of a window in one row, less one"),
            ("tap_step", 14, "word mode: row buffer words from one tap to the next"),
            ("in_nibbles", 1, "1: input rows have two values per byte, which become a byte each, of 0 to 15"),
            ("in_bits", 1, "1: input rows have eight values per byte, which become a byte each, of 0 or 2"),
            ("out_nibbles", 1, "1: output rows have two values per byte: the low four bits, the highest inverted"),
            ("out_bits", 1, "1: output rows have eight values per byte: the highest bits"),
        ),
        (
            ("weight_base", 16, "weight vector of the first group"),
            ("parameter_base", 16, "parameter entry of the first channel; add: of the tables, a multiple of 256"),
            ("shared_weights", 1, "1: every group uses the weights of the first"),
            ("partial_in", 1, "1: there is a parameter entry for every sum, in their order; its bias is a partial sum"),
            ("small_multipliers", 1, "1: multipliers are as they are stored; 0: greater by 2**30"),
            ("partial_out", 1, "1: sums are not scaled, but written as parameter entries, one behind the other"),
            ("out_rate", 7, "compressed output rows: the rate of their budget; 0: they are lossless"),
            ("sparse", 1, "1: weight vectors that are zero are left out; ``weight_base`` is the first group's first mask"),
            ("vector_base", 16, "sparse: the weight vector from which on its masks count"),
            ("binary", 1, "1: bytes are eight values of -1 or +1, as weights are; the sums count twice the agreements"),
            ("int4", 1, "1: bytes of weights are two weights; a group has twice as many channels as there are lanes"),
        ),
        (
            ("out_row_step", -24, "bytes from the last group of an output row to the first of the next row"),
            ("", 4, ""),
            ("add_multiplier", 30, "add: the output multiplier less 2**30"),
            ("add_shift", 6, "add: the output right shift plus ``SHIFT_BIAS``"),
        ),
        (
            ("in_coded", 1, "even input rows: 1: they are compressed"),
            ("in_signed", 1, "even input rows, compressed: 1: their bytes are around 128"),
            ("in_coded_odd", 1, "the same of odd input rows"),
            ("in_signed_odd", 1, "the same of odd input rows"),
            ("out_coded", 1, "1: output rows are compressed; out_row_step are the bytes of a row's slot, out_x_step is 2"),
            ("out_signed", 1, "compressed output rows: 1: their bytes are around 128"),
            ("", 2, ""),
            ("pixel_step", 8, "compressed input rows: granules from a pixel's last in a group to the next pixel's first"),
            ("turn", 16, "compressed input rows: the granule from which on a group's last in a pixel is the row's last of it"),
            ("turn_step", -16, "compressed input rows: granules from there to the first of the next group"),
            ("in_rate", 7, "even input rows, compressed: the rate of their budget; 0: they are lossless"),
            ("in_rate_odd", 7, "the same of odd input rows"),
        ),
    )
)

STEP_RUN = _pack(
    (
        (
            ("opcode", 4, "``Opcode.RUN``"),
            ("wait", 1, "not used: a run always waits until the core is idle"),
            ("lead_rows", 6, "padding rows in front of the first input row"),
            ("wrap_rows", 8, "input rows in front of the one at ``wrap_address``; 0: all follow the first"),
            ("", 1, ""),
            ("layer", 12, "entry of the layer table, whose descriptor is at byte 64 * layer"),
            ("rows", 16, "output rows"),
            ("in_rows", 16, "input rows that exist"),
        ),
        (
            ("in_address", 20, "store word of the first input row"),
            ("wrap_address", 20, "store word of the row behind ``wrap_rows`` others"),
            ("out_address", 24, "first byte of the first output row"),
        ),
    )
)

STEP_LOAD = _pack(
    (
        (
            ("opcode", 4, "the opcode of a load"),
            ("wait", 1, "1: wait until the core is idle"),
            ("fetched", 1, "1: wait until all fetches have ended"),
            ("format", 2, "weights: an entry of ``WEIGHT_FORMATS``"),
            ("shared", 1, "weights and palettes: 1: of an entry of the palette each store word's bytes are the same"),
            ("", 11, ""),
            ("layer", 12, "entry of the layer table that the load is for; the status register shows it"),
            ("count", 16, "store words"),
            ("destination", 16, "first weight vector, parameter entry, mask or palette entry"),
        ),
        (("in_address", 20, "first store word"),),
    )
)

STEP_FETCH = _pack(
    (
        (
            ("opcode", 4, "``Opcode.FETCH``"),
            ("wait", 1, "1: wait until the core is idle"),
            ("", 15, ""),
            ("layer", 12, "entry of the layer table that the words are for; the status register shows it"),
            ("count", 16, "words"),
        ),
        (
            ("in_address", 20, "store word that the first goes to"),
            ("", 20, ""),
            ("external", 24, "first word of the external memory"),
        ),
    )
)
"""A fetch begins when the one before has ended and no load is in work, and goes on beside the next steps."""

STEP_HOST = _pack(
    (
        (
            ("opcode", 4, "``Opcode.HOST``"),
            ("take", 1, "1: the host takes output rows from the store; 0: it writes input rows there"),
            ("first", 1, "1: the rows are the tensor's first; 0: they follow those of the last such step"),
            ("", 14, ""),
            ("", 12, ""),
            ("rows", 16, "rows"),
            ("columns", 16, "pixels of each"),
        ),
        (
            ("in_address", 20, "store word of the first row"),
            ("row_words", 16, "store words from one row to the next"),
            ("column", 16, "the first of the pixels in the tensor's rows"),
        ),
    )
)
"""The core stops until the host has done what the step says and resumes it. It waits for everything under way before."""

STEP_LOOP = _pack(
    (
        (
            ("opcode", 4, "``Opcode.LOOP``"),
            ("", 28, ""),
            ("count", 16, "how often to go back"),
        ),
        (("in_address", 20, "store word of the step to go back to"),),
    )
)
"""It goes back at most ``MOST_TURNS`` times. Loops must not be nested: there is one counter."""

PARAMETER = _pack(
    (
        (
            ("multiplier", 30, "less 2**30, unless ``small_multipliers``"),
            ("shift", 6, "right shift plus ``SHIFT_BIAS``"),
            ("bias", -28, "added to the accumulator"),
        ),
    )
)

ADD_TABLE = _pack(
    (
        (
            ("first", -28, "the first operand, scaled, if its stored byte is the number of the entry"),
            ("", 8, ""),
            ("second", -28, "the same of the second operand"),
        ),
    )
)
"""What a parameter entry holds for an addition."""


class Opcode:
    """Opcodes of the program's steps."""

    END = 0
    LOAD_WEIGHTS = 1
    LOAD_PARAMETERS = 2
    RUN = 3
    FETCH = 4
    HOST = 5
    LOOP = 6
    LOAD_MASKS = 7
    LOAD_PALETTE = 8


class Error:
    """Status codes of a stopped core: what, and the sentence that explains it."""

    NONE = 0
    MAGIC = 1
    VERSION = 2
    CONFIG = 3
    OPCODE = 4
    READ = 5
    WRITE = 6
    EMPTY = 7
    SLOT = 8
    CODE = 9

    TEXT: Mapping[int, str] = {
        NONE: "no error",
        MAGIC: "the store does not start with a program image",
        VERSION: "the image has another version than the core",
        CONFIG: "the image was compiled for another configuration: lanes, store width, or what the core can do",
        OPCODE: "a step has an unknown opcode",
        READ: "a step reads outside the store",
        WRITE: "a layer or a fetch writes outside the store, or into the image",
        EMPTY: "a load step, a fetch or a layer is empty",
        SLOT: "a compressed row of a layer's output does not fit its slot",
        CODE: "a compressed row is not what the compressor writes",
    }


@dataclasses.dataclass(frozen=True)
class Register:
    """A 32-bit register: byte ``address``, ``access`` (``r``, ``rw`` or ``w``), fields by name, one-line doc."""

    name: str
    address: int
    access: str
    doc: str
    fields: Mapping[str, Field]


REGISTERS = (
    Register(
        "ident",
        0x00,
        "r",
        "Identification.",
        {
            "version": Field(0, 16, doc="version of the image format"),
            "lanes": Field(16, 8, doc="lanes of the array"),
            "store_bytes": Field(24, 8, doc="bytes per store word"),
        },
    ),
    Register(
        "control",
        0x04,
        "rw",
        "Start and interrupt enable.",
        {
            "start": Field(0, 1, doc="write 1: run the image at store word 0; reads 0; ignored while busy"),
            "interrupt_enable": Field(1, 1, doc="the interrupt follows `status.done` and `status.paused` while this is 1"),
            "warm": Field(
                2, 1, doc="with start: without the loads of what stays in the buffers, where the last run of this image left it"
            ),
            "resume": Field(3, 1, doc="write 1: go on behind the host step; reads 0; ignored unless `status.paused`"),
        },
    ),
    Register(
        "status",
        0x08,
        "r",
        "State of the core. Starting clears all but `busy`.",
        {
            "busy": Field(0, 1, doc="a program runs; the store window answers with a bus error"),
            "done": Field(1, 1, doc="the program has ended, with or without an error"),
            "refused": Field(2, 1, doc="the host touched the store while busy; cleared by start"),
            "paused": Field(3, 1, doc="the program waits at a host step, which `step` tells, to be resumed"),
            "error": Field(8, 4, doc="error code, 0 for none"),
            "layer": Field(16, 12, doc="layer table entry of the last run step; after an error, of the step that failed"),
        },
    ),
    Register("cycles", 0x0C, "r", "Clock cycles from start to done, without those of pauses.", {"cycles": Field(0, 32)}),
    Register("store_words", 0x10, "r", "Words of the store.", {"store_words": Field(0, 32)}),
    Register("step", 0x14, "r", "Store word of the step behind the last one taken.", {"step": Field(0, 32)}),
)

STORE_WINDOW = 0x0080_0000
"""Bus byte address at which the store appears."""


class UserError(Exception):
    """What the user can mend: bad input, or a missing tool. The message is one sentence with the rule and the value."""


class ConfigError(UserError, ValueError):
    """A configuration breaks a rule; the message is one sentence with the rule and the value."""


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclasses.dataclass(frozen=True)
class Config:
    """Parameters of a core.

    Parameters
    ----------
    name : str
    technology : str
        ``generic`` (inferred memories and multipliers) or ``ice40`` (SPRAM and SB_MAC16 instances).
    lanes : int
        Multipliers and accumulators: 8, 16, 32 or 64.
    store_bytes : int
        Bytes per store word, 8 or 16, at most ``lanes``.
    store_words : int
        Depth of the store, at least 256.
    store_ports : int
        2: reads and writes in the same cycle; 1: a write takes the cycle of a read.
    row_words, weight_vectors, parameters : int
        Depths of the row buffer, weight buffer (words of ``lanes`` bytes) and parameter buffer (channels); powers of two. A row
        buffer of fewer than 256 words is made of LUTs, and no block RAM; not with ``ice40``, whose LUTs are no memories.
    acc_bits : int
        Accumulator width, 18 to 28.
    interval : int
        Cycles the requantizer takes for an output: 1; or 2, which halves its multipliers (on an ``ice40`` two DSP blocks
        instead of four) and still takes only one cycle for most: those of small sums, and those that ReLU cuts off.
    fetch_latency, fetch_interval : int
        Cycles from a request to the external memory to the first store word, and from one to the next. The hardware works
        with any; the cycle model and the simulated memory need them. The default is that of
        :class:`gossamer.hdl.flash_reader.FlashReader`, a serial flash read over four lines. ``fetch_interval`` 0: the core has
        no port to an external memory.
    codec : str
        How rows of feature maps may be compressed, one of ``CODECS``: ``off``, not at all; ``lossless``; ``bounded``, also
        lossless, with incompressible values left plain; or ``budgeted``, lossless or with low bits dropped so that a row
        takes no more than a budget.
    codec_streams : int
        Units of a compressed row, and values that are decoded in a cycle: a power of two, at most ``store_bytes``.
    masks : int
        Depth of the mask buffer, a power of two up to ``weight_vectors``; 0: there is none, and no block-sparse weights. A
        mask says which of ``lanes`` successive weight vectors are stored, because they are not zero.
    binary : bool
        Feature maps may have a bit per value, -1 or +1, and layers on them binary weights: eight products per lane and cycle.
    nibbles : bool
        Feature maps may have four bits per value.
    int4 : bool
        Layers may have weights of four bits: two products per lane and cycle, with one multiplier of 9 by 17 bits, and twice
        the accumulators. Not with ``ice40``, whose multipliers are too small.
    decoder : str
        How weights may lie in the store beside bytes, one of ``DECODERS``: ``off``, not at all; ``nibbles``, as numbers of four
        bits; ``palettes``, also as numbers of entries of a palette, not with ``ice40``, which has no small memories. Vectors
        must have at least two store words.
    lut_lanes : int
        ``ice40``: lanes whose multipliers are made of LUTs, because their DSP blocks serve the requantizer; even.
    """

    name: str
    technology: str = "generic"
    lanes: int = 16
    store_bytes: int = 8
    store_words: int = 16384
    store_ports: int = 2
    row_words: int = 256
    weight_vectors: int = 512
    parameters: int = 256
    acc_bits: int = 24
    interval: int = 1
    fetch_latency: int = 0
    fetch_interval: int = 0
    lut_lanes: int = 0
    codec: str = "off"
    codec_streams: int = 1
    masks: int = 0
    binary: bool = False
    nibbles: bool = False
    int4: bool = False
    decoder: str = "off"

    def __post_init__(self) -> None:
        def require(condition: bool, rule: str, value: object) -> None:
            if not condition:
                raise ConfigError(f"configuration {self.name!r}: {rule}, not {value!r}")

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = {"str": str, "int": int, "bool": bool}[str(getattr(field.type, "__name__", field.type))]
            require(type(value) is kind, f"{field.name} must be of type {kind.__name__}", value)
        # The name becomes part of file names and of comments.
        plain = self.name != "" and self.name.isprintable() and "/" not in self.name
        require(plain, "name must be printable, without '/'", self.name)
        require(self.technology in ("generic", "ice40"), "technology must be 'generic' or 'ice40'", self.technology)
        require(self.codec in CODECS, f"codec must be one of {', '.join(CODECS)}", self.codec)
        require(self.lanes in (8, 16, 32, 64), "lanes must be 8, 16, 32 or 64", self.lanes)
        require(self.store_bytes in (8, 16), "store_bytes must be 8 or 16", self.store_bytes)
        require(self.store_bytes <= self.lanes, f"store_bytes must be at most lanes ({self.lanes})", self.store_bytes)
        require(256 <= self.store_words <= 1 << 19, "store_words must be 256 to 524288", self.store_words)
        require(self.store_ports in (1, 2), "store_ports must be 1 or 2", self.store_ports)
        rows = 256 if self.technology == "ice40" else 16
        for name, least, most in (("row_words", rows, 8192), ("weight_vectors", 256, 32768), ("parameters", 256, 32768)):
            value = getattr(self, name)
            good = _power_of_two(value) and least <= value <= most
            require(good, f"{name} must be a power of two, {least} to {most}", value)
        if self.masks:
            good = _power_of_two(self.masks) and 256 <= self.masks <= self.weight_vectors
            require(good, f"masks must be 0 or a power of two, 256 to weight_vectors ({self.weight_vectors})", self.masks)
        require(self.decoder in DECODERS, f"decoder must be one of {', '.join(DECODERS)}", self.decoder)
        if self.decoder != "off":
            least = 2 * self.store_bytes
            require(self.lanes >= least, f"lanes must be at least 2 store words ({least}) for a decoder", self.lanes)
        require(self.interval in (1, 2), "interval must be 1 or 2", self.interval)
        if self.fetch_interval:
            least = 2  # a request takes a cycle
            require(least <= self.fetch_latency <= 65535, f"fetch_latency must be {least} to 65535", self.fetch_latency)
            require(1 <= self.fetch_interval <= 65535, "fetch_interval must be 0 to 65535", self.fetch_interval)
        most = self.store_bytes
        streams = _power_of_two(self.codec_streams) and self.codec_streams <= most
        require(streams, f"codec_streams must be a power of two, 1 to {most}", self.codec_streams)
        require(self.codec_streams == 1 or self.codec != "off", "codec_streams must be 1 without a codec", self.codec_streams)
        require(18 <= self.acc_bits <= 28, "acc_bits must be 18 to 28", self.acc_bits)
        require(
            0 <= self.lut_lanes <= self.lanes and self.lut_lanes % 2 == 0,
            f"lut_lanes must be an even number of lanes up to {self.lanes}",
            self.lut_lanes,
        )
        if self.technology == "ice40":
            require(self.store_words == 16384, "an ice40 store must have 16384 words", self.store_words)
            require(self.store_bytes == 8, "an ice40 store must be 8 bytes wide", self.store_bytes)
            require(self.store_ports == 1, "an ice40 store must have 1 port", self.store_ports)
            require(not self.int4, "int4 must be false with ice40", self.int4)
            require(self.decoder != "palettes", "decoder must be 'off' or 'nibbles' with ice40", self.decoder)

    @property
    def store_size(self) -> int:
        """Bytes in the store."""
        return self.store_words * self.store_bytes

    @property
    def longest_load(self) -> int:
        """Store words of the longest load: that which fills the largest buffer."""
        return max(
            self.weight_vectors * self.granules,
            self.row_words * self.granules,
            self.parameters * 8 // self.store_bytes,
            self.masks * self.mask_bytes // self.store_bytes,
        )

    @property
    def mask_bytes(self) -> int:
        """Bytes of an entry of the mask buffer, whole store words: a bit for each of ``lanes`` weight vectors, then 16 bits
        with the number of vectors that are stored in front of them."""
        return -(-(self.lanes // 8 + 2) // self.store_bytes) * self.store_bytes

    @property
    def granules(self) -> int:
        """Store words per row buffer word or weight vector."""
        return self.lanes // self.store_bytes

    @property
    def codec_chunk(self) -> int:
        """Bytes of a unit that lie side by side in the slot of a compressed row."""
        return self.store_bytes if self.codec_streams == 1 else max(CODEC_CHUNK, self.codec_streams)

    @property
    def slot_bytes(self) -> int:
        """Slots of compressed rows have a multiple of so many bytes: a chunk of each unit."""
        return self.codec_streams * self.codec_chunk


_UP5K = Config("up5k", "ice40", store_ports=1, acc_bits=22, interval=2, fetch_latency=39, fetch_interval=16, lut_lanes=4)
_ECP5_85 = Config(
    "ecp5_85", lanes=64, store_bytes=16, store_words=16384, weight_vectors=1024, fetch_latency=55, fetch_interval=32
)

_ECP5 = Config("ecp5_25", store_bytes=16, store_words=4096, fetch_latency=55, fetch_interval=32)

CONFIGS: Mapping[str, Config] = {
    c.name: c
    for c in (
        # The block RAMs of the devices: 26 (GW1NR-9) and 46 (GW2A-18) of 2 kB of data, 56 and 208 (ECP5) of 2 kB. The external
        # memory is a serial flash over four lines, see gossamer.hdl.flash_reader.
        _UP5K,
        dataclasses.replace(_UP5K, name="up5k_codec", codec="lossless"),
        # With 16 lanes, this would take 94 % of the device, and not be routed.
        dataclasses.replace(
            _UP5K,
            name="up5k_compressed",
            lanes=8,
            row_words=512,
            interval=1,
            lut_lanes=0,
            codec="lossless",
            masks=256,
            binary=True,
        ),
        Config("gw1n9", store_words=3072, weight_vectors=256, fetch_latency=39, fetch_interval=16),
        # As wide as they are, row and weight buffer would take 16 blocks each. So the row buffer is made of LUTs.
        Config("gw2a18", lanes=64, store_words=7168, row_words=32, decoder="nibbles", fetch_latency=39, fetch_interval=16),
        _ECP5,
        dataclasses.replace(
            _ECP5,
            name="ecp5_25_compressed",
            store_bytes=8,
            store_words=8192,
            codec="lossless",
            masks=256,
            binary=True,
            nibbles=True,
            int4=True,
            decoder="palettes",
            fetch_latency=39,
            fetch_interval=16,
        ),
        _ECP5_85,
        dataclasses.replace(_ECP5_85, name="ecp5_85_codec", codec="lossless", codec_streams=8),
    )
}
"""The named configurations."""


def table(path: Path, what: str) -> dict[str, Any]:
    """The content of a JSON file, or of a TOML file of any other suffix; ``what`` the message calls it if it is neither."""
    try:
        text = path.read_text()
        fields: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"it holds no table, but {text.strip()[:20]}")
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{what} {path} must be TOML or JSON: {error}") from None
    return fields


def config(name: str | Path) -> Config:
    """The configuration called ``name``, or the one in the TOML or JSON file ``name``.

    Raises :class:`ConfigError` when there is neither, or when the file breaks a rule.
    """
    if str(name) in CONFIGS:
        return CONFIGS[str(name)]
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"configuration must be a file or one of {', '.join(CONFIGS)}, not {str(name)!r}")
    fields = table(path, "configuration file")
    known = {field.name for field in dataclasses.fields(Config)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise ConfigError(f"configuration file {path} must have only the keys {', '.join(sorted(known))}, not {unknown[0]!r}")
    return Config(**{"name": path.stem, **fields})
