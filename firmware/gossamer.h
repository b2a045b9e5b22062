/* Driver of the Gossamer core: freestanding C99, no allocation, no library.
 *
 *     struct gossamer core;
 *     gossamer_init(&core, (struct gossamer_bus){.base = (volatile uint32_t *)0x40000000});
 *     gossamer_load(&core, image, sizeof image);
 *     gossamer_run(&core, &(struct gossamer_tensors){.input = x, .output = y, .input_zero_point = -128});
 *
 * All functions return a gossamer_result; GOSSAMER_OK is 0. Each core, and what is called with it, belongs to one thread;
 * only gossamer_interrupt may come in between. Words are in the byte order of the bus, little endian.
 */
#ifndef GOSSAMER_H
#define GOSSAMER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gossamer_registers.h"

/* Results of the driver itself; those below 16 are the core's error codes. */
#define GOSSAMER_DRIVER_RESULTS(X) \
    X(NO_CORE, 16, "the bus must lead to a core with this driver's image version") \
    X(BUS, 17, "the bus, or the link to it, has refused an access") \
    X(IMAGE_SHORT, 18, "an image must have a header and a step") \
    X(IMAGE_MAGIC, 19, "the data must start as an image does") \
    X(IMAGE_VERSION, 20, "the image must have the core's version") \
    X(IMAGE_CONFIG, 21, "the image must be compiled for the core's lanes and store width") \
    X(IMAGE_SIZE, 22, "the image must have as many bytes as its header says") \
    X(IMAGE_CRC, 23, "the image is damaged: its CRC is another one") \
    X(IMAGE_STEPS, 24, "the image's steps must lie in it and end with END") \
    X(TOO_LARGE, 25, "the image, its activations or its tensors must fit the store") \
    X(NOT_LOADED, 26, "an image must be loaded first") \
    X(NOT_WARM, 27, "a warm start must follow a run of the same image to its end") \
    X(BUSY, 28, "the core is running") \
    X(PAUSED, 29, "the core waits at a host step") \
    X(TIMEOUT, 30, "the core has not stopped in time") \
    X(HOST_STEP, 31, "a host step must be for rows and columns that the tensor has, and words that the store has") \
    X(TENSOR, 32, "the tensor's values must be given") \
    X(VERIFY, 33, "the store must hold what was written") \
    X(EXTERNAL, 34, "the external memory must hold what belongs to the image")

enum gossamer_result {
    GOSSAMER_OK = 0,
#define GOSSAMER_ENUMERATOR(name, value, text) GOSSAMER_CORE_##name = value,
    GOSSAMER_CORE_ERRORS(GOSSAMER_ENUMERATOR)
#undef GOSSAMER_ENUMERATOR
#define GOSSAMER_ENUMERATOR(name, value, text) GOSSAMER_##name = value,
    GOSSAMER_DRIVER_RESULTS(GOSSAMER_ENUMERATOR)
#undef GOSSAMER_ENUMERATOR
    GOSSAMER_RESULTS /* greater than all */
};

/* Access to the core's bus: to memory, or with GOSSAMER_ACCESS_FUNCTIONS through functions, for a serial link or a simulation.
 * They return false if the access failed; `address` is a byte address, a multiple of 4. */
#ifdef GOSSAMER_ACCESS_FUNCTIONS
struct gossamer_bus {
    bool (*read)(void *context, uint32_t address, uint32_t *word);
    bool (*write)(void *context, uint32_t address, uint32_t word);
    void *context;
};

static inline bool gossamer_bus_read(const struct gossamer_bus *bus, uint32_t address, uint32_t *word)
{
    return bus->read(bus->context, address, word);
}

static inline bool gossamer_bus_write(const struct gossamer_bus *bus, uint32_t address, uint32_t word)
{
    return bus->write(bus->context, address, word);
}
#else
struct gossamer_bus {
    volatile uint32_t *base;
};

static inline bool gossamer_bus_read(const struct gossamer_bus *bus, uint32_t address, uint32_t *word)
{
    *word = bus->base[address / 4];
    return true;
}

static inline bool gossamer_bus_write(const struct gossamer_bus *bus, uint32_t address, uint32_t word)
{
    bus->base[address / 4] = word;
    return true;
}
#endif

/* Where a feature map is in the store: docs/formats.md, "Feature maps". Of the `pitch` bytes of a pixel those from `offset` on
 * are the map's channels; the others hold the zero point. */
struct gossamer_place {
    uint32_t address, rows, columns, channels, pitch, offset;
};

/* What the driver knows of an image. `gives`, `takes`: input comes, or output goes, by host steps alone. */
struct gossamer_program {
    struct gossamer_place input, output;
    uint32_t external_bytes, external_crc;
    bool gives, takes, warm_start;
};

struct gossamer {
    struct gossamer_bus bus;

    /* To be changed after gossamer_init. */
    bool verify;                  /* read back what is written to the store */
    bool interrupts;              /* wait for gossamer_interrupt instead of asking the status register again and again */
    bool (*idle)(void *context);  /* called while waiting; false gives up, with GOSSAMER_TIMEOUT. May be null. */
    void *idle_context;

    /* To be read. */
    uint32_t lanes, store_bytes, store_words;
    struct gossamer_program program;
    bool loaded;
    bool warm;                    /* a warm start is right */

    bool started;                 /* a run, whose end has not been seen */
    volatile bool event;          /* there has been an interrupt */
    uint32_t row[2];              /* the next that host steps give and take */
};

/* The tensors of a run, as arrays (rows, columns, channels); or functions that return the values of one row (columns,
 * channels), for images that no memory holds. Output rows that no host step takes are not written. */
struct gossamer_tensors {
    const int8_t *input;
    int8_t *output;
    int8_t input_zero_point;
    const int8_t *(*input_row)(void *context, uint32_t row);
    int8_t *(*output_row)(void *context, uint32_t row);
    void *context;
};

/* The sentence of a result. */
const char *gossamer_text(enum gossamer_result result);

/* Finds the core. All members of `core` get a value. */
enum gossamer_result gossamer_init(struct gossamer *core, struct gossamer_bus bus);

/* Whether an image is whole and made for the core, and what is in it; `program` may be null. */
enum gossamer_result gossamer_check(
    const struct gossamer *core, const uint8_t *image, size_t bytes, struct gossamer_program *program);

/* Checks an image and writes it to the store. */
enum gossamer_result gossamer_load(struct gossamer *core, const uint8_t *image, size_t bytes);

/* Whether the image in the store still has its CRC. */
enum gossamer_result gossamer_verify(struct gossamer *core);

/* Whether `data` is what the loaded program needs in the external memory. */
enum gossamer_result gossamer_check_external(const struct gossamer *core, const uint8_t *data, size_t bytes);

/* The whole input to the store; the whole output from there. Not for programs whose host steps do that. */
enum gossamer_result gossamer_write_input(struct gossamer *core, const struct gossamer_tensors *tensors);
enum gossamer_result gossamer_read_output(struct gossamer *core, const struct gossamer_tensors *tensors);

/* Starts the program. A warm start (`warm`) leaves out the loads of what is still in the buffers. */
enum gossamer_result gossamer_start(struct gossamer *core, bool warm);

/* GOSSAMER_BUSY, GOSSAMER_PAUSED, GOSSAMER_OK when the program has ended, or the core's error. */
enum gossamer_result gossamer_poll(struct gossamer *core);

/* Does what the host step says at which the core waits, and lets it go on. */
enum gossamer_result gossamer_serve(struct gossamer *core, const struct gossamer_tensors *tensors);

/* Waits for the end, and serves host steps on the way. */
enum gossamer_result gossamer_wait(struct gossamer *core, const struct gossamer_tensors *tensors);

/* All of it: writes the input, starts (warm if that is right), waits, reads the output. */
enum gossamer_result gossamer_run(struct gossamer *core, const struct gossamer_tensors *tensors);

/* To be called in the core's interrupt. It ends the request; the next start or host step allows interrupts again. */
void gossamer_interrupt(struct gossamer *core);

/* Clock cycles of the last run; the layer at which the core is, or has failed. */
enum gossamer_result gossamer_cycles(struct gossamer *core, uint32_t *cycles);
enum gossamer_result gossamer_layer(struct gossamer *core, uint32_t *layer);

/* CRC-32 as in images. `crc` is 0, or the CRC of what is in front. */
uint32_t gossamer_crc(uint32_t crc, const uint8_t *data, size_t bytes);

/* A feature map and its bytes in the store. Rows take whole words of `store_bytes` there. */
size_t gossamer_place_bytes(const struct gossamer_place *place, uint32_t store_bytes);
void gossamer_to_store(
    const struct gossamer_place *place, uint32_t store_bytes, const int8_t *values, int8_t zero_point, uint8_t *bytes);
void gossamer_from_store(const struct gossamer_place *place, uint32_t store_bytes, const uint8_t *bytes, int8_t *values);

/* The layers that the host computes, bit for bit as TFLite's reference kernels do (gossamer_operators.c). */

/* A real number as multiplier * 2**(shift - 31), see golden/arithmetic.py. */
struct gossamer_multiplier {
    int32_t multiplier;
    int shift;
};

struct gossamer_multiplier gossamer_multiplier(double real);

/* QUANTIZE and DEQUANTIZE. A NaN becomes 127. */
void gossamer_quantize(const float *x, size_t count, double scale, int zero_point, int8_t *y);
void gossamer_dequantize(const int8_t *x, size_t count, double scale, int zero_point, float *y);

/* QUANTIZE of int8, `by` times (x - input_zero_point), plus output_zero_point. */
void gossamer_rescale(
    const int8_t *x, size_t count, struct gossamer_multiplier by, int input_zero_point, int output_zero_point, int8_t *y);

/* The 256 results of LOGISTIC: that of x is table[x + 128]. The output has scale 1/256 and zero point -128. */
void gossamer_logistic(double scale, int zero_point, int8_t table[256]);

/* SOFTMAX of one vector of 1 to 4095 values; false for others, and if scale * beta is below 2**-27. The output has scale
 * 1/256 and zero point -128; it may be the input. */
bool gossamer_softmax(const int8_t *x, size_t count, double scale, double beta, int8_t *y);

#endif
