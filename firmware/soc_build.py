"""Builds the firmware of a SoC: C programs of ``firmware/soc`` with a network, for rv32i."""

import dataclasses
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from gossamer.golden.spec import UserError

__all__ = ["PROGRAMS", "FirmwareError", "Memory", "Network", "build_firmware"]

FOLDER = Path(__file__).parent
COMPILER = "riscv64-unknown-elf-gcc"
LIBRARY = Path("/usr/lib/picolibc/riscv64-unknown-elf")
PACKAGES = "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"

PROGRAMS = {
    "classes": "prints the class of each sample",
    "mlperf": "speaks the serial protocol of MLPerf Tiny's runner",
}
"""The programs of ``firmware/soc``."""


class FirmwareError(UserError, RuntimeError):
    """The firmware cannot be built; one sentence."""


@dataclasses.dataclass(frozen=True)
class Network:
    """What the firmware must know of a network, ``struct network`` of ``firmware/soc/soc.h``.

    Parameters
    ----------
    model : str
        Its name in the harness.
    image : bytes
    input_zero_point : int
    softmax : tuple
        Scale of what goes in and beta, if the host computes a softmax behind the core's output.
    unsigned_bytes : bool
        In the harness, inputs are bytes from 0 on.
    samples : bytes
        Inputs one after the other.
    sample_count : int
    """

    model: str
    image: bytes
    input_zero_point: int
    softmax: tuple[float, float] | None
    unsigned_bytes: bool = False
    samples: bytes = b""
    sample_count: int = 0

    def source(self) -> str:
        """As C."""
        scale, beta = self.softmax or (1.0, 1.0)
        fields = {
            "model": json.dumps(self.model),
            "image": "image",
            "image_bytes": f"{len(self.image)}u",
            "samples": "samples",
            "sample_count": f"{self.sample_count}u",
            "input_zero_point": str(self.input_zero_point),
            "unsigned_bytes": str(int(self.unsigned_bytes)),
            "softmax": str(int(self.softmax is not None)),
            "softmax_scale": repr(float(scale)),
            "softmax_beta": repr(float(beta)),
        }
        signed = [byte - 256 * (byte > 127) for byte in self.samples] or [0]
        return "\n".join(
            [
                '#include "soc.h"',
                _array("static const uint8_t image[] __attribute__((aligned(4)))", list(self.image)),
                _array("static const int8_t samples[]", signed),
                "const struct network network = {",
                *(f"    .{name} = {value}," for name, value in fields.items()),
                "};\n",
            ]
        )


def _array(declaration: str, values: list[int]) -> str:
    lines = [", ".join(map(str, values[at : at + 32])) for at in range(0, len(values), 32)]
    return "\n".join([f"{declaration} = {{", *(f"    {line}," for line in lines), "};"])


@dataclasses.dataclass(frozen=True)
class Memory:
    """Where the firmware lies, in bytes: code and constants; variables and stack, of which 768 are the stack's."""

    code: int
    code_bytes: int
    data: int
    data_bytes: int

    @staticmethod
    def in_ram(size: int, *, data_bytes: int = 8 << 10) -> "Memory":
        """All in a RAM at 0."""
        return Memory(0, size - data_bytes, size - data_bytes, data_bytes)

    @property
    def link(self) -> str:
        """Symbols for picolibc's linker script."""
        symbols = {
            "flash": self.code,
            "flash_size": self.code_bytes,
            "ram": self.data,
            "ram_size": self.data_bytes,
        }
        return " ".join(f"-Wl,--defsym=__{name}={value:#x}" for name, value in symbols.items())


def build_firmware(program: str, network: Network, memory: Memory) -> bytes:
    """The bytes from ``memory.code`` on. Raises :class:`FirmwareError`."""
    if program not in PROGRAMS:
        raise FirmwareError(f"a SoC's program must be one of {', '.join(PROGRAMS)}, not {program!r}")
    if shutil.which(COMPILER) is None or not LIBRARY.exists():
        raise FirmwareError(f"a SoC's firmware needs {COMPILER} and picolibc: install them with `apt-get install {PACKAGES}`")
    with tempfile.TemporaryDirectory(prefix="gossamer-") as name:
        work = Path(name)
        (work / "network.c").write_text(network.source())
        settings = {
            "BUILD": str(work),
            "SOC_PROGRAM": program,
            "SOC_NETWORK": str(work / "network.c"),
            "SOC_LINK": memory.link,
        }
        command = ["make", "-s", "-C", str(FOLDER), "soc", *(f"{name}={value}" for name, value in settings.items())]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            for line in lines:
                if found := re.search(r"region `(flash|ram)' overflowed by (\d+) bytes", line):
                    code = found[1] == "flash"
                    what, size = ("code and network", memory.code_bytes) if code else ("variables", memory.data_bytes)
                    raise FirmwareError(f"the firmware's {what} must fit {size} bytes, and {found[2]} are missing")
            raise FirmwareError(f"the firmware must compile, and make ended with status {done.returncode}: {lines[0]}")
        return (work / f"{program}.bin").read_bytes()
