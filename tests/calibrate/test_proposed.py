"""Stacks that are proposed and not shipped."""

import json

import pytest

from sweeper.calibrate import proposed, public
from sweeper.calibrate.proposed import PROPOSALS, PROPOSED, Proposal
from sweeper.simulation import calibration


@pytest.mark.parametrize("proposal", PROPOSALS, ids=lambda each: each.name)
def test_sources_are_found_and_of_several_models(proposal: Proposal) -> None:
    by_model = proposed.figures_by_model(proposal)
    known = {source["name"]: source for source in public.sources()}
    assert sum(map(len, by_model.values())) == sum(len(known[name]["runs"]) for name in proposal.sources)
    assert len(by_model) >= 4
    for figures in by_model.values():
        assert len({figure.spec.model.name for figure in figures}) == 1


def test_none_is_shipped_and_all_are_kept_with_their_errors() -> None:
    kept = {each["name"]: each for each in json.loads(PROPOSED.read_text("utf-8"))}
    assert set(kept) == {proposal.name for proposal in PROPOSALS}
    assert not set(kept) & set(calibration.names())
    for proposal in PROPOSALS:
        assert set(kept[proposal.name]["values"]) == set(proposal.parameters)
        assert kept[proposal.name]["sources"] == list(proposal.sources)
