"""Where tensors lie: a naive check over random lifetimes, and plans by hand."""

import itertools

import pytest

from gossamer.golden.memory import Arena

# a step's layer reads its inputs while it writes its outputs
CHAIN = [("1", ("a",), ("b",)), ("2", ("b",), ("c",)), ("3", ("c",), ("d",))]


def graph(rng, layers):
    """A random graph ``(sizes, layers)`` of tensors ``t0`` (the input) to ``t<layers>`` (the output). Some layers have an area
    ``s<layer>`` that nobody else reads, and some write a part of the output of the layer in front."""
    sizes = {f"t{i}": int(rng.integers(1, 200)) for i in range(layers + 1)}
    found = []
    for i in range(layers):
        inputs = tuple(f"t{j}" for j in sorted({i, int(rng.integers(i + 1))}))
        outputs = [f"t{i + 1}"]
        if rng.integers(3) == 0:
            outputs.append(f"s{i}")
            sizes[f"s{i}"] = int(rng.integers(1, 200))
        if i and rng.integers(3) == 0:
            outputs.append(f"t{i}")
        found.append((f"l{i}", inputs, tuple(outputs)))
    return sizes, found


def needed(layers, first, last):
    """Per step, the tensors that hold something that is still read or written, or is the result."""
    result = []
    for step, (_, inputs, outputs) in enumerate(layers):
        written = {first} | {name for _, _, names in layers[:step] for name in names}
        later = {name for _, *names in layers[step:] for name in (*names[0], *names[1])} | {last}
        result.append((written & later) | {*inputs, *outputs})
    return result


def overlaps(plan, names):
    places = sorted((plan.addresses[name], plan.addresses[name] + plan.sizes[name], name) for name in names)
    return [(a[2], b[2]) for a, b in itertools.pairwise(places) if b[0] < a[1]]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("alignment", [1, 8, 16])
def test_tensors_that_live_at_once_never_overlap(rng, alignment, keep):
    for _ in range(60):
        sizes, layers = graph(rng, int(rng.integers(1, 12)))
        last = f"t{len(layers)}"
        plan = Arena(alignment).plan(sizes, layers, "t0", last, keep)
        assert plan.addresses.keys() == sizes.keys()
        assert all(address % alignment == 0 and address >= 0 for address in plan.addresses.values())
        rounded = {name: -(-size // alignment) * alignment for name, size in sizes.items()}
        assert plan.peak == max(plan.addresses[name] + rounded[name] for name in sizes)
        live = needed(layers, "t0", last)
        for step, names in enumerate(live):
            assert not overlaps(plan, names), f"step {step}"
            assert all(step in plan.lives[name] for name in names)
        if keep:
            assert not overlaps(plan, sizes)
            assert plan.peak == plan.bound == sum(rounded.values())
        else:
            assert plan.bound == max(sum(rounded[name] for name in names) for names in live)
        assert plan.bound <= plan.peak <= sum(rounded.values())


def test_a_chain_by_hand():
    plan = Arena(8).plan({"a": 30, "b": 17, "c": 9, "d": 3}, CHAIN, "a", "d")
    # a and b live in step 1, b and c in step 2, c and d in step 3: the largest two decide
    assert (plan.peak, plan.bound) == (32 + 24, 56)
    assert plan.addresses["a"] == 0
    assert plan.addresses["b"] == 32
    assert plan.addresses["c"] == 0  # in the place of a
    assert plan.addresses["d"] == 16
    assert dict(plan.lives) == {"a": range(1), "b": range(2), "c": range(1, 3), "d": range(2, 3)}
    assert plan.layers == ("1", "2", "3")
    assert plan.sizes == {"a": 30, "b": 17, "c": 9, "d": 3}


def test_a_tensor_goes_into_a_hole_that_fits():
    # a and c live throughout; b between them dies, and d takes its place
    layers = [("1", ("a",), ("b",)), ("2", ("b",), ("c",)), ("3", ("c", "a"), ("d",)), ("4", ("a", "c", "d"), ("e",))]
    plan = Arena(1).plan({"a": 100, "b": 50, "c": 40, "d": 50, "e": 1}, layers, "a", "e")
    assert plan.addresses["d"] == plan.addresses["b"] == 100
    assert plan.peak == plan.bound == 191


def test_keep_gives_every_tensor_its_own_place_to_the_end():
    plan = Arena(8).plan({"a": 30, "b": 17, "c": 9, "d": 3}, CHAIN, "a", "d", keep=True)
    assert plan.peak == plan.bound == 32 + 24 + 16 + 8
    assert all(life.stop == 3 for life in plan.lives.values())


def test_the_output_lives_to_the_end():
    layers = [("1", ("a",), ("b",)), ("2", ("a",), ("c",)), ("3", ("c",), ("d",))]
    plan = Arena(1).plan({"a": 4, "b": 5, "c": 6, "d": 7}, layers, "a", "b")
    assert plan.lives["b"] == range(3)
    assert not overlaps(plan, "bcd")


def test_an_area_of_one_layer_lives_as_long_as_it():
    layers = [("1", ("a",), ("b", "area")), ("2", ("b",), ("c",))]
    plan = Arena(1).plan({"a": 4, "b": 5, "c": 6, "area": 100}, layers, "a", "c")
    assert plan.lives["area"] == range(1)
    assert (plan.peak, plan.addresses["c"]) == (109, 0)  # c lies where the area was


def test_what_two_layers_write_lives_between_them():
    layers = [("1", ("a",), ("b",)), ("2", ("a",), ("c",)), ("3", ("c",), ("b",))]
    plan = Arena(1).plan({"a": 4, "b": 5, "c": 6}, layers, "a", "b")
    assert plan.lives["b"] == range(3)
    assert plan.peak == 15


def test_the_input_exists_from_the_start():
    layers = [("1", ("a",), ("b",)), ("2", ("b", "a"), ("c",))]
    plan = Arena(1).plan({"a": 4, "b": 5, "c": 6}, layers, "a", "c")
    assert plan.lives["a"] == range(2)
    assert plan.peak == 15


def test_a_network_without_layers_is_its_input():
    plan = Arena(16).plan({"a": 20}, [], "a", "a")
    assert (plan.addresses, plan.peak, plan.layers) == ({"a": 0}, 32, ())


def test_plans_do_not_depend_on_the_order_of_names(rng):
    sizes, layers = graph(rng, 9)
    backwards = dict(reversed(sizes.items()))
    one, other = (Arena(8).plan(s, layers, "t0", "t9") for s in (sizes, backwards))
    assert one.addresses == other.addresses
