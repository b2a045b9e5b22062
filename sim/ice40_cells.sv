// Behaviour of the iCE40 cells that the core instantiates, no more of each than the core uses. tests/sim/test_ice40_cells.py
// compares them with the models of Yosys.

/* verilator lint_off DECLFILENAME */
/* verilator lint_off UNUSEDSIGNAL */

module SB_SPRAM256KA (
    input [13:0] ADDRESS,
    input [15:0] DATAIN,
    input [3:0] MASKWREN,
    input WREN, CHIPSELECT, CLOCK, STANDBY, SLEEP, POWEROFF,
    output reg [15:0] DATAOUT
);
    reg [15:0] memory [0:16383];
    wire [15:0] mask = {{4{MASKWREN[3]}}, {4{MASKWREN[2]}}, {4{MASKWREN[1]}}, {4{MASKWREN[0]}}};
    always @(posedge CLOCK)
        if (CHIPSELECT) begin
            if (WREN) memory[ADDRESS] <= (DATAIN & mask) | (memory[ADDRESS] & ~mask);
            else DATAOUT <= memory[ADDRESS];
        end
endmodule

module SB_MAC16 #(
    parameter [0:0] MODE_8x8 = 0, A_SIGNED = 0, B_SIGNED = 0, A_REG = 0, B_REG = 0,
    parameter [0:0] TOP_8x8_MULT_REG = 0, BOT_8x8_MULT_REG = 0,
    parameter [0:0] PIPELINE_16x16_MULT_REG1 = 0, PIPELINE_16x16_MULT_REG2 = 0,
    parameter [0:0] TOPADDSUB_UPPERINPUT = 0, BOTADDSUB_UPPERINPUT = 0,
    parameter [1:0] TOPADDSUB_LOWERINPUT = 0, BOTADDSUB_LOWERINPUT = 0, TOPADDSUB_CARRYSELECT = 0,
    parameter [1:0] TOPOUTPUT_SELECT = 0, BOTOUTPUT_SELECT = 0
) (
    input CLK, CE,
    input [15:0] A, B, C, D,
    input AHOLD, BHOLD, CHOLD, DHOLD, IRSTTOP, IRSTBOT, ORSTTOP, ORSTBOT, OLOADTOP, OLOADBOT,
    input ADDSUBTOP, ADDSUBBOT, OHOLDTOP, OHOLDBOT, CI, ACCUMCI, SIGNEXTIN,
    output [31:0] O,
    output CO, ACCUMCO, SIGNEXTOUT
);
    localparam [0:0] SUM = ~MODE_8x8 & ~TOPOUTPUT_SELECT[1];
    localparam [0:0] SUMS = MODE_8x8 & TOPOUTPUT_SELECT == 0;
    localparam [1:0] SELECT = SUMS ? 0 : MODE_8x8 ? 2 : SUM ? TOPOUTPUT_SELECT : 3;
    localparam [0:0] PARTIAL = TOP_8x8_MULT_REG & BOT_8x8_MULT_REG;
    localparam [0:0] LATE = ~MODE_8x8 & PARTIAL & PIPELINE_16x16_MULT_REG1;
    localparam [0:0] REGISTERED = SUMS ? ~(TOP_8x8_MULT_REG | BOT_8x8_MULT_REG) : MODE_8x8 ? PARTIAL & ~PIPELINE_16x16_MULT_REG1 :
        PIPELINE_16x16_MULT_REG2 & (PARTIAL ~^ PIPELINE_16x16_MULT_REG1);
    localparam [0:0] ADDEND = TOPADDSUB_UPPERINPUT & BOTADDSUB_UPPERINPUT & TOPADDSUB_LOWERINPUT == (SUMS ? 1 : 2) &
        BOTADDSUB_LOWERINPUT == (SUMS ? 1 : 2) & TOPADDSUB_CARRYSELECT == (SUMS ? 0 : 3);
    initial begin
        if (!(A_REG == (~MODE_8x8 | SUMS) & B_REG == A_REG & REGISTERED & TOPOUTPUT_SELECT == SELECT & BOTOUTPUT_SELECT == SELECT))
            $fatal(1, "SB_MAC16: only multiplication of two cycles, of bytes in one, is modelled");
        if ((SUM & LATE) | ((SUM | SUMS) & ~ADDEND)) $fatal(1, "SB_MAC16: only sums of products, C and D are modelled");
    end
    reg [15:0] ra, rb;
    wire [15:0] a = A_REG ? ra : A, b = B_REG ? rb : B;
    reg [31:0] partial, product, held;
    wire [31:0] sum = product + {C, D};
    wire signed [8:0] a0 = {A_SIGNED & a[7], a[7:0]}, a1 = {A_SIGNED & a[15], a[15:8]};
    wire signed [8:0] b0 = {B_SIGNED & b[7], b[7:0]}, b1 = {B_SIGNED & b[15], b[15:8]};
    wire signed [16:0] aw = {A_SIGNED & a[15], a}, bw = {B_SIGNED & b[15], b};
    wire signed [17:0] p0 = a0 * b0, p1 = a1 * b1;
    wire signed [33:0] pw = aw * bw;
    always @(posedge CLK)
        if (CE) begin
            ra <= IRSTTOP ? 0 : A;
            rb <= B;
            partial <= pw[31:0];
            held <= sum;
            product <= MODE_8x8 ? {p1[15:0], p0[15:0]} : LATE ? partial : pw[31:0];
        end
    assign O = SUMS ? {p1[15:0] + C, p0[15:0] + D} : ~SUM ? product : TOPOUTPUT_SELECT[0] ? held : sum;
    assign {CO, ACCUMCO, SIGNEXTOUT} = 0;
endmodule
