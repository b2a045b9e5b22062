"""The host's part of a program: what it does at host steps."""

import numpy as np
from numpy.typing import NDArray

from gossamer.golden.interpreter import MachineError
from gossamer.golden.program import Program, Record
from gossamer.golden.spec import Opcode

__all__ = ["Host"]


class Host:
    """Gives input rows to a program and takes output rows from it, during one inference.

    Whoever runs the program calls :meth:`serve` for each ``HOST`` step that :meth:`Machine.execute` yields, before it asks for
    the next step::

        for step in machine.execute(program):
            if not isinstance(step, Run) and step["opcode"] == Opcode.HOST:
                host.serve(step, machine.store)

    A program without steps that give input (``gives`` is false) expects all of it at ``program.input.address`` when it starts;
    one without steps that take output (``takes`` is false) leaves all of it at ``program.output.address``. Both are for
    the caller to do.

    Parameters
    ----------
    program : Program
    x : uint8 array
        The input, as :meth:`TensorPlace.to_store` and so ``Compiled.input_bytes`` return it.

    Attributes
    ----------
    gives, takes : bool
    """

    def __init__(self, program: Program, x: NDArray[np.uint8]):
        directions = {step["take"] for step in program.steps if step["opcode"] == Opcode.HOST}
        self.gives, self.takes = 0 in directions, 1 in directions
        self._word = program.config.store_bytes
        self._places = program.input, program.output
        self._tensors = x.reshape(program.input.rows, -1), np.zeros(program.output.size(program.config), np.uint8)
        self._rows = [0, 0]  # how many have been given, and taken

    def serve(self, step: Record, store: NDArray[np.uint8]) -> None:
        """Do what a ``HOST`` step says.

        Its rows are the tensor's first if it says so, and otherwise those behind the rows of the step before that gave, or
        took, as this one does. Of each row the pixels from ``column`` on, of ``pitch`` bytes each, come from the store, or go
        there, with zeros in the rest of the last store word.

        Raises :class:`MachineError` if the tensor does not have these pixels, or the store not these words.
        """
        take = step["take"]
        place, first = self._places[take], 0 if step["first"] else self._rows[take]
        self._rows[take] = first + step["rows"]
        tensor = self._tensors[take].reshape(place.rows, -1)
        _check("rows", first, step["rows"], place.rows)
        _check("columns", step["column"], step["columns"], place.columns)
        start, size = step["column"] * place.pitch, step["columns"] * place.pitch
        words = -(-size // self._word)
        _check("store words", step["in_address"], (step["rows"] - 1) * step["row_words"] + words, len(store) // self._word)
        for r in range(step["rows"]):
            at = (step["in_address"] + r * step["row_words"]) * self._word
            if take:
                tensor[first + r, start : start + size] = store[at : at + size]
            else:
                store[at : at + words * self._word] = 0
                store[at : at + size] = tensor[first + r, start : start + size]

    def output(self) -> NDArray[np.uint8]:
        """The output, in the form that :meth:`TensorPlace.from_store` and so ``Compiled.output_values`` take. What has not been
        taken is 0."""
        return self._tensors[1].reshape(-1)


def _check(what: str, first: int, count: int, there: int) -> None:
    if count < 1 or first + count > there:
        raise MachineError(f"a host step must be for {what} 0 to {there - 1}, not {first} to {first + count - 1}")
