/* See gossamer.h. */

#include "gossamer.h"

/* Records: `width` bits from bit `first` on, little endian. The layouts are in gossamer_registers.h. */
static uint32_t field(const uint8_t *record, uint32_t first, uint32_t width)
{
    uint64_t value = 0;
    uint32_t last = (first + width - 1) / 8;
    for (uint32_t i = first / 8; i <= last; ++i)
        value |= (uint64_t)record[i] << 8 * (i - first / 8);
    return (uint32_t)(value >> first % 8 & (((uint64_t)1 << width) - 1));
}

static uint32_t pack(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void unpack(uint32_t word, uint8_t *bytes)
{
    for (int i = 0; i < 4; ++i)
        bytes[i] = (uint8_t)(word >> 8 * i);
}

/* The byte in which a field begins. */
#define BYTE_OF(...) FIRST(__VA_ARGS__)
#define FIRST(first, width) ((first) / 8)

const char *gossamer_text(enum gossamer_result result)
{
    switch ((int)result) {
#define GOSSAMER_CASE(name, value, text) \
    case value: \
        return text;
        GOSSAMER_CORE_ERRORS(GOSSAMER_CASE)
        GOSSAMER_DRIVER_RESULTS(GOSSAMER_CASE)
    default:
        return "an error that this driver does not know";
    }
}

/* Registers and store */

#define CONTROL(name) GOSSAMER_CONTROL_##name##_MASK
#define STATUS(name, value) (((value)&GOSSAMER_STATUS_##name##_MASK) >> GOSSAMER_STATUS_##name##_SHIFT)
#define TRY(expression) \
    do { \
        enum gossamer_result try_ = (expression); \
        if (try_ != GOSSAMER_OK) \
            return try_; \
    } while (0)

static enum gossamer_result get(const struct gossamer *core, uint32_t address, uint32_t *word)
{
    return gossamer_bus_read(&core->bus, address, word) ? GOSSAMER_OK : GOSSAMER_BUS;
}

static enum gossamer_result put(const struct gossamer *core, uint32_t address, uint32_t word)
{
    return gossamer_bus_write(&core->bus, address, word) ? GOSSAMER_OK : GOSSAMER_BUS;
}

static enum gossamer_result get_store(const struct gossamer *core, uint32_t at, uint32_t *word)
{
    return get(core, GOSSAMER_STORE_WINDOW + at, word);
}

static enum gossamer_result put_store(const struct gossamer *core, uint32_t at, uint32_t word)
{
    uint32_t found = word;
    TRY(put(core, GOSSAMER_STORE_WINDOW + at, word));
    if (core->verify)
        TRY(get_store(core, at, &found));
    return found == word ? GOSSAMER_OK : GOSSAMER_VERIFY;
}

/* The store belongs to the host while no program runs. */
static enum gossamer_result not_busy(const struct gossamer *core)
{
    uint32_t status;
    TRY(get(core, GOSSAMER_STATUS_ADDRESS, &status));
    return STATUS(BUSY, status) ? GOSSAMER_BUSY : GOSSAMER_OK;
}

enum gossamer_result gossamer_init(struct gossamer *core, struct gossamer_bus bus)
{
    uint32_t ident, words;
    *core = (struct gossamer){.bus = bus};
    TRY(get(core, GOSSAMER_IDENT_ADDRESS, &ident));
    TRY(get(core, GOSSAMER_STORE_WORDS_ADDRESS, &words));
    core->lanes = (ident & GOSSAMER_IDENT_LANES_MASK) >> GOSSAMER_IDENT_LANES_SHIFT;
    core->store_bytes = (ident & GOSSAMER_IDENT_STORE_BYTES_MASK) >> GOSSAMER_IDENT_STORE_BYTES_SHIFT;
    core->store_words = words;
    bool known = (ident & GOSSAMER_IDENT_VERSION_MASK) >> GOSSAMER_IDENT_VERSION_SHIFT == GOSSAMER_VERSION;
    bool sized = core->store_bytes >= 8 && core->store_bytes % 4 == 0 && core->store_bytes <= core->lanes;
    return known && sized && words && words <= GOSSAMER_STORE_WINDOW / core->store_bytes ? GOSSAMER_OK : GOSSAMER_NO_CORE;
}

/* Images */

uint32_t gossamer_crc(uint32_t crc, const uint8_t *data, size_t bytes)
{
    /* What four bits that are shifted out do to the others. */
    static const uint32_t nibbles[] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    crc = ~crc;
    for (size_t i = 0; i < bytes; ++i) {
        crc ^= data[i];
        crc = crc >> 4 ^ nibbles[crc & 15];
        crc = crc >> 4 ^ nibbles[crc & 15];
    }
    return ~crc;
}

/* The bytes from `at` on of an image, with those of its CRC as 0. */
static uint32_t image_crc(uint32_t crc, const uint8_t *data, uint32_t at, uint32_t bytes)
{
    for (uint32_t i = 0; i < bytes; ++i) {
        uint8_t byte = at + i - BYTE_OF(GOSSAMER_HEADER_CRC) < 4 ? 0 : data[i];
        crc = gossamer_crc(crc, &byte, 1);
    }
    return crc;
}

/* Columns and pitch have 16 bits, store_bytes is a power of two. */
static uint32_t row_bytes(uint32_t columns, const struct gossamer_place *place, uint32_t store_bytes)
{
    return (columns * place->pitch + store_bytes - 1) & ~(store_bytes - 1);
}

static uint32_t low(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

enum gossamer_result gossamer_check(
    const struct gossamer *core, const uint8_t *image, size_t bytes, struct gossamer_program *program)
{
    uint64_t store = (uint64_t)core->store_words * core->store_bytes;
    if (bytes < GOSSAMER_HEADER_BYTES + GOSSAMER_STEP_BYTES)
        return GOSSAMER_IMAGE_SHORT;
    if (field(image, GOSSAMER_HEADER_MAGIC) != GOSSAMER_MAGIC)
        return GOSSAMER_IMAGE_MAGIC;
    if (field(image, GOSSAMER_HEADER_VERSION) != GOSSAMER_VERSION)
        return GOSSAMER_IMAGE_VERSION;
    if (field(image, GOSSAMER_HEADER_LANES) != core->lanes || field(image, GOSSAMER_HEADER_STORE_BYTES) != core->store_bytes)
        return GOSSAMER_IMAGE_CONFIG;
    if ((uint64_t)field(image, GOSSAMER_HEADER_IMAGE_WORDS) * core->store_bytes != bytes)
        return GOSSAMER_IMAGE_SIZE;
    if (image_crc(0, image, 0, (uint32_t)bytes) != field(image, GOSSAMER_HEADER_CRC))
        return GOSSAMER_IMAGE_CRC;
    if (bytes > store || field(image, GOSSAMER_HEADER_END_ADDRESS) > store)
        return GOSSAMER_TOO_LARGE;

    struct gossamer_program found = {
        .input = {
            .address = field(image, GOSSAMER_HEADER_INPUT_ADDRESS),
            .rows = field(image, GOSSAMER_HEADER_INPUT_ROWS),
            .columns = field(image, GOSSAMER_HEADER_INPUT_COLUMNS),
            .channels = field(image, GOSSAMER_HEADER_INPUT_CHANNELS),
            .pitch = field(image, GOSSAMER_HEADER_INPUT_PITCH),
        },
        .output = {
            .address = field(image, GOSSAMER_HEADER_OUTPUT_ADDRESS),
            .rows = field(image, GOSSAMER_HEADER_OUTPUT_ROWS),
            .columns = field(image, GOSSAMER_HEADER_OUTPUT_COLUMNS),
            .channels = field(image, GOSSAMER_HEADER_OUTPUT_CHANNELS),
            .pitch = field(image, GOSSAMER_HEADER_OUTPUT_PITCH),
        },
        .external_bytes = field(image, GOSSAMER_HEADER_EXTERNAL_WORDS) * core->store_bytes,
        .external_crc = field(image, GOSSAMER_HEADER_EXTERNAL_CRC),
        .warm_start = field(image, GOSSAMER_HEADER_WARM_STEPS) != field(image, GOSSAMER_HEADER_STEPS),
    };
    uint64_t at = (uint64_t)field(image, GOSSAMER_HEADER_STEPS) * core->store_bytes;
    for (;; at += GOSSAMER_STEP_BYTES) {
        if (at < GOSSAMER_HEADER_BYTES || at + GOSSAMER_STEP_BYTES > bytes)
            return GOSSAMER_IMAGE_STEPS;
        const uint8_t *step = image + at;
        uint32_t opcode = field(step, GOSSAMER_STEP_HOST_OPCODE);
        if (opcode == GOSSAMER_OPCODE_END)
            break;
        if (opcode == GOSSAMER_OPCODE_HOST && field(step, GOSSAMER_STEP_HOST_TAKE))
            found.takes = true;
        else if (opcode == GOSSAMER_OPCODE_HOST)
            found.gives = true;
    }
    const struct gossamer_place *places[] = {&found.input, &found.output};
    for (int i = 0; i < 2; ++i) {
        const struct gossamer_place *place = places[i];
        bool whole = i ? !found.takes : !found.gives;
        if (whole && place->address + (uint64_t)place->rows * row_bytes(place->columns, place, core->store_bytes) > store)
            return GOSSAMER_TOO_LARGE;
        if (place->channels > place->pitch || (whole && place->address % core->store_bytes))
            return GOSSAMER_IMAGE_SIZE;
    }
    if (program)
        *program = found;
    return GOSSAMER_OK;
}

enum gossamer_result gossamer_load(struct gossamer *core, const uint8_t *image, size_t bytes)
{
    TRY(not_busy(core));
    core->loaded = core->warm = core->started = false;
    TRY(gossamer_check(core, image, bytes, &core->program));
    for (uint32_t at = 0; at < bytes; at += 4)
        TRY(put_store(core, at, pack(image + at)));
    core->loaded = true;
    return GOSSAMER_OK;
}

enum gossamer_result gossamer_verify(struct gossamer *core)
{
    uint8_t bytes[GOSSAMER_STEP_BYTES];
    uint32_t crc = 0, words = 0, expected = 0, size = GOSSAMER_HEADER_BYTES;
    if (!core->loaded)
        return GOSSAMER_NOT_LOADED;
    TRY(not_busy(core));
    /* The header says in its first 16 bytes how long the image is, and behind them what the CRC must be. */
    for (uint32_t at = 0; at < size; at += 4) {
        uint32_t word;
        TRY(get_store(core, at, &word));
        unpack(word, bytes + at % sizeof bytes);
        crc = image_crc(crc, bytes + at % sizeof bytes, at, 4);
        if (at == BYTE_OF(GOSSAMER_HEADER_CRC))
            expected = word;
        if (at == sizeof bytes - 4) {
            words = field(bytes, GOSSAMER_HEADER_IMAGE_WORDS);
            if (words > core->store_words || words * core->store_bytes < GOSSAMER_HEADER_BYTES)
                return GOSSAMER_VERIFY;
            size = words * core->store_bytes;
        }
    }
    return crc == expected ? GOSSAMER_OK : GOSSAMER_VERIFY;
}

enum gossamer_result gossamer_check_external(const struct gossamer *core, const uint8_t *data, size_t bytes)
{
    if (!core->loaded)
        return GOSSAMER_NOT_LOADED;
    bool same = bytes == core->program.external_bytes && gossamer_crc(0, data, bytes) == core->program.external_crc;
    return same ? GOSSAMER_OK : GOSSAMER_EXTERNAL;
}

/* Tensors */

size_t gossamer_place_bytes(const struct gossamer_place *place, uint32_t store_bytes)
{
    return (size_t)place->rows * row_bytes(place->columns, place, store_bytes);
}

void gossamer_to_store(
    const struct gossamer_place *place, uint32_t store_bytes, const int8_t *values, int8_t zero_point, uint8_t *bytes)
{
    size_t size = gossamer_place_bytes(place, store_bytes), row = row_bytes(place->columns, place, store_bytes);
    for (size_t i = 0; i < size; ++i)
        bytes[i] = (uint8_t)(zero_point + 128);
    for (uint32_t y = 0; y < place->rows; ++y)
        for (uint32_t x = 0; x < place->columns; ++x)
            for (uint32_t c = 0; c < place->channels; ++c)
                bytes[y * row + (size_t)x * place->pitch + place->offset + c] = (uint8_t)(*values++ + 128);
}

void gossamer_from_store(const struct gossamer_place *place, uint32_t store_bytes, const uint8_t *bytes, int8_t *values)
{
    size_t row = row_bytes(place->columns, place, store_bytes);
    for (uint32_t y = 0; y < place->rows; ++y)
        for (uint32_t x = 0; x < place->columns; ++x)
            for (uint32_t c = 0; c < place->channels; ++c)
                *values++ = (int8_t)(bytes[y * row + (size_t)x * place->pitch + place->offset + c] - 128);
}

/* `columns` pixels to the store from byte `at` on. */
static enum gossamer_result give_row(
    const struct gossamer *core, uint32_t at, const int8_t *values, int8_t zero_point, uint32_t columns)
{
    const struct gossamer_place *place = &core->program.input;
    uint32_t size = columns * place->pitch, channel = 0;
    uint32_t end = row_bytes(columns, place, core->store_bytes);
    for (uint32_t i = 0; i < end; i += 4) {
        uint32_t word = 0;
        for (uint32_t b = 0; b < 4; ++b) {
            bool value = i + b < size && channel < place->channels;
            word |= (uint32_t)((value ? *values++ : zero_point) + 128) << 8 * b;
            channel = channel + 1 == place->pitch ? 0 : channel + 1;
        }
        TRY(put_store(core, at + i, word));
    }
    return GOSSAMER_OK;
}

static enum gossamer_result take_row(const struct gossamer *core, uint32_t at, int8_t *values, uint32_t columns)
{
    const struct gossamer_place *place = &core->program.output;
    uint32_t size = columns * place->pitch, channel = 0;
    for (uint32_t i = 0; i < size; i += 4) {
        uint32_t word;
        TRY(get_store(core, at + i, &word));
        for (uint32_t b = 0; b < low(4, size - i); ++b) {
            if (channel < place->channels)
                *values++ = (int8_t)((int)(word >> 8 * b & 255) - 128);
            channel = channel + 1 == place->pitch ? 0 : channel + 1;
        }
    }
    return GOSSAMER_OK;
}

/* `rows` rows from `row` on, of which those in the store lie `step` bytes apart, from byte `at` on. */
static enum gossamer_result transfer(
    const struct gossamer *core, const struct gossamer_tensors *tensors, bool take, uint32_t row, uint32_t rows,
    uint32_t column, uint32_t columns, uint32_t at, uint32_t step)
{
    const struct gossamer_place *place = take ? &core->program.output : &core->program.input;
    size_t before = (size_t)column * place->channels, length = (size_t)place->columns * place->channels;
    for (uint32_t end = row + rows; row < end; ++row, at += step) {
        if (take) {
            int8_t *values = tensors->output_row ? tensors->output_row(tensors->context, row)
                : tensors->output ? tensors->output + row * length : NULL;
            if (!values)
                return GOSSAMER_TENSOR;
            TRY(take_row(core, at, values + before, columns));
        } else {
            const int8_t *values = tensors->input_row ? tensors->input_row(tensors->context, row)
                : tensors->input ? tensors->input + row * length : NULL;
            if (!values)
                return GOSSAMER_TENSOR;
            TRY(give_row(core, at, values + before, tensors->input_zero_point, columns));
        }
    }
    return GOSSAMER_OK;
}

static enum gossamer_result transfer_whole(struct gossamer *core, const struct gossamer_tensors *tensors, bool take)
{
    const struct gossamer_place *place = take ? &core->program.output : &core->program.input;
    if (!core->loaded)
        return GOSSAMER_NOT_LOADED;
    TRY(not_busy(core));
    uint32_t step = row_bytes(place->columns, place, core->store_bytes);
    return transfer(core, tensors, take, 0, place->rows, 0, place->columns, place->address, step);
}

enum gossamer_result gossamer_write_input(struct gossamer *core, const struct gossamer_tensors *tensors)
{
    return transfer_whole(core, tensors, false);
}

enum gossamer_result gossamer_read_output(struct gossamer *core, const struct gossamer_tensors *tensors)
{
    return transfer_whole(core, tensors, true);
}

/* Runs */

static enum gossamer_result command(struct gossamer *core, uint32_t bits)
{
    core->event = false;
    return put(core, GOSSAMER_CONTROL_ADDRESS, bits | (core->interrupts ? CONTROL(INTERRUPT_ENABLE) : 0));
}

enum gossamer_result gossamer_start(struct gossamer *core, bool warm)
{
    if (!core->loaded)
        return GOSSAMER_NOT_LOADED;
    if (warm && !core->warm)
        return GOSSAMER_NOT_WARM;
    TRY(not_busy(core));
    core->warm = false; /* until it has ended */
    core->started = true;
    core->row[0] = core->row[1] = 0;
    return command(core, CONTROL(START) | (warm ? CONTROL(WARM) : 0));
}

enum gossamer_result gossamer_poll(struct gossamer *core)
{
    uint32_t status;
    TRY(get(core, GOSSAMER_STATUS_ADDRESS, &status));
    if (STATUS(BUSY, status))
        return GOSSAMER_BUSY;
    if (STATUS(PAUSED, status))
        return GOSSAMER_PAUSED;
    enum gossamer_result result = (enum gossamer_result)STATUS(ERROR, status);
    if (core->started && STATUS(DONE, status)) {
        core->started = false;
        core->warm = result == GOSSAMER_OK && core->program.warm_start;
    }
    return result;
}

enum gossamer_result gossamer_serve(struct gossamer *core, const struct gossamer_tensors *tensors)
{
    uint8_t step[GOSSAMER_STEP_BYTES];
    uint32_t status, behind;
    if (!core->loaded)
        return GOSSAMER_NOT_LOADED;
    TRY(get(core, GOSSAMER_STATUS_ADDRESS, &status));
    if (!STATUS(PAUSED, status))
        return STATUS(BUSY, status) ? GOSSAMER_BUSY : GOSSAMER_HOST_STEP;
    TRY(get(core, GOSSAMER_STEP_ADDRESS, &behind));
    if (behind > core->store_words || behind < GOSSAMER_STEP_BYTES / core->store_bytes)
        return GOSSAMER_HOST_STEP;
    for (uint32_t i = 0; i < GOSSAMER_STEP_BYTES; i += 4) {
        uint32_t word;
        TRY(get_store(core, behind * core->store_bytes - GOSSAMER_STEP_BYTES + i, &word));
        unpack(word, step + i);
    }
    bool take = field(step, GOSSAMER_STEP_HOST_TAKE);
    const struct gossamer_place *place = take ? &core->program.output : &core->program.input;
    uint32_t first = field(step, GOSSAMER_STEP_HOST_FIRST) ? 0 : core->row[take];
    uint32_t rows = field(step, GOSSAMER_STEP_HOST_ROWS), columns = field(step, GOSSAMER_STEP_HOST_COLUMNS);
    uint32_t column = field(step, GOSSAMER_STEP_HOST_COLUMN), row_words = field(step, GOSSAMER_STEP_HOST_ROW_WORDS);
    uint32_t words = row_bytes(columns, place, core->store_bytes) / core->store_bytes;
    uint64_t end = field(step, GOSSAMER_STEP_HOST_IN_ADDRESS) + (uint64_t)(rows - 1) * row_words + words;
    if (field(step, GOSSAMER_STEP_HOST_OPCODE) != GOSSAMER_OPCODE_HOST || !rows || !columns || end > core->store_words
        || first + rows > place->rows || column + columns > place->columns)
        return GOSSAMER_HOST_STEP;
    uint32_t at = field(step, GOSSAMER_STEP_HOST_IN_ADDRESS) * core->store_bytes;
    TRY(transfer(core, tensors, take, first, rows, column, columns, at, row_words * core->store_bytes));
    core->row[take] = first + rows;
    return command(core, CONTROL(RESUME));
}

enum gossamer_result gossamer_wait(struct gossamer *core, const struct gossamer_tensors *tensors)
{
    for (;;) {
        enum gossamer_result result = core->interrupts && !core->event ? GOSSAMER_BUSY : gossamer_poll(core);
        if (result == GOSSAMER_PAUSED)
            TRY(gossamer_serve(core, tensors));
        else if (result != GOSSAMER_BUSY)
            return result;
        else if (core->idle && !core->idle(core->idle_context))
            return GOSSAMER_TIMEOUT;
    }
}

enum gossamer_result gossamer_run(struct gossamer *core, const struct gossamer_tensors *tensors)
{
    if (!core->loaded)
        return GOSSAMER_NOT_LOADED;
    if (!core->program.gives)
        TRY(gossamer_write_input(core, tensors));
    TRY(gossamer_start(core, core->warm));
    TRY(gossamer_wait(core, tensors));
    return core->program.takes ? GOSSAMER_OK : gossamer_read_output(core, tensors);
}

void gossamer_interrupt(struct gossamer *core)
{
    (void)put(core, GOSSAMER_CONTROL_ADDRESS, 0);
    core->event = true;
}

enum gossamer_result gossamer_cycles(struct gossamer *core, uint32_t *cycles)
{
    return get(core, GOSSAMER_CYCLES_ADDRESS, cycles);
}

enum gossamer_result gossamer_layer(struct gossamer *core, uint32_t *layer)
{
    uint32_t status = 0;
    TRY(get(core, GOSSAMER_STATUS_ADDRESS, &status));
    *layer = STATUS(LAYER, status);
    return GOSSAMER_OK;
}
