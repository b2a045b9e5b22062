"""The definition of the machine: what a program does to the store.

Written for reading, not as the hardware works: a run step computes each output pixel as the dot product that it means. What
the hardware may do in any order, or cannot do, is refused with :class:`MachineError`, so that a program that runs here
has one meaning.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from gossamer.golden import codec, weight_formats
from gossamer.golden.arithmetic import multiply_by_quantized_multiplier
from gossamer.golden.program import Program, Record
from gossamer.golden.spec import (
    ADD_TABLE,
    CODEC_SLOT,
    DECODERS,
    MOST_FETCHED,
    MOST_TURNS,
    PALETTE_ENTRIES,
    PARAMETER,
    PARAMETER_BYTES,
    SHIFT_BIAS,
    STEP_BYTES,
    Config,
    Field,
    Opcode,
    UserError,
)

__all__ = ["Code", "Machine", "MachineError", "Run", "input_codes", "output_code", "output_rows", "row_order"]


class MachineError(UserError, ValueError):
    """A program does what the machine does not define; the message is one sentence with the rule and the value."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run step, as it was executed.

    ``rows`` are the rows that went through the row buffer, one slot each; ``blank`` says which of them are padding;
    ``sums`` is what was scaled, ``small`` which of them the requantizer is told to be small, and ``output`` the bytes that they
    became, all ``(rows, groups, width, group)`` before the last group was cut to ``last_lanes``. Of partial sums ``output`` has
    the 8 bytes of an entry in a last axis. ``stored`` says of a block-sparse layer which vectors of a window the weight buffer
    has, ``(groups, kernel_rows, vectors of a kernel row)``.
    """

    step: Record
    layer: Record
    rows: NDArray[np.uint8]
    blank: NDArray[np.bool_]
    sums: NDArray[np.int64]
    small: NDArray[np.bool_]
    output: NDArray[np.uint8]
    stored: NDArray[np.bool_] | None = None


class CodecOptions(TypedDict):
    """What :func:`gossamer.golden.codec.encode_units` and its like want to know."""

    lanes: int
    signed: bool
    bounded: bool
    per_value: int


class Code(NamedTuple):
    """How rows are compressed: whether values are around 128, and the rate of the budget, or 0."""

    signed: bool
    rate: int

    def options(self, config: Config) -> CodecOptions:
        """For a unit, with the codec of a configuration."""
        bounded, lanes = config.codec == "bounded", config.lanes // config.codec_streams
        return {"lanes": lanes, "signed": self.signed, "bounded": bounded, "per_value": self.rate}


def input_codes(layer: Record) -> list[Code | None]:
    """Of even and of odd input rows; none if they are not compressed."""
    parities = ("", "_odd")
    return [Code(bool(layer[f"in_signed{p}"]), layer[f"in_rate{p}"]) if layer[f"in_coded{p}"] else None for p in parities]


def output_code(layer: Record) -> Code:
    """Of output rows that are compressed."""
    return Code(bool(layer["out_signed"]), layer["out_rate"])


def output_rows(layer: Record, output: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The values of compressed output rows, in the order in which they are coded, from :attr:`Run.output`."""
    live = output[..., : layer["last_lanes"]] if layer["groups"] == 1 else output
    return live.reshape(len(output), -1)


def row_order(layer: Record, config: Config) -> NDArray[np.int64]:
    """The bytes of a row slot in the order in which a compressed row has their values: group by group."""
    position, found = layer["left_granules"], []
    seen = set()
    while True:
        found.append(position)
        seen.add(position)
        if position + 1 == layer["right_granule"]:
            break
        if (position + 1) % config.granules:
            position += 1
        else:
            position += layer["turn_step"] if position >= layer["turn"] else layer["pixel_step"]
        if position in seen or not layer["left_granules"] <= position < layer["right_granule"]:
            raise MachineError(f"a layer must have each granule of a compressed row once, and not come to {position} then")
    if len(found) != layer["right_granule"] - layer["left_granules"]:
        raise MachineError(f"a layer must come to all granules of a compressed row, not only to {len(found)}")
    return (np.array(found)[:, None] * config.store_bytes + np.arange(config.store_bytes)).reshape(-1)


def values_per_byte(layer: Record, rows: str) -> int:
    """Of ``in`` or ``out`` rows."""
    return 2 if layer[f"{rows}_nibbles"] else 8 if layer[f"{rows}_bits"] else 1


class Machine:
    """The store, the weight buffer and the parameter buffer, and the steps that change them.

    Parameters
    ----------
    config : Config

    Attributes
    ----------
    store : uint8 array
    weights : int8 array ``(weight_vectors, lanes)``
    parameters : uint8 array ``(parameters, 8)``
    masks : uint8 array ``(masks, mask_bytes)``
    palette : int8 array ``(PALETTE_ENTRIES, lanes)``
    external : uint8 array
        The external memory, as :meth:`execute` finds it in the program.
    step : int
        The number of the step that was yielded last.
    """

    def __init__(self, config: Config):
        self.config = config
        self.store = np.zeros(config.store_size, np.uint8)
        self.weights = np.zeros((config.weight_vectors, config.lanes), np.int8)
        self.parameters = np.zeros((config.parameters, 8), np.uint8)
        self.masks = np.zeros((config.masks, config.mask_bytes), np.uint8)
        self.palette = np.zeros((PALETTE_ENTRIES, config.lanes), np.int8)
        self.external = np.zeros(0, np.uint8)
        self.step = 0
        self._fetching = range(0)  # bytes of the store that a fetch may still be writing

    def execute(self, program: Program, *, warm: bool = False) -> Iterator[Record | Run]:
        """Run a program that lies in the store, and yield each step: run steps as :class:`Run`, the others as they are.
        Whoever is given a ``HOST`` step must have done what it says before the next is asked for.

        ``warm``: without the loads of what stays in the buffers, which a run before must have left there."""
        self.external = np.frombuffer(program.external, np.uint8)
        self.step = program.warm if warm else 0
        turns = 0
        while self.step < len(program.steps):
            step = program.steps[self.step]
            if step["opcode"] == Opcode.LOOP:
                yield step
                turns = turns + 1 if turns < step["count"] else 0
                if turns:
                    self.step = self._target(step, program)
                    continue
            elif step["opcode"] == Opcode.HOST:
                self._fetching = range(0)
                yield step
            elif step["opcode"] == Opcode.FETCH:
                self._fetch(step, program.size)
                yield step
            elif step["opcode"] == Opcode.RUN:
                if not 1 <= step["layer"] <= len(program.layers):
                    raise MachineError(f"a run step must have a layer of 1 to {len(program.layers)}, not {step['layer']}")
                yield self._run(step, program.layers[step["layer"] - 1], program.size)
            else:
                self._load(step)
                yield step
            self.step += 1

    def _target(self, loop: Record, program: Program) -> int:
        """The step that a loop goes back to."""
        if loop["count"] > MOST_TURNS:
            raise MachineError(f"a loop must go back at most {MOST_TURNS} times, not {loop['count']}")
        size = STEP_BYTES // self.config.store_bytes
        step, rest = divmod(loop["in_address"] - program.step_word(0), size)
        if rest or not 0 <= step <= self.step:
            raise MachineError(
                f"a loop must go back to word {program.step_word(0)} to {program.step_word(self.step)}, where a step is, not "
                f"to {loop['in_address']}"
            )
        return step

    def _read(self, word: int, words: int) -> NDArray[np.uint8]:
        if not 0 <= word <= word + words <= self.config.store_words:
            raise MachineError(
                f"a step must read store words 0 to {self.config.store_words - 1}, not {word} to {word + words - 1}"
            )
        size = self.config.store_bytes
        self._check_fetched(word * size, (word + words) * size)
        return self.store[word * size : (word + words) * size]

    def _check_fetched(self, start: int, stop: int) -> None:
        if start < self._fetching.stop and self._fetching.start < stop:
            raise MachineError(
                f"a step must not use bytes {self._fetching.start} to {self._fetching.stop - 1} of the store before a load has "
                f"waited for their fetch, as bytes {start} to {stop - 1} are"
            )

    def _fetch(self, step: Record, protected: int) -> None:
        """Begins when the fetch before has ended; when this one has ended only the next, or a load that waits for it, knows."""
        if not 1 <= step["count"] <= MOST_FETCHED:
            raise MachineError(f"a fetch must have 1 to {MOST_FETCHED} words, not {step['count']}")
        size = self.config.store_bytes
        if not self.config.fetch_interval:
            raise MachineError(f"a fetch needs a configuration with fetch_interval, which {self.config.name!r} has not")
        start, stop = (at * size for at in (step["in_address"], step["in_address"] + step["count"]))
        if start < protected or stop > len(self.store):
            raise MachineError(
                f"a fetch must write bytes {protected} to {len(self.store) - 1} of the store, not {start} to {stop - 1}"
            )
        words = self.external[step["external"] * size :][: step["count"] * size]
        if len(words) < step["count"] * size:
            raise MachineError(
                f"a fetch must read words 0 to {len(self.external) // size - 1} of the external memory, not "
                f"{step['external']} to {step['external'] + step['count'] - 1}"
            )
        self.store[start:stop] = words
        self._fetching = range(start, stop)

    def _load(self, step: Record) -> None:
        if step["count"] == 0:
            raise MachineError("a load step must not be empty")
        if step["fetched"]:
            self._fetching = range(0)
        data = self._read(step["in_address"], step["count"])
        if step["opcode"] == Opcode.LOAD_PALETTE:
            self._load_palette(step, data)
            return
        if step["opcode"] == Opcode.LOAD_WEIGHTS:
            data = self._decoded(step, data)
            target, entry, what = self.weights.view(np.uint8), self.config.lanes, "weight vector"
        elif step["opcode"] == Opcode.LOAD_MASKS:
            if not self.config.masks:
                raise MachineError(f"a load of masks needs a configuration with masks, which {self.config.name!r} has not")
            target, entry, what = self.masks, self.config.mask_bytes, "mask"
        else:
            target, entry, what = self.parameters, 8, "parameter entry"
        start = step["destination"] * entry
        if len(data) % entry or start % self.config.store_bytes or start + len(data) > target.size:
            raise MachineError(
                f"a load step must fill whole entries up to {what} {len(target) - 1}, not {len(data)} bytes "
                f"from {what} {step['destination']} on"
            )
        target.reshape(-1)[start : start + len(data)] = data

    def _decoded(self, step: Record, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bytes of weights in the format of a load."""
        if not step["format"]:
            return data
        least = ("off", "nibbles", "palettes", "palettes")[step["format"]]
        if DECODERS.index(self.config.decoder) < DECODERS.index(least):
            raise MachineError(f"a load of format {step['format']} needs a configuration with decoder {least!r}")
        width = self.config.lanes // self.config.store_bytes // 2  # words of a vector, but for bytes
        words = step["count"] - -(-step["count"] // 5) * (step["format"] == 3)
        if words % width or not words:
            raise MachineError(f"a load of format {step['format']} must have whole vectors of {width} words, not {words} words")
        vectors = weight_formats.decode(data, step["format"], self.palette, bool(step["shared"]), self.config)
        return np.ascontiguousarray(vectors).view(np.uint8).reshape(-1)

    def _load_palette(self, step: Record, data: NDArray[np.uint8]) -> None:
        if self.config.decoder != "palettes":
            raise MachineError(f"a palette needs a configuration with decoder 'palettes', which {self.config.name!r} has not")
        width = self.config.store_bytes if step["shared"] else self.config.lanes
        entries, rest = divmod(len(data), width)
        if rest or entries > PALETTE_ENTRIES or step["destination"]:
            raise MachineError(
                f"a palette must have 1 to {PALETTE_ENTRIES} entries of {width} bytes from entry 0 on, not {len(data)} bytes "
                f"from entry {step['destination']} on"
            )
        values = data.view(np.int8).reshape(entries, width)
        if step["shared"]:
            values = np.tile(values, 2)
        self.palette[:entries, : values.shape[1]] = values

    def _run(self, step: Record, layer: Record, protected: int) -> Run:
        self._check(step, layer)
        rows, blank = self._rows(step, layer)
        weights, stored = self._sparse_weights(layer) if layer["sparse"] else (self._weights(layer), None)
        sums = (self._word_sums if layer["word_mode"] else self._byte_sums)(step, layer, rows, weights)
        bits = self.config.acc_bits
        sums = ((sums + (1 << bits - 1)) & (1 << bits) - 1) - (1 << bits - 1)
        accumulated = sums
        sums, multiplier, shift = self._parameters(layer, accumulated)
        small = _has_bits(accumulated, 15) & _has_bits(sums - accumulated, 15) & (not layer["add"])
        if layer["partial_out"]:
            output = self._entries(sums, multiplier, shift)
        else:
            output = self._scale(layer, sums, multiplier, shift)
        self._write(step, layer, output, protected)
        return Run(step, layer, rows, blank, sums, small, output, stored)

    def _check(self, step: Record, layer: Record) -> None:
        stride = layer["stride_rows"]
        group = self.config.lanes << layer["int4"]
        slots, rest = divmod(layer["ring_words"], max(layer["slot_words"], 1))
        needed = max(layer["kernel_rows"], layer["stride_rows"])
        if layer["ahead"]:
            needed = layer["kernel_rows"] + layer["stride_rows"]
        last = layer["offset"] + (layer["width"] - 1) * layer["x_step"]
        last += layer["tap_step"] * self.config.lanes * (layer["range_last"] // max(layer["repeat"], 1)) + (
            layer["groups"] * self.config.lanes - 1 if layer["word_mode"] else layer["range_last"]
        )
        coded = any(layer[name] for name in ("in_coded", "in_coded_odd", "out_coded"))
        loops = [step["rows"], *(layer[name] for name in ("width", "groups", "kernel_rows", "slot_words"))]
        if layer["word_mode"]:
            loops.append(layer["repeat"])
        size, streams = self.config.store_bytes, self.config.codec_streams
        row = (layer["right_granule"] - 1) * size + layer["tail"]
        for ok, rule in (
            (min(loops) > 0, "have no empty loop"),
            (layer["left_granules"] < layer["right_granule"], "have rows of at least one store word"),
            (1 <= layer["tail"] <= size, f"have 1 to {size} bytes in the last store word of a row"),
            (row <= layer["slot_words"] * self.config.lanes, "have slots that hold a row"),
            (rest == 0 and layer["ring_words"] <= self.config.row_words, "have a ring of whole slots in the row buffer"),
            (slots >= needed, f"have at least {needed} slots, not {slots}"),
            (stride and slots % stride == 0, f"have a multiple of stride_rows ({stride}) slots, not {slots}"),
            (layer["advance_words"] == layer["stride_rows"] * layer["slot_words"], "advance by stride_rows slots"),
            (last < layer["slot_words"] * self.config.lanes, "read only the slots of its rows"),
            (1 <= layer["last_lanes"] <= group, f"have 1 to {group} last lanes"),
            (layer["clamp_min"] <= layer["clamp_max"], "have clamps in order"),
            (not coded or self.config.codec != "off", "have compressed rows only with a codec"),
            (
                not any(layer[name] for name in ("in_rate", "in_rate_odd", "out_rate")) or self.config.codec == "budgeted",
                "have budgets only with a codec for them",
            ),
            (
                not any(0 < layer[name] < 16 * codec.LEAST_RATE for name in ("in_rate", "in_rate_odd", "out_rate")),
                f"have budgets of a rate of at least {16 * codec.LEAST_RATE}",
            ),
            (
                not (layer["in_coded"] or layer["in_coded_odd"]) or layer["tail"] == size,
                "have whole store words in compressed rows",
            ),
            (
                not layer["out_coded"] or layer["groups"] == 1 or layer["last_lanes"] == self.config.lanes,
                "have full groups, or one, in compressed rows",
            ),
            (
                not layer["out_coded"] or (not layer["partial_out"] and layer["out_x_step"] == 2),
                "step by 2 bytes, and not have partial sums, in compressed rows",
            ),
            (
                not layer["out_coded"] or layer["last_lanes"] % streams == 0,
                f"have a multiple of {streams} channels in compressed rows",
            ),
            (
                not layer["out_coded"]
                or (
                    0 < layer["out_row_step"] <= streams * CODEC_SLOT
                    and layer["out_row_step"] % self.config.slot_bytes == step["out_address"] % size == 0
                ),
                f"have slots of {self.config.slot_bytes} bytes or a multiple, at most {streams * CODEC_SLOT} bytes, from whole "
                "store words on, for compressed rows",
            ),
            (
                self.config.nibbles or not (layer["in_nibbles"] or layer["out_nibbles"]),
                "have four bits per value only in a configuration with nibbles",
            ),
            (
                self.config.binary or not (layer["in_bits"] or layer["out_bits"] or layer["binary"]),
                "have a bit per value only in a configuration with binary",
            ),
            (
                layer["binary"] + (layer["word_mode"] or layer["sparse"] or layer["int4"]) < 2,
                "have binary weights only for bytes, of a bit, and no masks then",
            ),
            (
                not layer["int4"] or (self.config.int4 and not layer["word_mode"]),
                "have weights of four bits only in a configuration with int4, and for bytes",
            ),
            (
                layer["int4"] + layer["out_coded"] < 2,
                "have weights of eight bits where it compresses rows",
            ),
            (
                not coded or values_per_byte(layer, "in") * values_per_byte(layer, "out") == 1,
                "have compressed rows only of bytes",
            ),
            (
                layer["partial_out"] + layer["out_nibbles"] + layer["out_bits"] < 2
                and layer["in_nibbles"] + layer["in_bits"] < 2,
                "have rows of one kind",
            ),
            (
                layer["last_lanes"] % values_per_byte(layer, "out") == 0,
                f"have {values_per_byte(layer, 'out')} values in each byte of its output",
            ),
            (
                not layer["sparse"] or (self.config.masks and not layer["word_mode"] and not layer["shared_weights"]),
                "have masks only in a configuration with masks, for bytes, and in every group",
            ),
            (
                not layer["sparse"] or layer["width"] == 1 or layer["x_step"] % self.config.lanes == 0,
                f"step by whole words of {self.config.lanes} bytes with masks",
            ),
            (
                not layer["word_mode"] or (layer["offset"] | layer["x_step"]) % self.config.lanes == 0,
                f"step by whole words of {self.config.lanes} bytes in word mode",
            ),
        ):
            if not ok:
                raise MachineError(f"a layer must {rule}")

    def _rows(self, step: Record, layer: Record) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """The rows that are loaded, with their padding."""
        config = self.config
        count = layer["kernel_rows"] + (step["rows"] - 1) * layer["stride_rows"]
        rows = np.full((count, layer["slot_words"] * config.lanes), layer["pad"], np.uint8)
        start = layer["left_granules"] * config.store_bytes
        granules = layer["right_granule"] - layer["left_granules"]
        size = (granules - 1) * config.store_bytes + layer["tail"]
        address = step["in_address"]
        real = np.arange(count) - step["lead_rows"]
        blank = (real < 0) | (real >= step["in_rows"])
        coded = input_codes(layer)
        order = row_order(layer, config) if any(coded) else np.zeros(0, np.int64)
        for i, row in zip(real[~blank].tolist(), rows[~blank]):
            code = coded[i % 2]
            if code:
                row[order] = self._decode(address, len(order), code)
            else:
                row[start : start + size] = self._unpacked(layer, address, granules)[:size]
            rows[step["lead_rows"] + i] = row
            address += layer["row_step_odd" if i % 2 else "row_step"]
            if i + 1 == step["wrap_rows"]:
                address = step["wrap_address"]
        return rows, blank

    def _unpacked(self, layer: Record, address: int, granules: int) -> NDArray[np.uint8]:
        """The bytes that so many granules get from store words."""
        data = self._read(address, -(-granules // values_per_byte(layer, "in")))
        if layer["in_nibbles"]:
            return np.stack([data & 15, data >> 4], axis=1).reshape(-1)
        if layer["in_bits"]:
            return np.unpackbits(data, bitorder="little") * np.uint8(2)
        return data

    def _decode(self, word: int, count: int, code: "Code") -> NDArray[np.uint8]:
        """The values of a compressed row that starts in a word."""
        config, size = self.config, self.config.store_bytes
        streams, units, stop, rest = config.codec_streams, [], 0, 0
        for unit in range(streams):
            places = codec.row_places(unit, codec.bound(count // streams, False), streams, config.codec_chunk) + word * size
            data = self.store[places[places < len(self.store)]].tobytes()
            values, bits = codec.decode_bits(data, count // streams, **code.options(config))
            units.append(values)
            stop = max(stop, int(places[(bits - 1) // 8 | 1]) // size + 1)
            rest = max(rest, codec.left(data, bits))
        self._read(word, stop - word)  # nothing behind that is used
        if rest:
            raise MachineError(f"a compressed row must have zeros behind its last value, as it is written, not {rest:#x}")
        return codec.rows_of(np.array(units), streams)[0]

    def _weights(self, layer: Record) -> NDArray[np.int64]:
        """``(groups, vectors of a window, lanes)``."""
        vectors = layer["kernel_rows"] * (layer["range_last"] + 1)
        group = np.zeros(layer["groups"], int) if layer["shared_weights"] else np.arange(layer["groups"])
        index = layer["weight_base"] + group[:, None] * vectors + np.arange(vectors)
        if index.max() >= self.config.weight_vectors:
            raise MachineError(f"a layer must use weight vectors 0 to {self.config.weight_vectors - 1}, not {index.max()}")
        return self._factors(layer, self.weights[index])

    def _factors(self, layer: Record, vectors: NDArray[np.int8]) -> NDArray[np.int64]:
        """The weights in vectors ``(…, lanes)``: with ``int4`` those in the low halves, then those in the high ones."""
        if layer["int4"]:
            vectors = np.concatenate([(vectors << 4) >> 4, vectors >> 4], axis=-1)
        return vectors.astype(np.int64)

    def _sparse_weights(self, layer: Record) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Those in the weight buffer where masks have ones, zero elsewhere; and :attr:`Run.stored`."""
        lanes, phase = self.config.lanes, layer["offset"] % self.config.lanes
        words = (phase + layer["range_last"]) // lanes + 1  # of a kernel row
        index = layer["weight_base"] + np.arange(layer["groups"] * layer["kernel_rows"] * words)
        if index.max() >= self.config.masks:
            raise MachineError(f"a layer must use masks 0 to {self.config.masks - 1}, not {index.max()}")
        entries = self.masks[index]
        stored = np.unpackbits(entries[:, : lanes // 8], axis=1, bitorder="little").astype(np.int64)
        first = entries[:, lanes // 8 : lanes // 8 + 2].copy().view("<u2").astype(np.int64)
        vector = layer["vector_base"] + first + stored.cumsum(1) - stored  # (masks, lanes)
        # Of a kernel row's first and last word the range may have a part only.
        rows = np.zeros((layer["groups"], layer["kernel_rows"], words * lanes), np.int64)
        stored, vector = (part.reshape(rows.shape)[..., phase : phase + layer["range_last"] + 1] for part in (stored, vector))
        used = vector[stored == 1].max(initial=0)
        if used >= self.config.weight_vectors:
            raise MachineError(f"a layer must use weight vectors 0 to {self.config.weight_vectors - 1}, not {used}")
        weights = self._factors(layer, self.weights[np.where(stored == 1, vector, 0)]) * stored[..., None]
        return weights.reshape(layer["groups"], -1, weights.shape[-1]), stored == 1

    def _byte_sums(
        self, step: Record, layer: Record, rows: NDArray[np.uint8], weights: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Sums ``(rows, groups, width, lanes)``: every byte of the window times its weight vector."""
        columns = layer["offset"] + np.arange(layer["width"])[:, None] * layer["x_step"]
        columns = columns + np.arange(layer["range_last"] + 1)
        if layer["binary"]:  # eight times as many of -1 and +1; twice the agreements are one more than the product, each
            bits = np.unpackbits(weights.astype(np.uint8)[:, :, None], axis=2, bitorder="little")
            weights = 2 * bits.reshape(len(weights), -1, weights.shape[2]).astype(np.int64) - 1
        factors = weights.astype(np.float64)  # exact: the sums stay far below 2**53
        sums = []
        for y in range(step["rows"]):
            window = rows[y * layer["stride_rows"] :][: layer["kernel_rows"], columns]  # (ky, x, byte)
            window = window.transpose(1, 0, 2).reshape(layer["width"], -1)
            if layer["binary"]:
                signs = 2.0 * np.unpackbits(window, axis=1, bitorder="little") - 1
                sums.append(signs @ factors + signs.shape[1])
            else:
                sums.append(window.astype(np.float64) @ factors)
        return np.stack(sums).astype(np.int64)

    def _word_sums(
        self, step: Record, layer: Record, rows: NDArray[np.uint8], weights: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Sums ``(rows, groups, width, lanes)``: every word of the window times its weight vector, lane by lane."""
        lanes = self.config.lanes
        words = rows.reshape(len(rows), -1, lanes).astype(np.int64)
        y, g, x = np.ogrid[: step["rows"], : layer["groups"], : layer["width"]]
        sums = np.zeros((step["rows"], layer["groups"], layer["width"], lanes), np.int64)
        vector = 0
        for ky in range(layer["kernel_rows"]):
            for beat in range(layer["range_last"] + 1):
                tap, turn = divmod(beat, layer["repeat"])
                word = layer["offset"] // lanes + x * (layer["x_step"] // lanes) + g + tap * layer["tap_step"]
                if layer["maximum"] and turn == 1:
                    sums = np.maximum(sums, 0)
                else:
                    sums += words[y * layer["stride_rows"] + ky, word] * weights[None, :, None, vector]
                vector += 1
        return sums

    def _parameters(
        self, layer: Record, sums: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What is scaled, and by which multiplier and shift, as the fields of an entry have them."""
        base = layer["parameter_base"]
        if layer["add"]:
            if base % 256 or base + 256 > len(self.parameters):
                most = len(self.parameters) - 256
                raise MachineError(f"an addition's tables must start at a multiple of 256 up to {most}, not at {base}")
            first, second = (_field(ADD_TABLE[name], self.parameters[base : base + 256]) for name in ADD_TABLE)
            sums = first[sums & 255] + second[sums >> 8 & 255]
            return sums, np.array(layer["add_multiplier"]), np.array(layer["add_shift"])
        rows, groups, width, lanes = sums.shape
        per_sum = rows * groups * width * lanes if layer["partial_in"] else groups * lanes
        index = np.arange(per_sum).reshape((-1, groups, width if layer["partial_in"] else 1, lanes))
        live = np.ones((groups, 1, lanes), bool)  # lanes with a channel
        live[-1, :, layer["last_lanes"] :] = False
        last = base + np.where(live, index, 0).max()
        if last >= self.config.parameters:
            raise MachineError(f"a layer must use parameter entries 0 to {self.config.parameters - 1}, not {last}")
        entries = self.parameters[(base + index) % self.config.parameters]
        multiplier, shift, bias = (_field(PARAMETER[name], entries) for name in ("multiplier", "shift", "bias"))
        shift = np.where(live, shift, SHIFT_BIAS)
        return sums + bias, multiplier, shift

    def _scale(
        self, layer: Record, sums: NDArray[np.int64], multiplier: NDArray[np.int64], shift: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Requantization, zero point and clamp: the stored bytes."""
        if shift.min() == 0:
            raise MachineError("a layer must have shifts of at least 1, not 0")
        rounding = "double" if layer["double_rounding"] else "single"
        try:
            hidden = 0 if layer["small_multipliers"] and not layer["add"] else 1 << 30
            scaled = multiply_by_quantized_multiplier(sums, multiplier + hidden, SHIFT_BIAS - shift, rounding)
        except ValueError as error:
            raise MachineError(f"a layer must scale its sums within 32 bits, but {error}") from None
        scaled = np.clip(scaled + layer["zero_point"], layer["clamp_min"], layer["clamp_max"])
        return (scaled + 128).astype(np.uint8)

    def _entries(
        self, sums: NDArray[np.int64], multiplier: NDArray[np.int64], shift: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Partial sums: parameter entries ``(…, 8)`` with the sums in place of the biases."""
        width = PARAMETER["bias"].width
        limit = 1 << width - 1
        worst = sums.flat[np.argmax(np.abs(sums))]
        if sums.min() < -limit or sums.max() >= limit:
            raise MachineError(f"a partial sum must fit {width} bits, not be {worst}")
        entry = multiplier << PARAMETER["multiplier"].offset | shift << PARAMETER["shift"].offset
        entry = entry.astype(np.uint64) | (sums & (1 << width) - 1).astype(np.uint64) << PARAMETER["bias"].offset
        return np.ascontiguousarray(np.broadcast_to(entry, sums.shape)).astype("<u8")[..., None].view(np.uint8)

    def _write_coded(self, step: Record, layer: Record, output: NDArray[np.uint8], protected: int) -> None:
        """Output rows that are compressed."""
        slot = layer["out_row_step"]
        low, high = step["out_address"], step["out_address"] + len(output) * slot - 1
        self._check_written(low, high, protected)
        streams, chunk = self.config.codec_streams, self.config.codec_chunk
        rows = codec.units_of(output_rows(layer, output), streams)
        for i, unit in enumerate(codec.encode_units(rows, **output_code(layer).options(self.config))):
            if streams * len(unit) > slot:
                what = f"row must fit its slot of {slot}" if streams == 1 else f"unit must fit its {slot // streams}"
                raise MachineError(f"a compressed {what} bytes, not take {len(unit)}")
            at = low + i // streams * slot
            self.store[at + codec.row_places(i % streams, len(unit), streams, chunk)] = np.frombuffer(unit, np.uint8)

    def _check_written(self, low: int, high: int, protected: int) -> None:
        if low < protected or high >= len(self.store):
            raise MachineError(
                f"a layer must write bytes {protected} to {len(self.store) - 1} of the store, not {low} to {high}"
            )
        self._check_fetched(low, high + 1)

    def _packed(self, layer: Record, output: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The bytes of output values ``(…, lanes)``."""
        if layer["out_nibbles"]:
            values = output & 15 ^ 8
            return (values[..., ::2] | values[..., 1::2] << 4).astype(np.uint8)
        if layer["out_bits"]:
            return np.packbits(output >> 7, axis=-1, bitorder="little")
        return output

    def _write(self, step: Record, layer: Record, output: NDArray[np.uint8], protected: int) -> None:
        if layer["out_coded"]:
            self._write_coded(step, layer, output, protected)
            return
        shape = output.shape
        y, g, x, lane = np.ogrid[: shape[0], : shape[1], : shape[2], : shape[3]]
        lanes = shape[3]
        if layer["partial_out"]:
            window = (y * layer["groups"] + g) * layer["width"] + x
            address = step["out_address"] + window * layer["out_x_step"] + PARAMETER_BYTES * lane
            if address.min() % PARAMETER_BYTES:
                raise MachineError(f"partial sums must start at a multiple of {PARAMETER_BYTES}, not at {address.min()}")
        else:
            per_byte = values_per_byte(layer, "out")
            output, lane = self._packed(layer, output), lane[..., : lanes // per_byte]
            row_step = layer["out_row_step"] + (layer["groups"] - 1) * (lanes // per_byte)
            address = step["out_address"] + y * row_step + g * (lanes // per_byte) + x * layer["out_x_step"] + lane
            lane = lane * per_byte
        live = np.broadcast_to((g < layer["groups"] - 1) | (lane < layer["last_lanes"]), address.shape)
        size = PARAMETER_BYTES if layer["partial_out"] else 1
        self._check_written(int(address[live].min()), int(address[live].max()) + size - 1, protected)
        if layer["partial_out"]:
            self.store[address[live][:, None] + np.arange(size)] = output[live]
        else:
            self.store[address[live]] = output[live]


def _has_bits(numbers: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
    """Which of the numbers have no more than so many bits."""
    return (numbers >= -1 << bits - 1) & (numbers < 1 << bits - 1)


def _field(field: Field, entries: NDArray[np.uint8]) -> NDArray[np.int64]:
    """A field of all entries ``(…, 8)``."""
    words = np.ascontiguousarray(entries).view("<u8")[..., 0] >> np.uint64(field.offset)
    values = (words & np.uint64((1 << field.width) - 1)).astype(np.int64)
    return values - (values >> field.width - 1 << field.width) if field.signed else values
