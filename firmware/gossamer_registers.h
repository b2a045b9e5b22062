/* Registers, error codes and image format of the Gossamer core. Generated from golden/spec.py by
 * `python -m gossamer.gateware.registers`; a test compares them. */
#ifndef GOSSAMER_REGISTERS_H
#define GOSSAMER_REGISTERS_H

/* Where the store appears. */
#define GOSSAMER_STORE_WINDOW 0x800000u

/* Identification. */
#define GOSSAMER_IDENT_ADDRESS 0x00u
#define GOSSAMER_IDENT_VERSION_SHIFT 0u
#define GOSSAMER_IDENT_VERSION_MASK 0x0000ffffu
#define GOSSAMER_IDENT_LANES_SHIFT 16u
#define GOSSAMER_IDENT_LANES_MASK 0x00ff0000u
#define GOSSAMER_IDENT_STORE_BYTES_SHIFT 24u
#define GOSSAMER_IDENT_STORE_BYTES_MASK 0xff000000u

/* Start and interrupt enable. */
#define GOSSAMER_CONTROL_ADDRESS 0x04u
#define GOSSAMER_CONTROL_START_SHIFT 0u
#define GOSSAMER_CONTROL_START_MASK 0x00000001u
#define GOSSAMER_CONTROL_INTERRUPT_ENABLE_SHIFT 1u
#define GOSSAMER_CONTROL_INTERRUPT_ENABLE_MASK 0x00000002u
#define GOSSAMER_CONTROL_WARM_SHIFT 2u
#define GOSSAMER_CONTROL_WARM_MASK 0x00000004u
#define GOSSAMER_CONTROL_RESUME_SHIFT 3u
#define GOSSAMER_CONTROL_RESUME_MASK 0x00000008u

/* State of the core. Starting clears all but busy. */
#define GOSSAMER_STATUS_ADDRESS 0x08u
#define GOSSAMER_STATUS_BUSY_SHIFT 0u
#define GOSSAMER_STATUS_BUSY_MASK 0x00000001u
#define GOSSAMER_STATUS_DONE_SHIFT 1u
#define GOSSAMER_STATUS_DONE_MASK 0x00000002u
#define GOSSAMER_STATUS_REFUSED_SHIFT 2u
#define GOSSAMER_STATUS_REFUSED_MASK 0x00000004u
#define GOSSAMER_STATUS_PAUSED_SHIFT 3u
#define GOSSAMER_STATUS_PAUSED_MASK 0x00000008u
#define GOSSAMER_STATUS_ERROR_SHIFT 8u
#define GOSSAMER_STATUS_ERROR_MASK 0x00000f00u
#define GOSSAMER_STATUS_LAYER_SHIFT 16u
#define GOSSAMER_STATUS_LAYER_MASK 0x0fff0000u

/* Clock cycles from start to done, without those of pauses. */
#define GOSSAMER_CYCLES_ADDRESS 0x0cu

/* Words of the store. */
#define GOSSAMER_STORE_WORDS_ADDRESS 0x10u

/* Store word of the step behind the last one taken. */
#define GOSSAMER_STEP_ADDRESS 0x14u

/* Values of the status register's error field: X(name, value, text) for each. */
#define GOSSAMER_CORE_ERRORS(X) \
    X(NONE, 0, "no error") \
    X(MAGIC, 1, "the store does not start with a program image") \
    X(VERSION, 2, "the image has another version than the core") \
    X(CONFIG, 3, "the image was compiled for another configuration: lanes, store width, or what the core can do") \
    X(OPCODE, 4, "a step has an unknown opcode") \
    X(READ, 5, "a step reads outside the store") \
    X(WRITE, 6, "a layer or a fetch writes outside the store, or into the image") \
    X(EMPTY, 7, "a load step, a fetch or a layer is empty") \
    X(SLOT, 8, "a compressed row of a layer's output does not fit its slot") \
    X(CODE, 9, "a compressed row is not what the compressor writes")

/* Program images. */
#define GOSSAMER_MAGIC 0x52534d47u
#define GOSSAMER_VERSION 0x3u
#define GOSSAMER_HEADER_BYTES 0x40u
#define GOSSAMER_DESCRIPTOR_BYTES 0x40u
#define GOSSAMER_STEP_BYTES 0x10u

/* Opcodes of steps. */
#define GOSSAMER_OPCODE_END 0u
#define GOSSAMER_OPCODE_LOAD_WEIGHTS 1u
#define GOSSAMER_OPCODE_LOAD_PARAMETERS 2u
#define GOSSAMER_OPCODE_RUN 3u
#define GOSSAMER_OPCODE_FETCH 4u
#define GOSSAMER_OPCODE_HOST 5u
#define GOSSAMER_OPCODE_LOOP 6u
#define GOSSAMER_OPCODE_LOAD_MASKS 7u
#define GOSSAMER_OPCODE_LOAD_PALETTE 8u

/* Fields of HEADER: first bit, number of bits. */
#define GOSSAMER_HEADER_MAGIC 0u, 32u
#define GOSSAMER_HEADER_VERSION 32u, 16u
#define GOSSAMER_HEADER_LANES 48u, 8u
#define GOSSAMER_HEADER_STORE_BYTES 56u, 5u
#define GOSSAMER_HEADER_CODEC_STREAMS 61u, 3u
#define GOSSAMER_HEADER_STEPS 64u, 20u
#define GOSSAMER_HEADER_WARM_STEPS 84u, 20u
#define GOSSAMER_HEADER_IMAGE_WORDS 104u, 20u
#define GOSSAMER_HEADER_CODEC 124u, 2u
#define GOSSAMER_HEADER_INPUT_ADDRESS 128u, 32u
#define GOSSAMER_HEADER_OUTPUT_ADDRESS 160u, 32u
#define GOSSAMER_HEADER_END_ADDRESS 192u, 32u
#define GOSSAMER_HEADER_CRC 224u, 32u
#define GOSSAMER_HEADER_INPUT_ROWS 256u, 16u
#define GOSSAMER_HEADER_INPUT_COLUMNS 272u, 16u
#define GOSSAMER_HEADER_INPUT_CHANNELS 288u, 16u
#define GOSSAMER_HEADER_INPUT_PITCH 304u, 16u
#define GOSSAMER_HEADER_OUTPUT_ROWS 320u, 16u
#define GOSSAMER_HEADER_OUTPUT_COLUMNS 336u, 16u
#define GOSSAMER_HEADER_OUTPUT_CHANNELS 352u, 16u
#define GOSSAMER_HEADER_OUTPUT_PITCH 368u, 16u
#define GOSSAMER_HEADER_EXTERNAL_WORDS 384u, 32u
#define GOSSAMER_HEADER_EXTERNAL_CRC 416u, 32u

/* Fields of STEP_HOST: first bit, number of bits. */
#define GOSSAMER_STEP_HOST_OPCODE 0u, 4u
#define GOSSAMER_STEP_HOST_TAKE 4u, 1u
#define GOSSAMER_STEP_HOST_FIRST 5u, 1u
#define GOSSAMER_STEP_HOST_ROWS 32u, 16u
#define GOSSAMER_STEP_HOST_COLUMNS 48u, 16u
#define GOSSAMER_STEP_HOST_IN_ADDRESS 64u, 20u
#define GOSSAMER_STEP_HOST_ROW_WORDS 84u, 16u
#define GOSSAMER_STEP_HOST_COLUMN 100u, 16u

#endif
