from __future__ import annotations

import json

import numpy as np
import pytest

from altermag import AltermagError, Monolayer, classify
from altermag.stacking import named_operator, stack

flows = pytest.importorskip("altermag.flows", reason="needs altermag[flows]", exc_type=ImportError)
vasp = pytest.importorskip("altermag.dft.vasp", exc_type=ImportError)


def test_a_flow_relaxes_the_monolayer_and_then_stacks_it(ptbr3: Monolayer) -> None:
    flow = flows.StackingFlowMaker(distance=6.35).make(ptbr3)
    assert [job.name for job in flow.jobs] == ["relax monolayer", "stack_monolayer"]
    relax = flow.jobs[0].maker.input_set_generator.get_input_set(vasp.vasp_structure(ptbr3), potcar_spec=True)
    assert relax["INCAR"]["ISIF"] == 3
    assert relax["INCAR"]["EDIFFG"] == -0.005
    # A worker elsewhere gets the flow as JSON.
    from monty.json import MontyDecoder, MontyEncoder

    again = MontyDecoder().decode(json.dumps(flow, cls=MontyEncoder))
    assert [job.name for job in again.jobs] == ["relax monolayer", "stack_monolayer"]


def test_the_stacking_job_is_replaced_by_the_calculations_of_every_unlike_bilayer(ptbr3: Monolayer) -> None:
    maker = flows.StackingFlowMaker(distance=6.35, relax=False, shifts=[(1 / 3, 2 / 3), (0, 0)])
    (job,) = maker.make(ptbr3).jobs
    replaced = job.function(*job.function_args, **job.function_kwargs).replace
    assert [flow.name for flow in replaced.jobs] == [
        "mirror (0.3333,0.6667) afm",
        "mirror (0.3333,0.6667) fm",
        "mirror (0,0) afm",
        "mirror (0,0) fm",
    ]
    antiparallel, parallel = replaced.jobs[:2]
    assert [job.name.split()[-1] for job in antiparallel.jobs] == ["scf", "bands", "optics", "moke"]
    assert [job.name.split()[-1] for job in parallel.jobs] == ["scf"]
    structure = antiparallel.jobs[0].function_args[0]
    assert sum(structure.site_properties["magmom"]) == 0
    assert sum(parallel.jobs[0].function_args[0].site_properties["magmom"]) == 4
    turned = antiparallel.jobs[3].function_args[0]
    assert np.array(turned.site_properties["magmom"]).shape == (16, 3)


def test_all_special_stackings_are_computed_where_no_shifts_are_given(ptbr3: Monolayer) -> None:
    found = flows.StackingFlowMaker(gap=3.0).stackings(ptbr3)
    assert all(bilayer.gap == pytest.approx(3.0) for bilayer in found)
    shifts = {tuple(np.round(bilayer.shift, 6)) for bilayer in found}
    assert (0.0, 0.0) in shifts
    assert shifts & {(0.333333, 0.666667), (0.666667, 0.333333)}


@pytest.mark.parametrize("op", ["mirror", "c2:0"])
def test_a_cell_that_is_not_primitive_is_stacked_like_the_primitive_one(ptbr3: Monolayer, op: str) -> None:
    # Centred rectangular. The primitive cell's x is turned against it, so that c2:0 has no name there.
    big = Monolayer.from_structure(ptbr3.structure.make_supercell([[1, 0, 0], [1, 2, 0], [0, 0, 1]]))
    maker = flows.StackingFlowMaker(ops=(op,), gap=3.0, orders=("afm",), tasks=("scf",), relax=False)
    found = maker.stackings(big)
    assert {bilayer.op for bilayer in found} == {"mirror" if op == "mirror" else "custom"}
    expected = sorted(classify(bilayer).kind for bilayer in maker.stackings(ptbr3))
    assert sorted(classify(bilayer).kind for bilayer in found) == expected
    (job,) = maker.make(big).jobs
    replaced = job.function(*job.function_args, **job.function_kwargs).replace
    computed = [flow.jobs[0].function_args[0] for flow in replaced.jobs]
    assert sorted(classify(structure).kind for structure in computed) == expected


def test_bilayers_of_operators_without_a_name_keep_titles_of_their_own(ptbr3: Monolayer) -> None:
    maker = flows.StackingFlowMaker(gap=3.0, orders=("afm",), tasks=("scf",), relax=False)
    two_fold = [stack(ptbr3, named_operator(op), (0, 0), gap=3.0) for op in ("c2:0", "c2:60")]
    titles = [maker.bilayer_flow(bilayer, "afm").name for bilayer in two_fold]
    assert all("x" in title and "-z" in title for title in titles)
    assert titles[0] != titles[1]


def test_mistakes_in_a_flow_are_named(ptbr3: Monolayer) -> None:
    with pytest.raises(AltermagError, match="they may be scf, bands, optics, moke, scf among them"):
        flows.StackingFlowMaker(tasks=("bands",))
    with pytest.raises(AltermagError, match="give one of distance and gap"):
        flows.StackingFlowMaker(distance=6, gap=3)
    with pytest.raises(AltermagError, match="hubbard names Ni, which the structure does not have"):
        flows.StackingFlowMaker(hubbard={"Ni": 4.0}).make(ptbr3)


def test_the_transformation_ranks_altermagnets_first(ptbr3: Monolayer) -> None:
    from altermag.transformation import BilayerStackingTransformation

    transformation = BilayerStackingTransformation(ops=("mirror",))
    ranked = transformation.apply_transformation(ptbr3.structure, return_ranked_list=True)
    kinds = [entry["kind"] for entry in ranked]
    assert kinds == sorted(kinds, key=["altermagnet", "compensated-ferrimagnet", "antiferromagnet"].index)
    assert {"altermagnet", "antiferromagnet"} <= set(kinds)
    best = transformation.apply_transformation(ptbr3.structure)
    assert best == ranked[0]["structure"]
    assert len(transformation.apply_transformation(ptbr3.structure, return_ranked_list=2)) == 2
    again = BilayerStackingTransformation.from_dict(transformation.as_dict())
    assert again.ops == ("mirror",)
    assert len(ranked[0]["structure"]) == 16


def test_vector_moments_reach_the_incar_as_three_numbers_an_atom(ptbr3: Monolayer) -> None:
    ab = stack(ptbr3, "mirror", (1 / 3, 2 / 3), distance=6.35)
    text = str(vasp.input_set(ab, "soc").incar)
    line = next(line for line in text.splitlines() if line.startswith("MAGMOM"))
    numbers = [
        float(part.partition("*")[2] or part)
        for part in line.split("=")[1].split()
        for _ in range(int(part.partition("*")[0]) if "*" in part else 1)
    ]
    assert len(numbers) == 48
