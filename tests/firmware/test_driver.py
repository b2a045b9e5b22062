"""The C driver, against a model of the core's registers and store."""

import ctypes
import re
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from gossamer.gateware.registers import firmware_header
from gossamer.golden import denoise, digits
from gossamer.golden.compiler import Strategy, compile_network
from gossamer.golden.host import Host
from gossamer.golden.inference import infer
from gossamer.golden.interpreter import Machine
from gossamer.golden.program import encode
from gossamer.golden.spec import (
    CONFIGS,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    REGISTERS,
    STEP_BYTES,
    STEP_HOST,
    STORE_WINDOW,
    Config,
    Error,
    Opcode,
)
from tests.firmware.core_model import BusError, CoreModel
from tests.networks import inputs, residual
from tests.programs import Streaming

FIRMWARE = Path(__file__).parents[2] / "firmware"
UP5K = CONFIGS["up5k"]
SMALL = Config("small", lanes=8, store_words=2048, fetch_latency=4, fetch_interval=2)

STATUS = next(register.address for register in REGISTERS if register.name == "status")

RESULTS = {
    **{f"CORE_{name}": (code, Error.TEXT[code]) for name, code in vars(Error).items() if name.isupper() and name != "TEXT"},
    **{
        name: (int(value), text)
        for name, value, text in re.findall(r'X\((\w+), (\d+), "(.*)"\)', (FIRMWARE / "gossamer.h").read_text())
    },
}

Read = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))
Write = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32)
Idle = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
Row = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)


class Bus(ctypes.Structure):
    _fields_ = [("read", Read), ("write", Write), ("context", ctypes.c_void_p)]


class Memory(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p)]


class Place(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("address", "rows", "columns", "channels", "pitch", "offset")]


class Program(ctypes.Structure):
    _fields_ = [
        ("input", Place), ("output", Place), ("external_bytes", ctypes.c_uint32), ("external_crc", ctypes.c_uint32),
        ("gives", ctypes.c_bool), ("takes", ctypes.c_bool), ("warm_start", ctypes.c_bool),
    ]  # fmt: skip


def core_structure(bus):
    class Core(ctypes.Structure):
        _fields_ = [
            ("bus", bus), ("verify", ctypes.c_bool), ("interrupts", ctypes.c_bool), ("idle", Idle),
            ("idle_context", ctypes.c_void_p), ("lanes", ctypes.c_uint32), ("store_bytes", ctypes.c_uint32),
            ("store_words", ctypes.c_uint32), ("program", Program), ("loaded", ctypes.c_bool), ("warm", ctypes.c_bool),
            ("started", ctypes.c_bool), ("event", ctypes.c_bool), ("row", ctypes.c_uint32 * 2),
        ]  # fmt: skip

    return Core


class Tensors(ctypes.Structure):
    _fields_ = [
        ("input", ctypes.c_void_p), ("output", ctypes.c_void_p), ("input_zero_point", ctypes.c_int8),
        ("input_row", Row), ("output_row", Row), ("context", ctypes.c_void_p),
    ]  # fmt: skip


class Driver:
    """The driver on a model of a core. Methods return the name of the result, "OK" for none."""

    def __init__(self, library, config=UP5K, **options):
        self.library, self.model = library, CoreModel(config, **options)
        self.accesses, self.status_reads, self.idled, self.patience = 0, 0, 0, 1000
        self.damage = None  # function of address and word that returns what is really written
        self.fail_at = -1  # number of the access that fails
        self._structures = Read(self._read), Write(self._write), Idle(self._idle)
        self.core = core_structure(Bus)()
        self.bus = Bus(*self._structures[:2], None)
        self._names = {value: name for name, (value, _) in RESULTS.items()} | {0: "OK"}

    def _access(self, function, *arguments):
        self.accesses += 1
        try:
            return None if self.accesses - 1 == self.fail_at else function(*arguments)
        except BusError:
            return None

    def _read(self, _, address, word):
        assert address % 4 == 0
        self.status_reads += address == STATUS
        found = self._access(self.model.read, address)
        if found is not None:
            word[0] = found
        return found is not None

    def _write(self, _, address, word):
        assert address % 4 == 0
        word = self.damage(address, word) if self.damage else word
        return self._access(lambda: self.model.write(address, word) or 1) is not None

    def _idle(self, _):
        self.idled += 1
        if self.core.interrupts:
            self.model.read(STATUS)  # time passes
            if self.model.irq:
                self.library.gossamer_interrupt(ctypes.byref(self.core))
                assert not self.model.irq
        return self.idled <= self.patience

    def call(self, name, *arguments):
        return self._names[getattr(self.library, f"gossamer_{name}")(ctypes.byref(self.core), *arguments)]

    def init(self):
        result = self.call("init", self.bus)
        self.core.idle = self._structures[2]
        return result

    def load(self, image):
        return self.call("load", bytes(image), ctypes.c_size_t(len(image)))

    def with_tensors(self, name, x, zero_point=0, output=None):
        tensors = Tensors(x.ctypes.data if x is not None else None, None, zero_point)
        tensors.output = output.ctypes.data if output is not None else None
        return self.call(name, ctypes.byref(tensors))

    def run(self, compiled, x):
        """Result and output of one inference."""
        zero_point = compiled.network.tensors[compiled.device_input].zero_point
        place = compiled.program.output
        y = np.full((place.rows, place.columns, place.channels), 99, np.int8)
        result = self.with_tensors("run", np.ascontiguousarray(x), zero_point, y)
        return result, y.reshape(compiled.network.tensors[compiled.device_output].shape)

    def cycles(self):
        found = ctypes.c_uint32()
        assert self.call("cycles", ctypes.byref(found)) == "OK"
        return found.value


@pytest.fixture(scope="module")
def library(shared_library):
    library = ctypes.CDLL(shared_library("functions"))
    library.gossamer_text.restype = ctypes.c_char_p
    return library


@pytest.fixture
def driver(library):
    return lambda *arguments, **options: Driver(library, *arguments, **options)


@pytest.fixture(scope="module")
def compiled_digits():
    return compile_network(digits.load(), UP5K)


def small(rng):
    return compile_network(residual(rng), SMALL)


def changed(image, **fields):
    """The image with other header fields and a CRC that fits."""
    total = int.from_bytes(image[:HEADER_BYTES], "little")
    for name, value in {**fields, "crc": 0}.items():
        field = HEADER[name]
        total &= ~(((1 << field.width) - 1) << field.offset)
        total |= value << field.offset
    image = total.to_bytes(HEADER_BYTES, "little") + image[HEADER_BYTES:]
    at = HEADER["crc"].offset // 8
    return image[:at] + zlib.crc32(image).to_bytes(4, "little") + image[at + 4 :]


def test_the_generated_header_is_current():
    assert (FIRMWARE / "gossamer_registers.h").read_text() == firmware_header(), "run `python -m gossamer.gateware.registers`"


def test_every_result_has_its_sentence(library):
    for value, text in RESULTS.values():
        assert library.gossamer_text(value).decode() == text
    assert library.gossamer_text(15) == b"an error that this driver does not know"
    assert len({value for value, _ in RESULTS.values()}) == len(RESULTS)


@pytest.mark.parametrize("interrupts", [False, True])
def test_digits_end_to_end(driver, compiled_digits, interrupts):
    around = driver()
    assert around.init() == "OK"
    around.core.interrupts = interrupts
    assert (around.core.lanes, around.core.store_bytes, around.core.store_words) == (16, 8, 16384)
    assert around.load(compiled_digits.program.assemble()) == "OK"
    x = digits.test_set()[0][:6]
    golden = compiled_digits.network.run(x)[compiled_digits.device_output]
    for one, expected in zip(x, golden):
        result, y = around.run(compiled_digits, one)
        assert result == "OK"
        np.testing.assert_array_equal(y, expected)
        assert around.cycles() == around.model.cycles
    assert around.model.starts == ["cold"] * 6, "the digits network has no warm starts here"
    assert around.idled > 0
    # Before the image, and of each run before the input, the start and the output; and when it has ended.
    assert around.status_reads == 1 + 6 * 4 if interrupts else around.status_reads > 1 + 6 * 4
    assert around.call("verify") == "OK"


@pytest.mark.parametrize("interrupts", [False, True])
def test_a_second_run_is_warm(driver, rng, interrupts):
    compiled, around = small(rng), driver(SMALL)
    assert around.init() == "OK"
    around.core.interrupts = interrupts
    assert around.load(compiled.program.assemble()) == "OK"
    for x in inputs(rng, compiled.network, 4):
        result, y = around.run(compiled, x)
        assert result == "OK"
        np.testing.assert_array_equal(y, infer(compiled, x, count=False).output)
    assert around.model.starts == ["cold", "warm", "warm", "warm"]


@pytest.mark.parametrize("strips", [1, 2])
@pytest.mark.parametrize("interrupts", [False, True])
def test_host_steps_of_a_row_by_row_program(driver, rng, strips, interrupts):
    compiled = compile_network(denoise.load(10, 24), UP5K, strategy=Strategy(stream=True, strips=strips))
    around = driver()
    assert around.init() == "OK"
    around.core.interrupts = interrupts
    assert around.load(compiled.program.assemble()) == "OK"
    assert (around.core.program.gives, around.core.program.takes) == (True, True)
    for _ in range(2):
        x = rng.integers(-128, 128, (10, 24, 3)).astype(np.int8)
        result, y = around.run(compiled, x)
        assert result == "OK"
        np.testing.assert_array_equal(y, infer(compiled, x, count=False).output)


def test_digits_row_by_row(driver):
    compiled = compile_network(digits.load(), UP5K, strategy=Strategy(stream=True))
    around = driver()
    assert around.init() == "OK"
    assert around.load(compiled.program.assemble()) == "OK"
    assert (around.core.program.gives, around.core.program.takes) == (True, False)
    for x in digits.test_set()[0][:3]:
        result, y = around.run(compiled, x)
        assert result == "OK"
        np.testing.assert_array_equal(y, infer(compiled, x, count=False).output)


@pytest.mark.parametrize("name", ["up5k", "ecp5_85"])
def test_rows_from_functions_in_a_loop(driver, rng, name):
    """Rows that no array holds; some of the output's pixels are nobody's and stay as they were."""
    config = CONFIGS[name]
    streaming = Streaming.random(config, rng)
    around = driver(config)
    around.model.external = streaming.program.external
    assert around.init() == "OK"
    assert around.load(streaming.program.assemble()) == "OK"
    external = streaming.program.external
    for data, expected in (
        (external, "OK"), (external + bytes(8), "EXTERNAL"), (external[:-1] + bytes([external[-1] ^ 1]), "EXTERNAL")
    ):  # fmt: skip
        assert around.call("check_external", data, ctypes.c_size_t(len(data))) == expected
    x = rng.integers(-128, 128, (14, 7, 3)).astype(np.int8)
    rows, asked = [np.full((6, 5), 77, np.int8) for _ in range(12)], []
    give = Row(lambda _, row: asked.append(row) or x[row].ctypes.data)
    take = Row(lambda _, row: rows[row].ctypes.data)
    tensors = Tensors(None, None, 0, give, take, None)
    assert around.call("run", ctypes.byref(tensors)) == "OK"
    assert asked == [*range(14)]
    machine, host = Machine(config), Host(streaming.program, streaming.input_bytes(x))
    image = streaming.program.assemble()
    machine.store[: len(image)] = np.frombuffer(image, np.uint8)
    for step in machine.execute(streaming.program):
        if isinstance(step, dict) and step["opcode"] == Opcode.HOST:
            host.serve(step, machine.store)
    expected = streaming.output_values(host.output())
    np.testing.assert_array_equal(np.stack(rows)[:, 1:5], expected[:, 1:5])
    assert (np.stack(rows)[:, [0, 5]] == 77).all()


@pytest.mark.parametrize("code", [*range(1, 9)])
def test_every_error_of_the_core_is_returned(driver, rng, code):
    compiled, around = small(rng), driver(SMALL)
    name = next(name for name, (value, _) in RESULTS.items() if value == code)
    assert around.init() == "OK"
    assert around.load(compiled.program.assemble()) == "OK"
    x = inputs(rng, compiled.network, 1)[0]
    around.model.failure = code, 37
    assert around.run(compiled, x)[0] == name
    layer = ctypes.c_uint32()
    assert around.call("layer", ctypes.byref(layer)) == "OK"
    assert layer.value == 37
    around.model.failure = None
    result, y = around.run(compiled, x)
    assert result == "OK"
    np.testing.assert_array_equal(y, infer(compiled, x, count=False).output)
    assert set(around.model.starts) == {"cold"}, "nothing is warm after an error"


@pytest.mark.parametrize(
    "field, error", [("magic", "CORE_MAGIC"), ("version", "CORE_VERSION"), ("lanes", "CORE_CONFIG")]
)
def test_what_happens_to_the_image_later_is_the_cores_error(driver, rng, field, error):
    compiled, around = small(rng), driver(SMALL)
    assert around.init() == "OK"
    assert around.load(compiled.program.assemble()) == "OK"
    around.model.machine.store[HEADER[field].offset // 8] ^= 1
    assert around.run(compiled, inputs(rng, compiled.network, 1)[0])[0] == error
    assert around.call("verify") == "VERIFY"


def damaged_images():
    image = compile_network(residual(np.random.default_rng(5)), SMALL).program.assemble()
    at = int.from_bytes(image[8:16], "little") & 0xFFFFF
    last = len(image) - 1
    return {
        "short": (image[:79], "IMAGE_SHORT"),
        "empty": (b"", "IMAGE_SHORT"),
        "magic": (changed(image, magic=MAGIC ^ 1), "IMAGE_MAGIC"),
        "version": (changed(image, version=2), "IMAGE_VERSION"),
        "lanes": (changed(image, lanes=16), "IMAGE_CONFIG"),
        "store_bytes": (changed(image, store_bytes=16), "IMAGE_CONFIG"),
        "cut": (image[:-8], "IMAGE_SIZE"),
        "longer": (image + bytes(8), "IMAGE_SIZE"),
        "crc": (image[:30] + bytes([image[30] ^ 1]) + image[31:], "IMAGE_CRC"),
        "last bit": (image[:last] + bytes([image[last] ^ 0x80]), "IMAGE_CRC"),
        "activations": (changed(image, end_address=SMALL.store_size + 1), "TOO_LARGE"),
        "input": (changed(image, input_address=SMALL.store_size), "TOO_LARGE"),
        "input far away": (changed(image, input_address=0xFFFFFFF8), "TOO_LARGE"),
        "output": (changed(image, output_rows=60000), "TOO_LARGE"),
        "pitch": (changed(image, output_pitch=0), "IMAGE_SIZE"),
        "alignment": (changed(image, input_address=SMALL.store_size // 2 + 1), "IMAGE_SIZE"),
        "steps in the header": (changed(image, steps=1), "IMAGE_STEPS"),
        "steps behind the end": (changed(image, steps=0xFFFFF), "IMAGE_STEPS"),
        "no end": (changed(image[: at * 8] + b"\1" + bytes(15), steps=at, image_words=at + 2), "IMAGE_STEPS"),
    }


DAMAGED = damaged_images()


@pytest.mark.parametrize("name", DAMAGED)
def test_bad_images_are_refused_and_not_started(driver, rng, name):
    image, expected = DAMAGED[name]
    around = driver(SMALL)
    assert around.init() == "OK"
    assert around.load(image) == expected
    assert not around.model.machine.store.any()
    assert around.call("start", False) == "NOT_LOADED"
    assert around.run(small(rng), inputs(rng, residual(rng), 1)[0])[0] == "NOT_LOADED"


def test_every_flipped_bit_of_an_image_is_found(driver, rng):
    around = driver(SMALL)
    around.init()
    image = small(rng).program.assemble()
    for bit in rng.integers(0, 8 * len(image), 150).tolist():
        bad = bytearray(image)
        bad[bit // 8] ^= 1 << bit % 8
        assert around.load(bad).startswith("IMAGE_")


def test_an_image_larger_than_the_store(driver, rng):
    image = small(rng).program.assemble()
    around = driver(Config("tiny", lanes=8, store_words=256))
    around.init()
    assert len(image) > 256 * 8
    assert around.load(image) == "TOO_LARGE"


def test_an_image_for_another_configuration(driver, compiled_digits):
    around = driver(CONFIGS["ecp5_85"])
    around.init()
    assert around.load(compiled_digits.program.assemble()) == "IMAGE_CONFIG"


@pytest.mark.parametrize(
    "register, value",
    [("ident", 0), ("ident", 0xFFFFFFFF), ("ident", 0x08100002), ("store_words", 0), ("store_words", 1 << 21)],
)
def test_what_is_not_a_core_is_refused(driver, register, value):
    around = driver()
    address = next(r.address for r in REGISTERS if r.name == register)
    read = around.model.read
    around.model.read = lambda at: value if at == address else read(at)
    assert around.init() == "NO_CORE"


def test_warm_starts_only_behind_a_complete_run(driver, rng):
    compiled, around = small(rng), driver(SMALL)
    around.init()
    image, x = compiled.program.assemble(), inputs(rng, compiled.network, 1)[0]
    assert around.load(image) == "OK"
    assert around.call("start", True) == "NOT_WARM"
    assert around.call("poll") == "OK", "nothing has been run"
    assert around.call("start", True) == "NOT_WARM"
    assert around.run(compiled, x)[0] == "OK"
    assert around.call("start", True) == "OK"
    assert around.call("start", True) == "NOT_WARM", "it has not ended"
    assert around.with_tensors("wait", None) == "OK"
    assert around.load(image) == "OK"
    assert around.call("start", True) == "NOT_WARM"


def test_a_busy_core_is_left_alone(driver, compiled_digits):
    around = driver(patience=10**9)
    around.init()
    x = digits.test_set()[0][0]
    image = compiled_digits.program.assemble()
    assert around.load(image) == "OK"
    assert around.with_tensors("write_input", x) == "OK"
    assert around.call("start", False) == "OK"
    assert around.call("poll") == "BUSY"
    for result in (
        around.load(image), around.call("start", False), around.call("verify"), around.with_tensors("write_input", x),
        around.with_tensors("read_output", None, 0, np.zeros(10, np.int8)),
    ):  # fmt: skip
        assert result == "BUSY"
    assert not around.model.refused
    around.patience = 5
    assert around.with_tensors("wait", None) == "TIMEOUT"
    assert around.idled == 6


def test_missing_tensors(driver, compiled_digits):
    around = driver()
    around.init()
    around.load(compiled_digits.program.assemble())
    assert around.with_tensors("run", None) == "TENSOR"
    assert around.with_tensors("run", digits.test_set()[0][0]) == "TENSOR"


@pytest.mark.parametrize(
    "fields", [{"rows": 15}, {"rows": 0}, {"columns": 8}, {"columns": 0}, {"column": 3}, {"in_address": 16381}, {"opcode": 3}]
)
def test_host_steps_outside_tensor_or_store_are_refused(driver, rng, fields):
    streaming = Streaming.random(UP5K, rng)
    steps = list(streaming.program.steps)
    number = next(i for i, step in enumerate(steps) if step["opcode"] == Opcode.HOST)
    around = driver()
    around.model.external = streaming.program.external
    around.init()
    image = streaming.program.assemble()
    assert around.load(image) == "OK"
    x, y = np.zeros((14, 7, 3), np.int8), np.zeros((12, 6, 5), np.int8)
    assert around.call("start", False) == "OK"
    while around.call("poll") == "BUSY":
        pass
    assert around.call("poll") == "PAUSED"
    at = streaming.program.step_word(number) * 8
    record = encode(STEP_HOST, {**steps[number], **fields}, STEP_BYTES)
    around.model.machine.store[at : at + STEP_BYTES] = np.frombuffer(record, np.uint8)
    assert around.with_tensors("wait", x, 0, y) == "HOST_STEP"
    assert around.model.paused
    assert around.load(image) == "OK", "a new start is possible"
    assert around.with_tensors("run", x, 0, y) == "OK"


def test_serve_needs_a_pause(driver, compiled_digits):
    around = driver()
    around.init()
    assert around.with_tensors("serve", None) == "NOT_LOADED"
    around.load(compiled_digits.program.assemble())
    assert around.with_tensors("serve", None) == "HOST_STEP"
    around.call("start", False)
    assert around.with_tensors("serve", None) == "BUSY"


def test_every_failed_access_is_an_error(driver, rng):
    """Whichever access fails, the driver says so, and does not go on."""
    compiled = small(rng)
    image, x = compiled.program.assemble(), inputs(rng, compiled.network, 1)[0]

    def session(fail_at):
        around = driver(SMALL)
        around.fail_at = fail_at
        for function in (around.init, lambda: around.load(image), lambda: around.run(compiled, x)[0]):
            result = function()
            if result != "OK":
                return result, around
        return "OK", around

    result, around = session(-1)
    assert result == "OK"
    count = around.accesses
    early, loads, rest = range(6), range(6, count - 60), range(count - 60, count)
    for fail_at in (*early, *rng.choice(loads, 40).tolist(), *rest):
        result, around = session(fail_at)
        assert (result, around.accesses) == ("BUS", fail_at + 1)


def test_written_words_are_read_back_if_wanted(driver, rng):
    compiled, around = small(rng), driver(SMALL)
    image, x = compiled.program.assemble(), inputs(rng, compiled.network, 1)[0]
    around.init()
    around.core.verify = True
    assert around.load(image) == "OK"
    assert around.run(compiled, x)[0] == "OK"
    for target in (STORE_WINDOW, STORE_WINDOW + 80, STORE_WINDOW + compiled.program.input.address + 4):
        around.damage = lambda address, word, target=target: word ^ (1 << 9 if address == target else 0)
        results = around.load(image), around.run(compiled, x)[0]
        assert results in [("VERIFY", "NOT_LOADED"), ("OK", "VERIFY")]
        around.damage = None


def test_access_to_memory(shared_library, compiled_digits):
    """The driver with a base pointer, on memory that nobody computes with."""
    library = ctypes.CDLL(shared_library("memory"))
    space = np.zeros(STORE_WINDOW + UP5K.store_size, np.uint8)
    words = space.view("<u4")
    registers = {r.name: r.address // 4 for r in REGISTERS}
    model = CoreModel(UP5K)
    words[registers["ident"]], words[registers["store_words"]] = model.read(0), UP5K.store_words
    core, image = core_structure(Memory)(), compiled_digits.program.assemble()
    assert library.gossamer_init(ctypes.byref(core), Memory(space.ctypes.data)) == 0
    assert library.gossamer_load(ctypes.byref(core), image, ctypes.c_size_t(len(image))) == 0
    store = space[STORE_WINDOW:]
    assert store[: len(image)].tobytes() == image
    x, y = digits.test_set()[0][3], np.zeros(10, np.int8)
    zero_point = compiled_digits.network.tensors[compiled_digits.device_input].zero_point
    tensors = Tensors(x.ctypes.data, y.ctypes.data, zero_point)
    words[registers["status"]] = 2
    assert library.gossamer_run(ctypes.byref(core), ctypes.byref(tensors)) == 0
    assert words[registers["control"]] == 1
    given = compiled_digits.input_bytes(x)
    at = compiled_digits.program.input.address
    np.testing.assert_array_equal(store[at : at + len(given)], given)
    at = compiled_digits.program.output.address
    store[at : at + 10] = np.arange(10) + 128
    assert library.gossamer_read_output(ctypes.byref(core), ctypes.byref(tensors)) == 0
    assert y.tolist() == [*range(10)]


def test_the_makefile_builds_and_runs_what_it_can(tmp_path):
    done = subprocess.run(
        ["make", "-s", "-C", FIRMWARE, f"BUILD={tmp_path}"], capture_output=True, text=True, check=True
    )
    assert "driver test: ok" in done.stdout
    assert (tmp_path / "host" / "libgossamer.a").is_file()
    rv32 = (tmp_path / "rv32i" / "libgossamer.a").is_file()
    assert rv32 != ("skipped" in done.stdout)
