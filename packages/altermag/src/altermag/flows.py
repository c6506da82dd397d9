"""A jobflow flow for clusters: relax the monolayer, stack it in all unlike ways, compute them (section 6.4).

    flow = StackingFlowMaker(ops=("mirror",), hubbard={"Pt": 1.0}).make(monolayer)
    jobflow_remote.submit_flow(flow)      # or jobflow.run_locally, FireWorks

The calculations are atomate2's VASP jobs on the input sets of `altermag.dft.vasp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from altermag.dft.results import check_points
from altermag.errors import AltermagError, MissingExtraError
from altermag.monolayer import Monolayer
from altermag.slabs import check_elements
from altermag.special import enumerate_stackings
from altermag.stacking import Bilayer, fractional_operator, stack

try:
    from atomate2.vasp.jobs.base import BaseVaspMaker
    from jobflow.core.flow import Flow
    from jobflow.core.job import Job, Response, job
    from jobflow.core.maker import Maker
    from pymatgen.core.operations import SymmOp
except ImportError as _error:
    raise MissingExtraError(
        f"{_error.name or 'atomate2'} is needed for flows: pip install 'altermag[flows]'"
    ) from _error

from altermag.dft import vasp

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

TASKS = ("scf", "bands", "optics", "moke")
DEFAULT_GAP = 3.0
"""Å between the outermost atoms of the layers, where neither gap nor distance is given."""
CONTINUED = ("bands",)
"""Tasks that read the density of the scf run before them."""


@dataclass
class StackingFlowMaker(Maker):
    """Makes the flow of a monolayer.

    `ops` are the stacking operators; `shifts`, fractions of a1 and a2, or by default all unlike special
    ones. `distance` or `gap` in Å, by default a gap of 3. Of every bilayer the `orders` are computed,
    and `tasks` for "afm". `relax` says whether the monolayer is relaxed first. `incar`, `hubbard` and
    `neel` are those of `altermag.dft.vasp.input_set`; `run_vasp_kwargs` are atomate2's (command, handlers),
    `run_ncl_kwargs` those of the noncollinear program, for spin-orbit coupling.
    """

    name: str = "stackings"
    ops: Sequence[str] = ("mirror",)
    shifts: Sequence[Sequence[float]] | None = None
    distance: float | None = None
    gap: float | None = None
    orders: Sequence[str] = ("afm", "fm")
    tasks: Sequence[str] = ("scf", "bands", "optics", "moke")
    relax: bool = True
    vacuum: float = 20.0
    incar: Mapping[str, Any] = field(default_factory=dict)
    hubbard: Mapping[str, float] = field(default_factory=dict)
    neel: tuple[float, float, float] = (0, 0, 1)
    run_vasp_kwargs: Mapping[str, Any] = field(default_factory=dict)
    run_ncl_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown or "scf" not in self.tasks:
            known = ", ".join(TASKS)
            raise AltermagError(f"tasks are {tuple(self.tasks)}; they may be {known}, scf among them")
        if self.distance is not None and self.gap is not None:
            raise AltermagError("give one of distance and gap")

    def make(self, monolayer: Monolayer) -> Flow:
        """Return the flow of one monolayer. Raises `AltermagError` if `hubbard` names what is not in it."""
        check_elements(self.hubbard, "hubbard", monolayer.species)
        structure = vasp.vasp_structure(monolayer)
        moments = [float(moment) for moment in structure.site_properties["magmom"]]
        title = f"{self.name} {structure.composition.reduced_formula}"
        if not self.relax:
            stacked = stack_monolayer(self, structure, moments)
            return Flow([stacked], output=stacked.output, name=title)
        relaxed = self.vasp_job("relax-cell", structure, "relax monolayer")
        stacked = stack_monolayer(self, relaxed.output.structure, moments)
        return Flow([relaxed, stacked], output=stacked.output, name=title)

    def vasp_job(
        self, task: str, structure: Structure, title: str, k_points: Any = None, prev_dir: Any = None
    ) -> Job:
        """Return atomate2's job for one calculation."""
        settings: Any = vasp.generator(
            task, incar=self.incar, hubbard=self.hubbard, k_points=k_points, neel=self.neel
        )
        maker = BaseVaspMaker(
            name=title,
            input_set_generator=settings,
            run_vasp_kwargs=dict(self.run_ncl_kwargs if task in vasp.SPINORS else self.run_vasp_kwargs),
            copy_vasp_kwargs={"additional_vasp_files": ("CHGCAR",)} if prev_dir is not None else {},
        )
        given = vasp.with_vector_moments(structure) if task in vasp.SPINORS else structure
        make: Any = maker.make  # a job, by atomate2's decorator
        return make(given, prev_dir=prev_dir)

    def bilayer_flow(self, bilayer: Bilayer, order: str) -> Flow:
        """Return the calculations of one bilayer in one order: scf, then for "afm" the other tasks."""
        structure = vasp.vasp_structure(bilayer)
        shift = ",".join(f"{value:.4g}" for value in bilayer.shift)
        title = f"{_operator_title(bilayer)} ({shift}) {order}"
        density = self.vasp_job("scf", structure, f"{title} scf")
        jobs = [density]
        for task in self.tasks if order == "afm" else ():
            if task == "scf":
                continue
            points = check_points(bilayer) if task == "bands" else None
            before = density.output.dir_name if task in CONTINUED else None
            jobs.append(self.vasp_job(task, structure, f"{title} {task}", points, before))
        return Flow(jobs, output={entry.name: entry.output for entry in jobs}, name=title)

    def stackings(self, monolayer: Monolayer) -> list[Bilayer]:
        """Return the bilayers that will be computed, antiparallel; special ones are of the primitive cell."""
        apart: dict[str, Any] = {"gap": DEFAULT_GAP if self.gap is None else self.gap}
        if self.distance is not None:
            apart = {"distance": self.distance}
        if self.shifts is not None:
            return [
                stack(monolayer, op, shift, vacuum=self.vacuum, **apart)
                for op in self.ops
                for shift in self.shifts
            ]
        return enumerate_stackings(monolayer, ops=tuple(self.ops), vacuum=self.vacuum, **apart)


@job
def stack_monolayer(maker: StackingFlowMaker, structure: Structure, moments: Sequence[float]) -> Response:
    """Stack a (relaxed) monolayer; what is to be computed takes this job's place.

    `moments` are those of the monolayer, since VASP's have lost their nominal values. The relaxed structure
    may be off its symmetry by what forces leave: it is searched with 0.01 Å.
    """
    nominal = np.asarray(moments, dtype=float)
    monolayer = Monolayer.from_structure(structure, nominal, vacuum_axis=2, symprec=1e-2)
    flows = [
        maker.bilayer_flow(_in_order(bilayer, order, maker.vacuum), order)
        for bilayer in maker.stackings(monolayer)
        for order in maker.orders
    ]
    together = Flow(flows, output={flow.name: flow.output for flow in flows}, name=maker.name)
    return Response(replace=together)


def _operator_title(bilayer: Bilayer) -> str:
    """Return the operator's name; of one without a name what it does to fractions, such as -y, -x, -z."""
    if bilayer.op != "custom":
        return bilayer.op
    inside = fractional_operator(bilayer.operator, bilayer.lattice[:2, :2])
    return SymmOp.from_rotation_and_translation(inside.astype(float)).as_xyz_str()


def _in_order(bilayer: Bilayer, order: str, vacuum: float) -> Bilayer:
    """Return the bilayer in an order, stacked of its own monolayer: its shift is in fractions of that."""
    op = bilayer.op if bilayer.op != "custom" else bilayer.operator
    return stack(bilayer.monolayer, op, bilayer.shift, distance=bilayer.distance, order=order, vacuum=vacuum)
