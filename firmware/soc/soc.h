/* What the programs of the SoC share: its registers, stdio on its serial port, time. See docs/soc.md. */
#ifndef SOC_H
#define SOC_H

#include <stdbool.h>
#include <stdint.h>

#include "../gossamer.h"
#include "soc_registers.h"

#define SOC_REGISTER(name) (*(volatile uint32_t *)(SOC_PERIPHERALS + SOC_##name##_ADDRESS))

/* The network that the firmware is built with; `gossamer build --soc` writes it. */
struct network {
    const char *model;       /* its name in the harness */
    const uint8_t *image;
    size_t image_bytes;
    const int8_t *samples;   /* inputs one after the other, for soc_classes */
    uint32_t sample_count;
    int8_t input_zero_point;
    bool unsigned_bytes;     /* in the harness, inputs are bytes from 0 on: 128 more than the values */
    bool softmax;            /* behind what the core computes */
    double softmax_scale, softmax_beta;
};

extern const struct network network;

/* The core, with the network's image in its store. */
enum gossamer_result soc_begin(struct gossamer *core);

/* An inference: of `outputs`, LARGEST_OUTPUT values at most, those that the network has. With softmax if it ends with one. */
enum { LARGEST_OUTPUT = 64 };
enum gossamer_result soc_infer(struct gossamer *core, const int8_t *input, int8_t *outputs);

size_t soc_values(const struct gossamer_place *place);

/* Clock cycles, and microseconds, since reset. To be called at least once in 2^32 cycles, as waiting for input does. */
uint64_t soc_cycles(void);
uint32_t soc_microseconds(void);

/* Whether an access has led nowhere, or been refused, since the last call. */
bool soc_fault(void);

#endif
