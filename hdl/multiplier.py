"""Multipliers, generic and made of iCE40 DSP blocks.

Ref: Lattice FPGA-TN-02007, "DSP Function Usage Guide for iCE40 Devices" (SB_MAC16).
"""

from itertools import pairwise

from amaranth.hdl import Assert, Cat, ClockSignal, Const, Instance, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from gossamer.hdl.checks import require, require_technology
from gossamer.hdl.counter import popcount

__all__ = ["ProductArray", "WideMultiplier"]


def _mac16(m, a, b, out, *, en, a_signed, b_signed, bytes_, late=False, addend=None, instead=None):
    """An SB_MAC16 as a multiplier with input and product registers: ``out`` is ``a*b`` of two cycles ago.

    With ``bytes_`` the halves of the operands are multiplied separately, without input registers, which makes it one cycle;
    with ``late`` it is three cycles. An ``addend`` is added (modulo 2**32) behind the product register, and then with ``late``
    there is a register behind the sum. With ``instead = (value, when)``, and ``bytes_``, the sums of the products and the
    halves of ``value`` come out, with input registers only, and while ``when`` is high the products are 0.
    """
    registers = {} if bytes_ else {"p_PIPELINE_16x16_MULT_REG2": 1}
    select = 2 if bytes_ else 3
    if addend is not None:
        select = 1 if late else 0
        for half in ("TOP", "BOT"):
            registers |= {f"p_{half}ADDSUB_LOWERINPUT": 2, f"p_{half}ADDSUB_UPPERINPUT": 1}
        registers |= {"p_TOPADDSUB_CARRYSELECT": 3}
    elif instead is not None:
        select, addend = 0, instead[0]
        for half in ("TOP", "BOT"):
            registers |= {f"p_{half}ADDSUB_LOWERINPUT": 1, f"p_{half}ADDSUB_UPPERINPUT": 1}
    elif bytes_ or late:
        registers |= {"p_TOP_8x8_MULT_REG": 1, "p_BOT_8x8_MULT_REG": 1}
        if late:
            registers |= {"p_PIPELINE_16x16_MULT_REG1": 1}
    m.submodules += Instance(
        "SB_MAC16",
        p_MODE_8x8=int(bytes_),
        p_A_SIGNED=int(a_signed),
        p_B_SIGNED=int(b_signed),
        p_A_REG=int(not bytes_ or instead is not None),
        p_B_REG=int(not bytes_ or instead is not None),
        p_TOPOUTPUT_SELECT=select,
        p_BOTOUTPUT_SELECT=select,
        **registers,
        i_CLK=ClockSignal(),
        i_CE=en,
        i_A=a,
        i_B=b,
        i_C=Const(0, 16) if addend is None else addend[16:],
        i_D=Const(0, 16) if addend is None else addend[:16],
        i_IRSTTOP=Const(0) if instead is None else instead[1],
        **{
            f"i_{name}": Const(0)
            for name in (
                *("AHOLD", "BHOLD", "CHOLD", "DHOLD", "IRSTBOT", "ORSTTOP", "ORSTBOT", "OLOADTOP", "OLOADBOT"),
                *("ADDSUBTOP", "ADDSUBBOT", "OHOLDTOP", "OHOLDBOT", "CI", "ACCUMCI", "SIGNEXTIN"),
            )
        },
        o_O=out,
        # Left open, but named: an instance with missing pins is a lint warning.
        **{f"o_{name}": Signal(name=name.lower()) for name in ("CO", "ACCUMCO", "SIGNEXTOUT")},
    )


class ProductArray(wiring.Component):
    """``p[l] = x[l] * w[l]`` in every lane, unsigned times signed byte, one cycle later.

    With ``binary`` it is twice the number of bits in which the two bytes agree instead. With ``int4`` it is ``x[l]`` times the
    signed number in the low half of ``w[l]``, and ``p[lanes + l]`` is ``x[l]`` times that in the high half: one multiplier of 9
    by 17 bits makes both, ``x * (2**12 * high + low)``.

    A cycle counts only while ``en`` is high. There is no reset: the products of the first cycle are meaningless.

    Parameters
    ----------
    lanes : int
        At least 1; even with ``ice40``.
    technology : str
        ``generic``: inferred multipliers. ``ice40``: one SB_MAC16 for two lanes.
    lut_lanes : int
        ``ice40``: the last ``lut_lanes`` lanes are made of LUTs; even.
    bits, int4 : bool
        Build it with ``binary``, ``int4``; the latter not with ``ice40``.

    Members
    -------
    en : ``In(1)``
    binary, int4 : ``In(1)``
        The products of the three cycles behind a change are meaningless.
    x : ``In(ArrayLayout(8, lanes))``
    w : ``In(ArrayLayout(8, lanes))``
    p : ``Out(ArrayLayout(signed(16), lanes))``, or twice as many
    """

    def __init__(
        self, *, lanes: int, technology: str = "generic", lut_lanes: int = 0, bits: bool = False, int4: bool = False
    ):
        require_technology(technology)
        require(lanes >= 1, f"lanes must be at least 1, not {lanes}")
        require(
            lut_lanes % 2 == 0 and 0 <= lut_lanes <= lanes,
            f"lut_lanes must be an even number from 0 to lanes ({lanes}), not {lut_lanes}",
        )
        require(technology != "ice40" or lanes % 2 == 0, f"lanes must be even with 'ice40', not {lanes}")
        require(not int4 or technology != "ice40", "int4 must be false with 'ice40', not True")
        self._lanes, self._technology, self._lut_lanes, self._bits, self._int4 = lanes, technology, lut_lanes, bits, int4
        super().__init__(
            {
                "en": In(1),
                **{name: In(1) for name, there in (("binary", bits), ("int4", int4)) if there},
                "x": In(data.ArrayLayout(8, lanes)),
                "w": In(data.ArrayLayout(8, lanes)),
                "p": Out(data.ArrayLayout(signed(16), lanes << int4)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self._technology == "ice40":
            dsp_lanes = self._lanes - self._lut_lanes
            for lane in range(0, dsp_lanes, 2):
                a, b, out = Signal(16), Signal(16), Signal(32)
                m.d.comb += [
                    a.eq(Cat(self.x[lane], self.x[lane + 1])),
                    b.eq(Cat(self.w[lane], self.w[lane + 1])),
                    Cat(self.p[lane], self.p[lane + 1]).eq(out),
                ]
                instead = None
                if self._bits:
                    instead = Cat(*(self._agreements(m, one)[:16] for one in (lane, lane + 1))), self.binary
                _mac16(m, a, b, out, en=self.en, a_signed=False, b_signed=True, bytes_=True, instead=instead)
            for lane in range(dsp_lanes, self._lanes):
                self._lut_product(m, lane)
        else:
            for lane in range(self._lanes):
                x = Signal(8, name=f"x{lane}", reset_less=True)
                w = Signal(signed(17 if self._int4 else 8), name=f"w{lane}", reset_less=True)
                product, weight = x * w, self.w[lane].as_signed()
                if self._int4:
                    low, high = (self.w[lane].word_select(half, 4).as_signed() for half in range(2))
                    weight = Mux(self.int4, Cat(low, low[-1].replicate(8), high - low[-1]).as_signed(), weight)
                    m.d.comb += self.p[self._lanes + lane].eq((product >> 12) + product[11])
                    product = Mux(self.int4, product[:12].as_signed(), product)
                if self._bits:
                    product = Mux(self.binary, self._agreements(m, lane), product)
                m.d.comb += self.p[lane].eq(product)
                with m.If(self.en):
                    m.d.sync += [x.eq(self.x[lane]), w.eq(weight)]
        return m

    def _agreements(self, m, lane):
        """Twice the bits in which the operands agree, one cycle later; without ``binary`` 0."""
        count = Signal(4, name=f"agreements{lane}", reset_less=True)
        with m.If(self.en):
            m.d.sync += count.eq(popcount(~(self.x[lane] ^ self.w[lane])))
        with m.If(~self.binary):
            m.d.sync += count.eq(0)
        return (count << 1) | Const(0, 16)

    def _lut_product(self, m, lane):
        # Rows are added where their weight bit is set. That choice fits into the LUT of the adder, so that a row of the
        # product costs one logic cell per bit. The last row counts negative; ~(~s + x) is s - x without inverting x.
        x, w = self.x[lane], self.w[lane]
        low = Signal(12, name=f"low{lane}", reset_less=True)
        high = Signal(signed(12), name=f"high{lane}", reset_less=True)
        product = low + (high << 4)
        m.d.comb += self.p[lane].eq(product | self._agreements(m, lane) if self._bits else product)

        def rows(bits, name):
            total = Mux(w[bits[0]], x, 0)
            for k, bit in enumerate(bits[1:], 1):
                upper = Signal(9, name=f"{name}{lane}_{k}")
                m.d.comb += upper.eq(Mux(w[bit], total[k:] + x, total[k:]))
                total = Cat(total[:k], upper)
            return total

        total = rows((4, 5, 6), "high")
        top, upper = Signal(signed(10), name=f"top{lane}"), Signal(signed(10), name=f"high{lane}_3")
        m.d.comb += [top.eq(total[3:]), upper.eq(~Mux(w[7], ~top + x, ~top))]
        with m.If(self.en):
            m.d.sync += [low.eq(rows((0, 1, 2, 3), "low")), high.eq(Cat(total[:3], upper))]
        if self._bits:
            with m.If(self.binary):
                m.d.sync += [low.eq(0), high.eq(0)]


class WideMultiplier(wiring.Component):
    """``o = floor((a * b + nudge * 2**30) / 2**23)``, :attr:`latency` cycles later.

    With ``interval`` 2 a pair of operands takes two cycles, of which ``second`` marks the second; its result is the one that
    counts, and all operands must be the same in both. One cycle suffices if ``short`` is high; then ``a`` is what its low 15
    bits and its sign make as a number of 16 bits. With ``interval`` 1 ``second`` and ``short`` do not matter. A cycle counts
    only while ``en`` is high. There is no reset: the first results are meaningless. ``nudge`` must not be -1 if ``a`` is
    positive.

    Parameters
    ----------
    technology : str
        ``generic``: an inferred multiplier. ``ice40``: four SB_MAC16, or two with ``interval`` 2.
    interval : int
        1 or 2.

    Members
    -------
    en : ``In(1)``
    second, short : ``In(1)``
        The operands are those of the cycle before; ``a`` is short.
    a : ``In(signed(29))``
    b : ``In(31)``
    nudge : ``In(signed(2))``
        -1, 0 or 1.
    o : ``Out(signed(38))``
    """

    def __init__(self, *, technology: str = "generic", interval: int = 1):
        require_technology(technology)
        require(interval in (1, 2), f"interval must be 1 or 2, not {interval}")
        self._technology, self._interval = technology, interval
        self.latency = 4
        super().__init__(
            {
                "en": In(1),
                "second": In(1),
                "short": In(1),
                "a": In(signed(29)),
                "b": In(31),
                "nudge": In(signed(2)),
                "o": Out(signed(38)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        result = Signal(signed(38), reset_less=True)
        m.d.comb += self.o.eq(result)
        # a = ah * 2**15 + al, b = bh * 2**15 + bl
        ah, al = self.a[15:].as_signed(), self.a[:15]
        bh, bl = self.b[15:], self.b[:15]
        short = Cat(al, self.a[-1]).as_signed()

        def product(x, y, name, **options):
            a, b, out = Signal(16), Signal(16), Signal(signed(32), name=name)
            m.d.comb += [a.eq(x), b.eq(y)]
            _mac16(m, a, b, out, en=self.en, a_signed=True, b_signed=False, bytes_=False, **options)
            return out

        if self._technology == "ice40" and self._interval == 1:
            hh, hl = product(ah, bh, "hh", late=True), product(ah, bl, "hl")
            lh, ll = product(al, bh, "lh"), product(al, bl, "ll")
            nudges = [Signal(signed(2), name=f"nudge{i}", reset_less=True) for i in range(2)]
            middle = Signal(signed(33), reset_less=True)
            with m.If(self.en):
                m.d.sync += [
                    nudges[0].eq(self.nudge),
                    nudges[1].eq(nudges[0]),
                    middle.eq((hl + lh) + Cat(ll[15:30], nudges[1]).as_signed()),
                    result.eq((hh << 7) + (middle >> 8)),
                ]
        elif self._technology == "ice40":
            self._elaborate_pairs(m, product, result, ah, al)
        else:
            a, b = Signal(signed(29), reset_less=True), Signal(31, reset_less=True)
            nudge = Signal(signed(2), reset_less=True)
            stages = [Signal(signed(61), name=f"p{i}", reset_less=True) for i in range(2)]
            with m.If(self.en):
                m.d.sync += [a.eq(Mux(self.short, short, self.a) if self._interval == 2 else self.a), b.eq(self.b)]
                m.d.sync += [nudge.eq(self.nudge), stages[0].eq(a * b + (nudge << 30)), result.eq(stages[-1] >> 23)]
                m.d.sync += [after.eq(before) for before, after in pairwise(stages)]

        if platform is None and self._interval == 2:
            waits = Signal()  # a first cycle was the last
            operands = Cat(self.a, self.b, self.nudge)
            last = Signal.like(operands, reset_less=True)
            with m.If(self.en):
                m.d.sync += [waits.eq(~self.short & ~self.second), last.eq(operands)]
                with m.If(self.second):
                    m.d.sync += Assert(waits, "second must come behind a first cycle")
                    m.d.sync += Assert(last == operands, "operands must stay the same in their second cycle")
        if platform is None:
            with m.If(self.en):
                m.d.sync += Assert((self.nudge >= 0) | (self.a <= 0), "nudge must not be -1 if a is positive")
        return m

    def _elaborate_pairs(self, m, product, result, ah, al):
        """Two blocks: first ``al * b``, then ``ah * b``. A short ``a`` is all in the first.

        In each cycle ``low = x*bl + addend`` and ``high = x*bh + floor(low / 2**15)``, summed by the blocks. For ``ah`` the
        addend is what ``al`` made; for others, the nudge.
        """
        x = Signal(signed(16))
        high, low = Signal(signed(32)), Signal(signed(32))
        addend = Signal(signed(32))
        second = Signal(3)  # up to when it is in `high`
        nudges = [Signal(signed(2), name=f"nudge{i}", reset_less=True) for i in range(2)]
        # `al * b` as a number of 32 bits plus `ah * bl` may be too large for 32 bits, but then it is positive.
        sign = low[31] & ~(addend[30] & ~addend[31])
        carried = Cat(low[15:], sign.replicate(15)).as_signed()
        m.d.comb += [
            x.eq(Mux(self.second, ah, Cat(al, self.short & self.a[-1]).as_signed())),
            addend.eq(Mux(second[1], high, nudges[1] << 30)),
            low.eq(product(x, self.b[:15], "low", addend=addend)),
            high.eq(product(x, self.b[15:], "high", addend=carried, late=True)),
        ]
        # With a nudge of -1 a negative product may be too large for 32 bits too.
        fraction, negative = Signal(7, reset_less=True), Signal(reset_less=True)
        short = Cat(high[8:], high[31] | negative).as_signed()
        with m.If(self.en):
            m.d.sync += [
                second.eq(Cat(self.second, second)),
                nudges[0].eq(self.nudge),
                nudges[1].eq(nudges[0]),
                negative.eq(nudges[1][1]),
                fraction.eq(low[8:15]),
                result.eq(Mux(second[2], Cat(fraction, high[:31]).as_signed(), short)),
            ]
