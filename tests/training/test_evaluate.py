import math

import numpy as np
import pytest

from igcnn.training import TapeEngine, evaluate


def oracle(network, dataset):
    """Loss and hits image by image: softmax by hand, no batches."""
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (dataset.mean, dataset.std))
    losses, top1, top5, confusion = [], 0, 0, np.zeros((10, 10), int)
    network.eval()
    for image, label in zip(dataset.test.images, dataset.test.labels, strict=True):
        x = ((image - mean) / std).astype(np.float32)[None]
        logits = network(x).data[0].astype(np.float64)
        losses.append(math.log(sum(np.exp(logits))) - logits[label])
        order = list(np.argsort(-logits))
        confusion[label, order[0]] += 1
        top1 += order[0] == label
        top5 += label in order[:5]
    N = len(losses)
    return 100 * top1 / N, 100 * top5 / N, sum(losses) / N, confusion


@pytest.mark.parametrize("batch_size", [1, 7, 60, 1000])
def test_every_image_counts_once(small_network, dataset, batch_size):
    top1, top5, loss, confusion = oracle(small_network, dataset)
    small_network.train()
    result = evaluate(
        TapeEngine(small_network),
        dataset.test,
        mean=dataset.mean,
        std=dataset.std,
        batch_size=batch_size,
    )
    assert result.images == 60
    assert result.top1 == pytest.approx(top1)
    assert result.top5 == pytest.approx(top5)
    assert result.loss == pytest.approx(loss, rel=1e-5)
    np.testing.assert_array_equal(result.confusion, confusion)


def test_nothing_of_the_network_changes(small_network, dataset):
    before = small_network.state_dict()
    small_network.train()
    evaluate(TapeEngine(small_network), dataset.test, mean=dataset.mean, std=dataset.std)
    assert small_network.training
    for name, array in small_network.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert all(tensor.grad is None for tensor in small_network.parameters())


def test_check_can_break_off(small_network, dataset):
    def stop():
        raise KeyboardInterrupt

    engine = TapeEngine(small_network)
    with pytest.raises(KeyboardInterrupt):
        evaluate(engine, dataset.test, mean=dataset.mean, std=dataset.std, check=stop)
    assert small_network.training
