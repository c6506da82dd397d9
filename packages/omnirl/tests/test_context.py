"""Cross-entropy and regret by position, of policies whose values are known."""

import numpy as np
import pytest
import torch

import omnirl
from omnirl.data.sequences import Dataset, pack_episodes
from omnirl.errors import OmniRLError
from omnirl.evaluation.context import ContextCurves, context_curves


@pytest.fixture(scope="module")
def setting():
    tasks = omnirl.sample_tasks(2, num_states=16, num_actions=5, seed=3)
    rng = np.random.default_rng(0)
    sequences = []
    for task in range(2):
        episode = {
            "observations": rng.integers(16, size=7),
            "actions": rng.integers(5, size=6),
            "rewards": rng.normal(size=6),
            "labels": rng.integers(5, size=6),
        }
        sequences.append({**pack_episodes([episode, episode], 5), "task_index": task})
    torch.manual_seed(0)
    model = omnirl.OmniRL(
        omnirl.OmniRLConfig(16, 5, hidden_size=16, num_layers=1, num_heads=2, layout="fused")
    )
    return model, Dataset.from_sequences(sequences, 16, 5), tasks


def test_the_curves_do_not_depend_on_batches_and_segments(setting):
    model, data, tasks = setting
    whole, pieces = (
        context_curves(model, data, tasks),
        context_curves(model, data, tasks, batch_size=1, segment=4),
    )
    np.testing.assert_allclose(whole.cross_entropy, pieces.cross_entropy, atol=1e-5)
    np.testing.assert_allclose(whole.regret, pieces.regret, atol=1e-5)
    np.testing.assert_array_equal(whole.number, [2] * 6 + [0] + [2] * 6 + [0])
    assert np.isnan(whole.cross_entropy[6])


def test_a_uniform_policy_has_ln_5_and_no_regret_gain(setting):
    model, data, tasks = setting
    uniform = omnirl.OmniRL(model.config)
    torch.nn.init.zeros_(uniform.policy_head.out_proj.weight)
    torch.nn.init.zeros_(uniform.policy_head.out_proj.bias)
    found = context_curves(uniform, data, tasks)
    np.testing.assert_allclose(found.cross_entropy[found.number > 0], np.log(5), atol=1e-6)
    np.testing.assert_allclose(found.gain(7), 0, atol=1e-6)
    np.testing.assert_allclose(found.regret_gain(7), 0, atol=1e-6)
    q = omnirl.solve(tasks[0], 0.994)
    inner = list(tasks[0].state_mapping).index(data[0]["observations"][0])
    other = omnirl.solve(tasks[1], 0.994)
    second = list(tasks[1].state_mapping).index(data[1]["observations"][0])
    expected = np.mean([q[inner].max() - q[inner].mean(), other[second].max() - other[second].mean()])
    assert found.uniform_regret[0] == pytest.approx(expected, rel=1e-6)


def test_the_gain_is_one_minus_the_loss_over_the_first_one():
    found = ContextCurves(np.array([2.0, np.nan, 1.0, 0.5]), np.array([1, 0, 3, 1]), None, None)
    np.testing.assert_allclose(found.gain()[[0, 2, 3]], [0, 0.5, 0.75])
    np.testing.assert_allclose(found.gain(2), [0, 1 - (3 * 1 + 0.5) / 4 / 2])
    with pytest.raises(OmniRLError, match="need the tasks"):
        found.regret_gain()
    with pytest.raises(OmniRLError, match="longer than"):
        found.gain(5)
