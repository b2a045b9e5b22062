"""The host's side of a program's HOST steps."""

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.program import Program, Record
from gossamer.golden.spec import Opcode

__all__ = ["Host"]


class Host:
    """Gives a program its input rows, and takes its output rows."""

    def __init__(self, program: Program, data: NDArray[np.uint8]):
        config = program.config
        place = program.input
        self._size = config.store_bytes
        self._pitches = (program.input.pitch, program.output.pitch)
        self._input = data.reshape(place.rows, -1)[:, : place.row_bytes()]
        self._output = np.zeros((program.output.rows, program.output.row_words(config) * self._size), np.uint8)
        self._row = [0, 0]
        self.gives = any(step["opcode"] == Opcode.HOST and not step["take"] for step in program.steps)
        self.takes = any(step["opcode"] == Opcode.HOST and step["take"] for step in program.steps)

    def serve(self, step: Record, store: NDArray[np.uint8]) -> None:
        """Do what a HOST step says."""
        take = step["take"]
        if step["first"]:
            self._row[take] = 0
        pitch = self._pitches[take]
        start, count = step["column"] * pitch, step["columns"] * pitch
        for i in range(step["rows"]):
            at = (step["in_address"] + i * step["row_words"]) * self._size
            y = self._row[take]
            if take:
                self._output[y, start : start + count] = store[at : at + count]
            else:
                store[at : at + count] = self._input[y, start : start + count]
            self._row[take] += 1

    def output(self) -> NDArray[np.uint8]:
        """What has been taken, as a whole tensor lies in the store."""
        return self._output.reshape(-1)
