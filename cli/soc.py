"""A network as firmware of a SoC."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.boards.build import find_board, fitting, with_processor
from gossamer.cli.files import InputError
from gossamer.cli.models import load_model, samples
from gossamer.firmware.soc_build import Memory, Network, build_firmware
from gossamer.golden.compiler import Compiled, compile_network
from gossamer.golden.network import Reshape, Softmax
from gossamer.golden.spec import Config

__all__ = ["SAMPLES", "board_firmware", "soc_network"]

SAMPLES = 10
"""Inputs that the firmware has."""

FLASH_BYTES = 16 << 20

MODELS = {"kws": "kws01", "ic": "ic01", "vww": "vww01"}
"""Names of MLPerf Tiny's models, by how those of their files begin."""

UNSIGNED = {"ic01", "vww01"}
"""Models whose inputs the runner sends as pixels from 0 to 255."""


def board_firmware(board: str, model: str, program: str, config: Config | None = None) -> bytes:
    """The firmware for a board with a processor: a program, a network and its first samples, if it has some."""
    described = with_processor(find_board(board))
    soc = described.soc
    assert soc is not None
    network = load_model(model)
    compiled = compile_network(network, described.config if config is None else fitting(described, config))
    if soc.flash:
        memory = Memory(soc.reset_address, FLASH_BYTES - soc.flash, 0, soc.ram_bytes)
    else:
        memory = Memory.in_ram(soc.ram_bytes)
    given = list(samples(model, network, SAMPLES).x) if program == "classes" else []
    return build_firmware(program, soc_network(compiled, Path(model).stem, given), memory)


def soc_network(compiled: Compiled, name: str, samples: Sequence[NDArray[np.int8]] = ()) -> Network:
    """The network ``name``, as its program, with samples shaped as its input.

    The core must compute all of it, but for a softmax at its end, and have it in its store. Raises :class:`InputError`.
    """
    program, network = compiled.program, compiled.network
    # Shapes do not matter here: values are in the order of the outermost dimension first.
    head, tail = ([layer for layer in part if not isinstance(layer, Reshape)] for part in (compiled.head, compiled.tail))
    if head or [type(layer) for layer in tail] not in ([], [Softmax]):
        layers = ", ".join(layer.name for layer in (*head, *tail))
        raise InputError(f"on a SoC a network's only layer outside the core may be a softmax at its end, not {layers}")
    if program.external:
        raise InputError(f"on a SoC a network must fit the core's store, and {len(program.external)} bytes do not")
    softmax = (network.tensors[compiled.device_output].scale, float(tail[0].beta)) if tail else None  # type: ignore[attr-defined]
    model = MODELS.get(name.split("_")[0], name)
    return Network(
        model=model,
        image=program.assemble(),
        input_zero_point=network.tensors[compiled.device_input].zero_point,
        softmax=softmax,
        unsigned_bytes=model in UNSIGNED,
        samples=b"".join(sample.tobytes() for sample in samples),
        sample_count=len(samples),
    )
