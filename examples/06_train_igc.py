"""Train an interleaved group convolution network on real handwritten digits, step by step."""

from igcnn import build_network, load_dataset, no_grad, optim
from igcnn.backend import single_threaded_blas
from igcnn.datasets import Loader, evaluation_batches
from igcnn.functional import cross_entropy

EPOCHS = 12

dataset = load_dataset("digits")
network = build_network("resnet_igc", depth=8, L=8, M=2, num_classes=len(dataset.classes))
print(network)
print("parameters:", sum(p.size for p in network.parameters()))

loader = Loader(
    dataset.train,
    batch_size=64,
    mean=dataset.mean,
    std=dataset.std,
    augmentation=dataset.augmentation,
    seed=0,
)
optimizer = optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def accuracy():
    """Share of the held-out digits that the network names right."""
    right = 0
    network.eval()
    with no_grad():
        for x, labels in evaluation_batches(
            dataset.test, batch_size=256, mean=dataset.mean, std=dataset.std
        ):
            right += (network(x).data.argmax(axis=1) == labels).sum()
    network.train()
    return right / len(dataset.test.labels)


with single_threaded_blas():
    for epoch in range(EPOCHS):
        optimizer.lr = 0.05 if epoch < 8 else 0.005  # the last third at a tenth of the rate
        for x, labels in loader.epoch(epoch):
            optimizer.zero_grad()
            loss = cross_entropy(network(x), labels)
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {accuracy():.1%}")
assert accuracy() > 0.9
