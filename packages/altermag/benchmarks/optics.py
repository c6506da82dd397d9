"""Kubo's conductivity of bilayer PtBr3, 96 states with spin-orbit coupling, beside its formula and
WannierBerri.

    python benchmarks/optics.py [--peer-mesh 6] [--mesh 24] [--energies 200] [--repeats 3]

`formula` is section 2.8 as it is written, in NumPy, one k after the other. WannierBerri is timed where it is
installed, with PythTB and numba, and with no merging of levels (degen_thresh < 0). Same model, mesh, filling
and broadening, one thread, one process, in turn; a ratio is (time of the peer / ours), the median of the
pairs. The stacking is a generic one: WannierBerri means over levels that are closer than 1e-4 eV, which
others have. Goal: 576 k and 200 photon energies in 60 s.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from altermag import optics, prototypes, stack, tb
from altermag.tb.bloch import gamma_mesh

ETA = 0.05
S_PER_M = 387404.586493  # e²/h a Å: WannierBerri's sheet is 1 Å thick


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-mesh", type=int, default=6, help="k along b1 and b2 where peers take part")
    parser.add_argument("--mesh", type=int, default=24, help="k along b1 and b2 for the goal")
    parser.add_argument("--energies", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    bilayer = stack(prototypes.ptbr3(), "mirror", (0.13, 0.29), distance=6.0)
    model = tb.from_bilayer(bilayer, "p", tb.Parameters(cutoff=6.0), soc=0.4)
    energies = np.linspace(0.1, 4, options.energies)
    nk = (options.peer_mesh, options.peer_mesh)
    fermi = optics.kubo(model, 1.0, nk, ETA, n_electrons=80).fermi

    def ours() -> optics.Conductivity:
        return optics.kubo(model, energies, nk, ETA, fermi=fermi)

    reference = ours()
    print(f"{model}, {nk[0]} x {nk[1]} k, {len(energies)} photon energies\n")
    print("| peer | its time (s) | ours (s) | ratio | apart, of the largest |\n|---|---|---|---|---|")
    for name, peer in peers(model, energies, nk, fermi).items():
        values = peer()
        mine = np.stack([reference.xx, reference.xy, reference.yx, reference.yy], axis=1).reshape(-1, 2, 2)
        apart = np.abs(values - mine).max() / np.abs(mine).max()
        pairs = [(seconds(peer), seconds(ours)) for _ in range(options.repeats)]
        theirs, own = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(one / other for one, other in pairs)
        print(f"| {name} | {theirs:.2f} | {own:.2f} | {ratio:.1f} | {apart:.1e} |", flush=True)
    mesh = (options.mesh, options.mesh)
    taken = seconds(lambda: optics.kubo(model, energies, mesh, ETA, n_electrons=80))
    print(f"\n{mesh[0] * mesh[1]} k, {len(energies)} energies, Fermi level from 80 electrons: {taken:.1f} s")


def peers(
    model: tb.Model, energies: np.ndarray, nk: tuple[int, int], fermi: float
) -> dict[str, Callable[[], np.ndarray]]:
    found = {"formula in NumPy": lambda: formula(model, energies, nk, fermi)}
    try:
        from wannierberri import Grid, run
        from wannierberri.calculators.dynamic import OpticalConductivity
        from wannierberri.system import System_PythTB
    except ImportError as error:
        print(f"(WannierBerri takes no part: {error})")
        return found
    system = System_PythTB(tb.to_pythtb(model))

    def wannierberri() -> np.ndarray:
        conductivity = OpticalConductivity(
            Efermi=[fermi], omega=energies, smr_fixed_width=ETA, smr_type="Lorentzian", degen_thresh=-1
        )
        result = run(
            system,
            Grid(system, NK=[*nk, 1], NKFFT=[*nk, 1]),
            calculators={"sigma": conductivity},
            adpt_num_iter=0,
            parallel=False,
            use_irred_kpt=False,
            symmetrize=False,
            print_Kpoints=False,
        )
        return result.results["sigma"].data[0, :, :2, :2] / S_PER_M

    return found | {"WannierBerri": wannierberri}


def formula(model: tb.Model, energies: np.ndarray, nk: tuple[int, int], fermi: float) -> np.ndarray:
    mesh = gamma_mesh(nk)
    total = np.zeros((len(energies), 2, 2), dtype=complex)
    z = energies + 1j * ETA
    for k in mesh:
        levels, states = np.linalg.eigh(model.hamiltonian(k)[0])
        v = [states.conj().T @ slope @ states for slope in model.velocity(k)[:, 0]]
        filled = (levels < fermi).astype(float)
        w = levels[None, :] - levels[:, None]
        change = filled[None, :] - filled[:, None]
        g = np.divide(change, w, out=np.zeros_like(w), where=change != 0)
        resolvent = 1 / (w[..., None] - z)
        for a in (0, 1):
            for b in (0, 1):
                total[:, a, b] += np.einsum("nm,nmw->w", g * v[a] * v[b].T, resolvent)
    return 2j * np.pi * total / (len(mesh) * model.area)


def seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
