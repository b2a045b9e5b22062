/* Prints the class of each of the network's samples, and the clock cycles that the core took. */

#include <stdio.h>

#include "soc.h"

int main(void)
{
    static struct gossamer core;
    static int8_t outputs[LARGEST_OUTPUT];
    enum gossamer_result result = soc_begin(&core);
    const int8_t *input = network.samples;
    for (uint32_t i = 0; i < network.sample_count && result == GOSSAMER_OK; ++i) {
        uint32_t cycles = 0, best = 0;
        result = soc_infer(&core, input, outputs);
        if (result == GOSSAMER_OK)
            result = gossamer_cycles(&core, &cycles);
        if (result != GOSSAMER_OK)
            break;
        for (uint32_t c = 1; c < soc_values(&core.program.output); ++c)
            best = outputs[c] > outputs[best] ? c : best;
        printf("class %lu, %lu cycles\r\n", (unsigned long)best, (unsigned long)cycles);
        input += soc_values(&core.program.input);
    }
    printf("%s\r\n", result == GOSSAMER_OK ? "done" : gossamer_text(result));
    return 0;
}
