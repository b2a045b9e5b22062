"""Programs with compressed maps on RTL."""

import dataclasses

import numpy as np
import pytest

from gossamer.golden import digits
from gossamer.golden.coding import budgets, calibrate
from gossamer.golden.compiler import Frontend, Strategy
from gossamer.golden.inference import infer
from gossamer.golden.interpreter import MachineError
from gossamer.golden.planner import Planner, fit
from gossamer.golden.spec import CONFIGS, Error
from gossamer.sim.rtl import RtlError, Simulator
from tests.coded import every_slot
from tests.golden.test_rolling import frontend_of, strategy_for
from tests.networks import SMALL, full_groups, inputs

UP5K = CONFIGS["up5k_codec"]
CONFIGURATIONS = [
    UP5K,
    dataclasses.replace(UP5K, codec="bounded"),
    dataclasses.replace(SMALL[0], codec="lossless", store_ports=1),
    dataclasses.replace(SMALL[4], codec="bounded"),
    dataclasses.replace(SMALL[1], codec="bounded", codec_streams=4),
    dataclasses.replace(SMALL[2], codec="lossless", codec_streams=8, store_ports=1),
]


@pytest.fixture(
    scope="module", params=CONFIGURATIONS, ids=lambda config: f"{config.name}-{config.codec}-{config.codec_streams}"
)
def simulator(request):
    return Simulator(request.param)


def assert_equal(simulator, compiled, x):
    """Outputs are the network's, and cycles the cycle model's."""
    result = simulator.run(compiled, x, seed=1)
    wanted = compiled.network.run(x)[compiled.device_output]
    assert (np.stack([compiled.output_values(data) for data in result.outputs]) == wanted).all()
    assert result.cycles == [infer(compiled, one).cycles for one in x]


def test_digits(simulator):
    frontend, x = Frontend(digits.load(), simulator.config), digits.test_set()[0]
    slots = calibrate(frontend.network, frontend.layout, x[:100], simulator.config)
    compiled = frontend.compile(Strategy(slots=slots))
    assert compiled.coded or simulator.config.codec_streams > 4
    assert_equal(simulator, compiled, x[:10])


def test_digits_in_little_memory():
    frontend, x = Frontend(digits.load(), UP5K), digits.test_set()[0]
    slots = calibrate(frontend.network, frontend.layout, x[:100], UP5K)
    least = min(point.peak for point in Planner(frontend).points())
    points = Planner(frontend, slots=slots).points()
    compiled = fit(frontend, least - 1, points)
    assert compiled.coded
    assert_equal(Simulator(UP5K), compiled, x[:5])


def test_random_networks_and_orders(simulator, rng):
    coded = 0
    for _ in range(8):
        frontend = frontend_of(full_groups, simulator.config, rng)
        strategy = dataclasses.replace(strategy_for(frontend, rng), slots=every_slot(frontend))
        compiled = frontend.compile(strategy)
        coded += bool(compiled.coded)
        assert_equal(simulator, compiled, inputs(rng, frontend.source, 2))
    assert coded


@pytest.mark.slow
@pytest.mark.parametrize("streams", [2, 4, 8, 16])
@pytest.mark.parametrize("size", SMALL, ids=lambda config: config.name)
@pytest.mark.parametrize("ports", [1, 2])
@pytest.mark.parametrize("kind", ["lossless", "bounded"])
def test_rows_of_several_units(size, streams, ports, kind, rng):
    if streams > size.store_bytes:
        return
    coded = 0
    simulator = Simulator(dataclasses.replace(size, codec=kind, codec_streams=streams, store_ports=ports))
    for _ in range(10):
        frontend = frontend_of(full_groups, simulator.config, rng)
        compiled = frontend.compile(dataclasses.replace(strategy_for(frontend, rng), slots=every_slot(frontend)))
        coded += bool(compiled.coded)
        assert_equal(simulator, compiled, inputs(rng, frontend.source, 2))
    assert coded


def corrupted(compiled):
    """The program with rows that are not compressed, but are read as if they were."""
    layers = tuple({**layer, "out_coded": 0} for layer in compiled.program.layers)
    return dataclasses.replace(compiled, program=dataclasses.replace(compiled.program, layers=layers))


def test_corrupted_rows_end_as_the_interpreter_says(simulator, rng):
    """Any bits are codes, and most end with bits that are not zero."""
    noticed = read = 0
    for _ in range(12):
        frontend = frontend_of(full_groups, simulator.config, rng)
        compiled = corrupted(frontend.compile(Strategy(slots=every_slot(frontend))))
        x = inputs(rng, frontend.source, 1)
        try:
            wanted = infer(compiled, x[0])
        except MachineError as error:
            code = Error.CODE if "zeros behind its last value" in str(error) else Error.READ
            with pytest.raises(RtlError, match=f"^the core stopped with error {code}: "):
                simulator.run(compiled, x, seed=None)
            noticed += 1
            continue
        result = simulator.run(compiled, x, seed=None)
        assert (compiled.output_values(result.outputs[0]) == wanted.output).all()
        assert result.cycles == [wanted.cycles]
        read += any(layer["in_coded"] for layer in compiled.program.layers)
    assert noticed > read


@pytest.mark.parametrize(
    "config", [UP5K, SMALL[1], dataclasses.replace(SMALL[1], codec="budgeted", codec_streams=2)], ids=lambda config: config.name
)
def test_budgets(config, rng):
    config, lossy = dataclasses.replace(config, codec="budgeted"), 0
    simulator = Simulator(config)
    for turn in range(8):
        frontend = frontend_of(full_groups, config, rng)
        slots = budgets(frontend.layout, float(rng.choice([0.4, 0.6, 0.9])), config)
        lossless = {name: slot for name, slot in every_slot(frontend).items() if name not in slots or rng.integers(2)}
        strategy = dataclasses.replace(strategy_for(frontend, rng), strips=1) if turn % 2 else Strategy()
        strategy = dataclasses.replace(
            strategy, slots={**slots, **lossless}, budgeted=frozenset(slots.keys() - lossless.keys())
        )
        compiled = frontend.compile(strategy)
        x = inputs(rng, frontend.source, 2)
        result, wanted = simulator.run(compiled, x, seed=1), [infer(compiled, one) for one in x]
        outputs = np.stack([compiled.output_values(data) for data in result.outputs])
        assert (outputs == np.stack([one.output for one in wanted])).all()
        assert result.cycles == [one.cycles for one in wanted]
        lossy += (outputs != frontend.network.run(x)[frontend.output]).any()
    assert lossy


def test_a_row_that_does_not_fit_stops_the_core(simulator, rng):
    frontend, x = Frontend(digits.load(), simulator.config), digits.test_set()[0][:3]
    slots = every_slot(frontend)
    compiled = frontend.compile(Strategy(slots=dict.fromkeys(slots, simulator.config.slot_bytes)))
    assert compiled.coded
    with pytest.raises(RtlError, match=f"^the core stopped with error {Error.SLOT}: a compressed row"):
        simulator.run(compiled, x)
