/* A program for a SoC: runs the image that is linked in, or lies in its flash, and returns the class of the result.
 *
 * The image is what `gossamer compile` writes. To link it in:  ld -r -b binary -o image.o image.bin, which defines the symbols
 * that are weak here. */

#include "gossamer.h"

#ifndef GOSSAMER_BASE
#define GOSSAMER_BASE 0x40000000
#endif

extern const uint8_t _binary_image_bin_start[] __attribute__((weak));
extern const uint8_t _binary_image_bin_end[] __attribute__((weak));

enum { LARGEST_INPUT = 1024, LARGEST_OUTPUT = 256 };

static int8_t input[LARGEST_INPUT], output[LARGEST_OUTPUT];

static size_t values(const struct gossamer_place *place)
{
    return (size_t)place->rows * place->columns * place->channels;
}

int main(void)
{
    struct gossamer core;
    struct gossamer_bus bus = {.base = (volatile uint32_t *)(uintptr_t)GOSSAMER_BASE};
    struct gossamer_tensors tensors = {.input = input, .output = output, .input_zero_point = -128};
    enum gossamer_result result = gossamer_init(&core, bus);
    if (result == GOSSAMER_OK)
        result = gossamer_load(
            &core, _binary_image_bin_start, (size_t)((uintptr_t)_binary_image_bin_end - (uintptr_t)_binary_image_bin_start));
    if (result != GOSSAMER_OK)
        return -(int)result;
    size_t inputs = values(&core.program.input), outputs = values(&core.program.output);
    if (inputs > LARGEST_INPUT || outputs > LARGEST_OUTPUT)
        return -(int)GOSSAMER_TOO_LARGE;
    for (size_t i = 0; i < inputs; ++i) /* a picture would come from a camera */
        input[i] = (int8_t)(i * 37);
    result = gossamer_run(&core, &tensors);
    if (result != GOSSAMER_OK)
        return -(int)result;
    (void)gossamer_softmax(output, outputs, 0.1, 1.0, output);
    size_t best = 0;
    for (size_t i = 1; i < outputs; ++i)
        best = output[i] > output[best] ? i : best;
    return (int)best;
}
