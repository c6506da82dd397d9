"""The claims of the paper, written down before any run.

We know the paper's abstract and what a review says of it, none of its numbers: no claim compares with one.
C1 to C7 are the paper's; their exact halves run anywhere, and what ends in -dft needs GPAW. S claims are of
the theory that the package stands on, M of its answers for measured structures. Splittings are E_up - E_down.
"""

from __future__ import annotations

from tenfold import Above, AllOf, AtLeast, AtMost, Below, Claim, Equals, NoRule, On

PAPER = "Sun et al., arXiv 2411.13182"
ABSTRACT = f"{PAPER}, abstract"
REVIEW = "a review's summary of it (Kaur and De Sarkar, J. Phys.: Condens. Matter 37, 253001)"
UNKNOWN = "no number known to us"
MAGNDATA = "magndata-42"
DFT = ("gpaw",)
LONG = ("laptop", "paper")

EXACT = 1e-9
"""What counts as zero of a model, relative to the number it is compared with."""
NOISE_MEV = 1.5
"""What counts as zero of a DFT splitting: the noise of the real-space grid is 0.4 to 1.4 meV."""
SPLIT_MEV = 10.0

MODEL = (
    Claim(
        id="C1",
        statement="Reversed stacking with antiparallel layers gives altermagnets with no field: every row "
        "of the table of bilayer PtBr3 (class, layer group, number of layer-swapping operations, in-plane "
        "wave, nodal lines) is found by the fast kernel and by spglib on the built cell, and a model's "
        "bands agree.",
        source=ABSTRACT,
        metric="table_mismatches",
        criterion=AllOf(Equals(0.0), On("table_rows", AtLeast(10.0))),
        paper_text="said in words",
        unit="entries",
    ),
    Claim(
        id="C1-map",
        statement="Over all shifts of reversed PtBr3, 24 by 24, the model's spins are degenerate exactly "
        "where the map says so: at (0,0) and the three bridges.",
        source="ours",
        metric="witness_disagreements",
        criterion=AllOf(Equals(0.0), On("degenerate_shifts", Equals(4.0))),
        unit="shifts",
    ),
    Claim(
        id="C2",
        statement="AB' PtBr3 is an altermagnet; the standard path misses it: on M-K and through Γ along M "
        "and K the model has no splitting, on the generic path it has.",
        source=ABSTRACT,
        metric="ab_generic_splitting_mev",
        criterion=AllOf(Above(1.0), On("ab_standard_over_generic", AtMost(EXACT))),
        paper_text=UNKNOWN,
        unit="meV (model)",
    ),
    Claim(
        id="C2-wave",
        statement="The splitting of AB' is an i-wave in the plane: on a small ring around Γ no harmonic "
        "below the sixth is there.",
        source="ours; a checker of bulk crystals says g-wave",
        metric="ab_lower_harmonics",
        criterion=AllOf(AtMost(EXACT), On("ab_sixth_harmonic_mev", Above(0.0))),
        unit="of the sixth",
    ),
    Claim(
        id="C3",
        statement="The crystal's chirality sets the sign: Δ(k) of BA' is -Δ(k) of AB' over the zone.",
        source=ABSTRACT,
        metric="chirality_residual",
        criterion=AtMost(EXACT),
        paper_text="said in words",
        unit="relative",
    ),
    Claim(
        id="C4",
        statement="AC' is polar and sliding reverses it: the model's layer dipole is odd under the slide "
        "from AC'+ to AC'-, and nothing in AA' and AB'.",
        source=f"{ABSTRACT}; {REVIEW}",
        metric="dipole_residual",
        criterion=AllOf(AtMost(EXACT), On("dipole_ac", Above(0.0)), On("dipole_elsewhere", AtMost(EXACT))),
        paper_text=UNKNOWN,
        unit="relative",
    ),
    Claim(
        id="C5",
        statement="In AC' the polarisation controls the sign of the splitting: Δ(k) of AC'- is -Δ(k) of "
        "AC'+, also at Γ, where it is not zero.",
        source=ABSTRACT,
        metric="polarisation_residual",
        criterion=AllOf(AtMost(EXACT), On("ac_gamma_splitting_mev", Above(0.0))),
        paper_text="said in words",
        unit="relative",
    ),
    Claim(
        id="C6",
        statement="Light reads it: σ_xy, Kerr angle and ellipticity of AC' are odd in the polarisation and "
        "odd in the Néel vector; AA' and AB' are silent with spins along z.",
        source=f"{ABSTRACT}; {REVIEW}",
        metric="kerr_residual",
        criterion=AllOf(
            AtMost(EXACT),
            On("hall_residual", AtMost(EXACT)),
            On("hall_ac", Above(0.0)),
            On("hall_silent", AtMost(EXACT)),
        ),
        paper_text=UNKNOWN,
        unit="relative",
    ),
    Claim(
        id="C7",
        statement="The crystal Hall effect: which components are allowed, for six stackings and spins along "
        "x, y and z, as derived by hand; the model's σ_xy is zero exactly where z is forbidden.",
        source=REVIEW,
        metric="hall_table_mismatches",
        criterion=AllOf(Equals(0.0), On("hall_model_disagreements", Equals(0.0))),
        paper_text="said in words",
        unit="entries",
    ),
)

THEORY = (
    Claim(
        id="S1",
        statement="Of the 80 layer groups exactly 17 can be A-type altermagnets.",
        source="Zeng and Zhao, arXiv 2407.15097; Pan et al., arXiv 2409.06964",
        metric="layer_groups_wrong",
        criterion=AllOf(
            Equals(0.0), On("altermagnetic_groups", Equals(17.0)), On("altermagnetic_classes", Equals(7.0))
        ),
        paper_text="17 groups, 7 point groups",
        unit="of 80 groups",
    ),
    Claim(
        id="S2",
        statement="Stackings of random monolayers of all 80 layer groups: every A-type altermagnet that is "
        "found has one of the 17 layer groups and one of the 7 point groups.",
        source="Zeng and Zhao, arXiv 2407.15097; Pan et al., arXiv 2409.06964",
        metric="census_exceptions",
        criterion=AllOf(
            Equals(0.0),
            On("census_altermagnets", Above(0.0, every_seed=True)),
            On("census_monolayer_groups", Equals(80.0)),
        ),
        unit="stackings",
    ),
    Claim(
        id="M1",
        statement="42 measured magnetic structures: every class and every wave of the bulk is the expected "
        "one, and noncollinear ones are refused.",
        source="MAGNDATA, Bilbao Crystallographic Server; the expected answers are ours",
        metric="magndata_mismatches",
        criterion=AllOf(Equals(0.0), On("magndata_structures", Equals(42.0))),
        needs=(MAGNDATA,),
        unit="entries",
    ),
    Claim(
        id="M2",
        statement="Where amcheck answers it agrees; ours is at least ten times as fast on the same "
        "structures, in one process.",
        source="amcheck 1.0.2",
        metric="magndata_speed_over_amcheck",
        criterion=AllOf(AtLeast(10.0), On("amcheck_disagreements", Equals(0.0))),
        needs=(MAGNDATA,),
        modules=("amcheck",),
        unit="x",
    ),
)

NICKEL = (
    Claim(
        id="C1-dft",
        statement="Reversed NiCl2 at (1/3,0), computed: no splitting beyond the noise at the zeros that "
        "symmetry forces, at least 10 meV at generic k; as predicted, a d-wave altermagnet.",
        source="ours; the paper's statement for another material",
        metric="nicl2_splitting_mev",
        criterion=AllOf(AtLeast(SPLIT_MEV), On("nicl2_forced_zeros_mev", AtMost(NOISE_MEV))),
        modules=DFT,
        unit="meV",
        note="Within 4 eV of the Fermi level.",
    ),
    Claim(
        id="C1-dft-control",
        statement="The control, reversed NiCl2 at (0,0): no splitting anywhere.",
        source="ours",
        metric="nicl2_control_mev",
        criterion=AtMost(NOISE_MEV),
        modules=DFT,
        scales=LONG,
        unit="meV",
    ),
)

PLATINUM = (
    Claim(
        id="C2-dft",
        statement="AB' PtBr3, computed: |Δ| ≤ 1.5 meV at all symmetry-forced zeros and max|Δ| ≥ 10 meV at "
        "generic k within 3 eV of the gap.",
        source=ABSTRACT,
        metric="ab_splitting_mev",
        criterion=AllOf(AtLeast(SPLIT_MEV), On("ab_forced_zeros_mev", AtMost(NOISE_MEV))),
        paper_text=UNKNOWN,
        scales=LONG,
        modules=DFT,
        unit="meV",
    ),
    Claim(
        id="C2-dft-wave",
        statement="Δ_n(σk) = -Δ_n(k) within 1.5 meV for the nodal reflections σ of AB'.",
        source=ABSTRACT,
        metric="ab_reflection_mev",
        criterion=AtMost(NOISE_MEV),
        scales=LONG,
        modules=DFT,
        unit="meV",
    ),
    Claim(
        id="C3-dft",
        statement="BA' = -AB' within 1.5 meV.",
        source=ABSTRACT,
        metric="chirality_mev",
        criterion=AtMost(NOISE_MEV),
        paper_text="said in words",
        scales=LONG,
        modules=DFT,
        unit="meV",
    ),
    Claim(
        id="C1-dft-degenerate",
        statement="AA' PtBr3: |Δ| ≤ 1.5 meV everywhere.",
        source="ours; amcheck calls this stacking an altermagnet",
        metric="aa_splitting_mev",
        criterion=AtMost(NOISE_MEV),
        scales=LONG,
        modules=DFT,
        unit="meV",
    ),
    Claim(
        id="C5-dft",
        statement="AC'±: Δ(Γ) is not zero in some valence band, beyond the noise.",
        source=ABSTRACT,
        metric="ac_gamma_mev",
        criterion=Above(NOISE_MEV, every_seed=True),
        paper_text=UNKNOWN,
        scales=LONG,
        modules=DFT,
        unit="meV",
        note="The samples are AC'+ and AC'-.",
    ),
    Claim(
        id="C4-dft",
        statement="P_z(AC'+) = -P_z(AC'-) within 10%; |P_z| of AB' and AA' is below 0.05 pC/m.",
        source=f"{ABSTRACT}; {REVIEW}",
        metric="polarisation_asymmetry",
        criterion=AllOf(AtMost(0.1), On("polarisation_elsewhere", Below(0.05, every_seed=True))),
        paper_text=UNKNOWN,
        scales=LONG,
        modules=DFT,
        unit="relative",
        note="The samples of the second number are AB' and AA'.",
    ),
    Claim(
        id="C5-dft-order",
        statement="Interlayer exchange E_FM - E_AFM a cell, AB'; the order of the energies stands in the "
        "figure.",
        source=PAPER,
        metric="ab_exchange_mev",
        criterion=NoRule("reported with no target: it depends on the functional, on U and on the distance"),
        paper_text=UNKNOWN,
        scales=LONG,
        modules=DFT,
        unit="meV",
    ),
)

CLAIMS = (*MODEL, *THEORY, *NICKEL, *PLATINUM)
EXACT_CLAIMS = tuple(claim.id for claim in (*MODEL, *THEORY) if claim.id != "M2")
"""A run in which one of these does not hold has found a mistake of the package."""
