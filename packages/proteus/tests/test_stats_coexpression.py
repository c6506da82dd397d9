from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from proteus_omics.errors import DataError
from proteus_omics.stats import (
    bicor,
    eigengenes,
    find_modules,
    pearson,
    scale_free_fit,
    signed_adjacency,
    soft_power,
    topological_overlap,
)

GOLDEN = Path(os.environ.get("TENFOLD_DATA", "")) / "proteus/golden"


def planted(modules: int = 4, members: int = 25, noise: int = 60, n: int = 60, seed: int = 0) -> pd.DataFrame:
    """Modules of proteins that share a factor, in this order, and proteins that share none."""
    rng = np.random.default_rng(seed)
    factors = np.repeat(rng.normal(size=(n, modules)), members, axis=1)
    x = np.hstack([factors + 0.7 * rng.normal(size=factors.shape), rng.normal(size=(n, noise))])
    return pd.DataFrame(x + 25).add_prefix("P")


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="$TENFOLD_DATA has no proteus/golden")
def test_network_of_the_plasma_proteome_equals_wgcna():
    table = pd.read_csv(GOLDEN / "input_nafld_log2_median_centred.csv.gz", index_col=0).dropna()
    place = {gene: at for at, gene in reversed(list(enumerate(table.index)))}
    adjacency = signed_adjacency(pearson(table.T), 6)
    overlap, mid = topological_overlap(adjacency), bicor(table.T)
    for one, other, a, t in (
        ("APOB", "APOE", 0.0468029386, 0.0692399642),
        ("F2", "SERPINC1", 0.1543237247, 0.1626037577),
        ("C3", "CFB", 0.3959913209, 0.1761831053),
    ):
        assert adjacency[place[one], place[other]] == pytest.approx(a, abs=1e-9)
        assert overlap[place[one], place[other]] == pytest.approx(t, abs=1e-9)
    for one, other, r in (
        ("APOB", "F2", 0.3531025220),
        ("C3", "CFB", 0.6053638221),
        ("F2", "CFB", 0.4667466675),
    ):
        assert mid[place[one], place[other]] == pytest.approx(r, abs=1e-9)
    groups = pd.read_csv(GOLDEN / "input_nafld_groups.csv", index_col=0)["disease"]
    cirrhosis = groups[table.columns] == "liver cirrhosis"
    found = find_modules(table.T).eigengenes.apply(lambda column: np.corrcoef(column, cirrhosis)[0, 1])
    assert found.min() == pytest.approx(-0.66, abs=0.02)  # WGCNA's turquoise module


def test_planted_modules_are_found_and_noise_is_in_none():
    found = find_modules(planted())
    for module in range(4):
        assert len(set(found.labels[25 * module : 25 * module + 25])) == 1
    assert set(found.labels[:100]) == {1, 2, 3, 4}
    assert (found.labels[100:] == 0).mean() > 0.7
    assert (
        list(found.membership)
        == list(found.eigengenes)
        == [f"M{k}" for k in range(1, found.labels.max() + 1)]
    )


def test_opposite_proteins_are_in_different_modules():
    x = planted(modules=1, members=40, noise=20)
    x.iloc[:, 20:40] *= -1
    labels = find_modules(x).labels
    assert len(set(labels[:20])) == len(set(labels[20:40])) == 1
    assert labels[0] != labels[20]


def test_the_order_of_proteins_does_not_matter():
    x = planted()
    order = np.random.default_rng(1).permutation(x.shape[1])
    one, other = find_modules(x), find_modules(x.iloc[:, order])
    together = one.labels[:, None] == one.labels
    np.testing.assert_array_equal((other.labels[:, None] == other.labels), together[order][:, order])


def test_eigengenes_have_unit_norm_and_the_sign_of_their_members_mean():
    x = planted().to_numpy()
    labels = np.r_[np.repeat([1, 2, 3, 4], 25), np.zeros(60, dtype=int)]
    genes = eigengenes(-x, labels)
    np.testing.assert_allclose(np.linalg.norm(genes, axis=0), 1)
    for k in range(4):
        members = -x[:, labels == k + 1]
        assert np.corrcoef(genes[:, k], members.mean(axis=1))[0, 1] > 0.95
        scores = np.linalg.eigh(np.corrcoef(members.T))[1][:, -1]
        first = ((members - members.mean(0)) / members.std(0)) @ scores
        assert abs(np.corrcoef(genes[:, k], first)[0, 1]) == pytest.approx(1)


def test_topological_overlap_follows_its_definition():
    a = np.random.default_rng(0).random((5, 5))
    a = (a + a.T) / 2
    np.fill_diagonal(a, 1)
    overlap = topological_overlap(a)
    i, j, others = 1, 3, [0, 2, 4]
    shared = sum(a[i, u] * a[u, j] for u in others)
    k = a.sum(axis=0) - 1
    assert overlap[i, j] == pytest.approx((shared + a[i, j]) / (min(k[i], k[j]) + 1 - a[i, j]))
    np.testing.assert_array_equal(np.diag(overlap), 1)
    assert np.diag(a).tolist() == [1] * 5  # the argument is as it was


def test_bicor_withstands_an_outlier_and_is_pearson_where_the_mad_is_zero():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2))
    x[:, 1] += 2 * x[:, 0]
    clean = bicor(x)[0, 1]
    x[0] = 100, -100
    assert pearson(x)[0, 1] < -0.9
    assert bicor(x)[0, 1] == pytest.approx(clean, abs=0.05)
    rare = np.where(np.arange(40) < 5, 1.0, 0.0)
    both = np.column_stack([rare, np.where(np.arange(40) == 39, 2.0, rare)])
    np.testing.assert_allclose(bicor(both), pearson(both))


def test_signed_adjacency_is_zero_for_opposites_and_one_for_equals():
    np.testing.assert_allclose(signed_adjacency(np.array([-1.0, 0, 1]), 6), [0, 1 / 64, 1])


def test_a_scale_free_network_has_a_good_fit_and_a_random_one_takes_the_usual_power():
    rng = np.random.default_rng(0)
    k = 1 / (1 - np.linspace(0, 0.98, 2000))  # from 1 to 50, with density k^-2
    assert scale_free_fit(np.outer(k, k) / k.sum()) > 0.8
    assert scale_free_fit(np.ones((20, 20))) == 0
    power, fit = soft_power(pearson(rng.normal(size=(30, 200))))
    assert (power, fit < 0.8) == (6, True)


def test_what_cannot_be_a_network_is_refused():
    x = planted()
    with pytest.raises(DataError, match="filter or impute first"):
        find_modules(x.mask(x > 27))
    with pytest.raises(DataError, match="1 proteins have the same value"):
        find_modules(x.assign(P0=1.0))
    with pytest.raises(DataError, match="modules of 10 proteins cannot be found among 5"):
        find_modules(x.iloc[:, :5])
