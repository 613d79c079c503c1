"""Public measurements, and the calibrations that came of AMD's tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace

import pytest

from sweeper.calibrate import amd_tables, anchoring, public, replay, shipping, stacks
from sweeper.calibrate.figures import FIT, VALIDATION, predict, relative_errors
from sweeper.calibrate.judging import errors_pct
from sweeper.clients.simulated import SimulatedClient
from sweeper.engines import never_cancelled
from sweeper.engines.simulated import SimulatedEngine
from sweeper.simulation import calibration
from sweeper.simulation.calibration import Calibration, NamedCalibration


@pytest.fixture(scope="module", params=[table.name for table in stacks.TABLES])
def table(request: pytest.FixtureRequest) -> stacks.Table:
    return next(table for table in stacks.TABLES if table.name == request.param)


def shipped(table: stacks.Table) -> NamedCalibration:
    return calibration.load(table.name)


def test_file_says_of_which_stack_it_is_and_where_each_parameter_comes_from(table: stacks.Table) -> None:
    named = shipped(table)
    assert named.stack == table.stack
    assert set(named.fitted) | set(named.taken) == set(Calibration.__dataclass_fields__)
    assert not set(named.fitted) & set(named.taken)
    assert set(table.parameters) < set(named.fitted)


def test_errors_that_row_names_are_those_of_its_file(table: stacks.Table) -> None:
    figures = stacks.table_figures(table.name)
    found = errors_pct([*figures], predict(figures, asdict(shipped(table).calibration)))
    # The figures of a source are there to judge by; here all of them were fitted.
    assert found[VALIDATION] == pytest.approx(shipped(table).errors_pct[FIT], abs=0.02)


def test_it_is_far_better_than_articles(table: stacks.Table) -> None:
    figures = stacks.table_figures(table.name)
    own, articles = (
        sum(map(abs, relative_errors(figures, predict(figures, values))))
        for values in (asdict(shipped(table).calibration), asdict(Calibration()))
    )
    assert own < articles / 3


def test_physics_is_the_same_in_every_stack() -> None:
    shared = (*stacks.SHARED, stacks.HALF, "gemm_frac", "weight_read_frac", "link_frac", "allreduce_s")
    values = [asdict(shipped(table).calibration) for table in stacks.TABLES]
    for name in shared:
        assert len({each[name] for each in values}) == 1, name


def test_large_model_is_predicted_from_fits_that_have_not_seen_it() -> None:
    left = list(shipping.without_large_model())
    assert [each.name for each in left] == [table.name for table in stacks.TABLES]
    for each in left:
        assert {shipping.LARGE in figure.spec.model.name for figure in each.figures} == {True}
        found = errors_pct(each.figures, each.predicted)[VALIDATION]
        # The bars of docs/predictions.md.
        assert found["output_throughput_tok_per_s"] <= 8
        assert found["mean_batch_latency_ms"] <= 10
        assert found == pytest.approx(calibration.load(each.name).errors_pct[VALIDATION], abs=0.02)


def test_tables_of_every_image_are_whole() -> None:
    for image in amd_tables.IMAGES:
        figures = stacks.table_figures(image.stack)
        kinds = Counter((figure.spec.model.name, figure.point.dataset) for figure in figures)
        assert sorted(kinds.values()) == [4, 4, 16, 16], image.stack
        latest = max(other.date for other in amd_tables.IMAGES if other.release == image.release)
        assert image.is_newest == (image.date == latest)
    assert [image.date for image in amd_tables.IMAGES] == sorted(image.date for image in amd_tables.IMAGES)


def test_latencies_are_run_as_amds_commands_have_them() -> None:
    # Pages of V0: a latency has neither several steps nor a bound on lengths, a throughput ten steps.
    for image in amd_tables.IMAGES:
        for figure in stacks.table_figures(image.stack):
            asked = figure.spec.assignment
            is_v0 = image.generation == "v0"
            is_throughput = figure.point.dataset == "throughput"
            assert ("num_scheduler_steps" in asked) == (is_v0 and is_throughput)
            assert ("max_model_len" in asked) == is_throughput
            assert (asked.get("kv_cache_dtype") == "fp8") == (is_v0 or is_throughput)


def test_model_of_source_is_found_and_its_block_is_as_large_as_it_asks() -> None:
    (source,) = (each for each in public.sources() if each["name"] == "amd_0_10_0_70b_fp8")
    figure = public.source_figures(source)[0]
    assert figure.placement.devices == tuple(range(8))
    assert figure.spec.model.shape.layers == 80
    assert figure.role == VALIDATION


def test_source_whose_client_stops_counting_is_predicted_so() -> None:
    # Of 3897 requests 2939 were answered within the two minutes, by the source.
    *_, last = public.figures_of("amd_spx_nemo")
    assert (last.until_s, last.point.num_prompts, last.point.request_rate_per_s) == (120.0, 3896, 32.47)
    both = [replace(last, until_s=until_s) for until_s in (last.until_s, None)]
    counted, whole = predict(both, {})
    assert [counted, whole] == [predict([figure], {})[0] for figure in both]
    # Those that came last ran with the most others.
    assert counted < whole


def test_kernel_for_few_rows_makes_single_sequences_of_other_sources_right() -> None:
    known = public.figures_of("vllm_15830_70b")
    slow, fast = predict(known[:2], {}), predict(known[2:], {})
    saved = [1 - short / whole for short, whole in zip(fast, slow, strict=True)]
    assert saved == pytest.approx([1 - 1289.184 / 1411.847, 1 - 1344.541 / 1446.01], rel=0.2)
    # 8B at one and eight sequences, which that source says nothing of: 7 % too slow and 6 % too fast before.
    others = public.figures_of("cmontemuino_8b")
    basis = asdict(anchoring.basis_of(others).calibration)
    one, eight = relative_errors([others[0], others[2]], predict([others[0], others[2]], basis))
    assert abs(one - eight) < 0.03


def test_latencies_and_throughputs_are_of_one_image_and_it_had_aiters_kernels_off() -> None:
    # AMD's page for the image of 2025-08-12; the one of 2025-07-15 (vLLM 0.9.1) says 17.236 and 48.453 s.
    of_one = {
        "amd_0_10_0_70b_fp8": (17188, 46195, 13383.3),
        "amd_0_10_0_405b_fp8": (48824, 118212, 3867.7),
    }
    for source in public.sources():
        if source["name"] in of_one:
            runs = {run["name"]: run["published"] for run in source["runs"]}
            first, last, throughput = of_one[source["name"]]
            assert runs["latency, batch 1, 128/2048 tokens"] == first
            assert runs["latency, batch 128, 128/2048 tokens"] == last
            assert runs[next(name for name in runs if name.startswith("throughput, 128/2048"))] == throughput
            assert "image of 2025-08-12" in source["told"]
            assert "AITER's kernels off" in source["told"]
    assert calibration.load("amd_0_10_0").stack == stacks.TABLES[-1].stack
    assert stacks.TABLES[-1].stack.aiter is False


@pytest.mark.parametrize("stack", ["amd_0_6_6", "amd_0_8_5", "amd_0_10_0"])
def test_recorded_runs_say_with_other_parameters_what_whole_runs_do(stack: str) -> None:
    # A latency of one step at a time, whose answers V0 reads a step late, and a throughput of several.
    for figure in (stacks.table_figures(stack)[7], stacks.table_figures(stack)[24]):
        recorded = replay.recording(figure.spec, figure.placement, figure.point)
        assert recorded is not None
        found = replace(calibration.load(stack).calibration, kernel_layer_s=5e-5, kv_read_frac=0.2)
        spec = replace(figure.spec, calibration=asdict(found))
        server = SimulatedEngine().start(spec, figure.placement, restart=0, cancelled=never_cancelled)
        whole = SimulatedClient(spec).measure(
            server, figure.point, restart=0, repeat=0, cancelled=never_cancelled
        )
        assert recorded.told(found, figure.metric) == pytest.approx(whole.metrics[figure.metric], rel=1e-6)
